"""What was decided about a plan beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.fx import Node

from orchestrator.graph.queries import dtype_name, op_name

Kind = Literal["cost", "single", "greedy"]
"""Of plans: by cost; on one backend, with kernels for what it does not take; by capability."""


@dataclass(frozen=True)
class Choice:
    """A plan that was decided beforehand, or how to make one; the default leaves all open.

    name: for people. only: names of the delegates to use; None for all. order: of the backends,
        for a greedy plan. assignment: backends by atom id, for all atoms. decomposed: composite
        ops (see `composite_key`) not to preserve, whatever a backend would like. contiguous: have
        images keep the dim order that the model gives them, see `dim_orders.as_given`.
    """

    name: str = "cheapest"
    only: tuple[str, ...] | None = None
    order: tuple[str, ...] | None = None
    assignment: Mapping[str, str] | None = None
    decomposed: frozenset[str] = frozenset()
    kind: Kind = "cost"
    contiguous: bool = False

    @classmethod
    def of_one(cls, backend: str) -> Choice:
        """Return the choice of one delegate, with kernels for what it does not take."""
        return cls(f"{backend} alone", only=(backend,), order=(backend,), kind="single")

    @classmethod
    def greedy(cls, order: Sequence[str]) -> Choice:
        """Return the choice of the first delegate that takes an atom.

        order: names of the delegates, the preferred one first.
        """
        return cls(f"greedy: {', '.join(order)}", order=tuple(order), kind="greedy")


def composite_key(node: Node) -> str:
    """Name an op with the sizes it works on; nodes of one name are preserved, or not, together."""
    sizes = [
        f"{dtype_name(value.dtype)}[{','.join(map(str, value.shape))}]"
        for value in (source.meta.get("val") for source in node.all_input_nodes)
        if isinstance(value, torch.Tensor)
    ]
    return " ".join([op_name(node), *sizes])
