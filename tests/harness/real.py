"""Networks with real weights: lowered, and compared with eager PyTorch at every call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

import orchestrator
from examples.real import NETWORKS, Part
from tests.harness.compare import relative_error


class Compared:
    """Runs a lowered part, notes how far it is from eager, and returns what it computed.

    Attributes:
        error: the largest so far, of a call's output over its largest value.
        calls: how often it ran.
    """

    def __init__(self, program: Callable[..., Any], eager: Callable[..., Any]) -> None:
        self._program, self._eager = program, eager
        self.error = 0.0
        self.calls = 0

    def __call__(self, *inputs: Tensor) -> Any:
        with torch.no_grad():
            wanted = tree_leaves(self._eager(*inputs))
        # The runtime hands out memory that its next run overwrites.
        result = tree_map(torch.clone, self._program(*inputs))
        for got, want in zip(tree_leaves(result), wanted, strict=True):
            self.error = max(self.error, relative_error(got, want))
        self.calls += 1
        return result


@cache
def parts(name: str) -> Mapping[str, Part]:
    """The parts of a network with their weights; do not change them."""
    return NETWORKS[name].build()


def lowered(part: Part) -> Compared:
    """A part lowered with the defaults, from estimated costs."""
    # Buffers that calls change must not be shared with the reference.
    program = orchestrator.lower(
        copy.deepcopy(part.model),
        part.inputs,
        backends=["ggml", "xnnpack"],
        dynamic_shapes=part.dynamic_shapes,
        tune="off",
    )
    return Compared(program, copy.deepcopy(part.model))
