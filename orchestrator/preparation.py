"""How a program is written before it is partitioned, and what is learnt of it on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from orchestrator.backends import Backend
from orchestrator.frontend.passes.narrow_weights import Narrowed
from orchestrator.frontend.rewrites import Rewriting


@dataclass(frozen=True)
class Preparation:
    """All that decides how a partitioner has a program written before it partitions it."""

    backends: tuple[Backend, ...]
    decompose: frozenset[torch._ops.OpOverload]
    rewriting: Rewriting
    only: tuple[str, ...] | None
    decomposed: frozenset[str]
    pins: Mapping[str, str]
    exclude: Any
    for_kernels: bool
    weight_error: float
    contiguous: bool


@dataclass
class Seen:
    """What a partitioner learns of a program before it partitions it.

    zeros: by target, which constants hold zeros only. growth: of stored bytes. kept: by name, ops
    that some backend wanted preserved. composites: by `composite_key`, the backends that did.
    narrowed: what became of weights that may be off.
    """

    zeros: dict[str, bool] = field(default_factory=dict)
    growth: int = 0
    kept: dict[str, torch._ops.OpOverload] = field(default_factory=dict)
    composites: dict[str, frozenset[str]] = field(default_factory=dict)
    narrowed: Narrowed = field(default_factory=Narrowed)

    def copy(self) -> Seen:
        """Return one to add to."""
        return Seen(
            dict(self.zeros), self.growth, dict(self.kept), dict(self.composites), self.narrowed
        )
