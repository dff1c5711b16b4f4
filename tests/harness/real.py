"""Networks with real weights: lowered, and compared with eager PyTorch at every call."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

import orchestrator
from examples.real import NETWORKS, Part
from tests.harness.compare import relative_error

_CALIBRATION_CALLS = 16


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


def recorded(name: str) -> dict[str, list[tuple[Tensor, ...]]]:
    """By part: the inputs of some calls that the network's question makes."""
    calls: dict[str, list[tuple[Tensor, ...]]] = {part: [] for part in parts(name)}

    def recorder(part: str) -> Callable[..., Any]:
        model = copy.deepcopy(parts(name)[part].model)

        def call(*inputs: Tensor) -> Any:
            calls[part].append(inputs)
            with torch.no_grad():
                return model(*inputs)

        return call

    NETWORKS[name].ask({part: recorder(part) for part in parts(name)})
    return {part: found[:_CALIBRATION_CALLS] for part, found in calls.items()}


def quantized(part: Part, calls: list[tuple[Tensor, ...]], *, dynamic: bool) -> Part:
    """A part quantized by PT2E for XNNPACK, 8 bits per channel, calibrated on `calls`."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(
            copy.deepcopy(part.model), part.inputs, dynamic_shapes=part.dynamic_shapes
        )
        quantizer = XNNPACKQuantizer()
        quantizer.set_global(
            get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
        )
        prepared = prepare_pt2e(exported.module(), quantizer)
        for inputs in calls:
            prepared(*inputs)
        return Part(convert_pt2e(prepared), part.inputs, part.dynamic_shapes)
