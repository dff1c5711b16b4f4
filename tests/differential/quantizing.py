"""How random graphs are quantized: by PT2E, all graphs of a program at once, or by torchao."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torch import Tensor, fx, nn
from torch.export import export
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    PerAxis,
    PerGroup,
    quantize_,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

CALIBRATION_RUNS = 3
GROUP = 32

PT2E: dict[str, dict[str, bool]] = {
    "static int8 per tensor": {"is_per_channel": False},
    "static int8 per channel": {"is_per_channel": True},
    "dynamic int8 per channel": {"is_per_channel": True, "is_dynamic": True},
}
"""The settings of XNNPACKQuantizer, by the trait of the graphs that it quantizes."""


def _activations(dtype: torch.dtype, granularity: Any) -> Callable[[], Any]:
    return lambda: Int8DynamicActivationIntxWeightConfig(
        weight_dtype=dtype, weight_granularity=granularity
    )


def _weights(dtype: torch.dtype, granularity: Any) -> Callable[[], Any]:
    return lambda: IntxWeightOnlyConfig(weight_dtype=dtype, granularity=granularity)


TORCHAO: dict[str, Callable[[], Any]] = {
    "torchao int8 activations, int8 weights": _activations(torch.int8, PerAxis(0)),
    "torchao int8 activations, int4 weights": _activations(torch.int4, PerAxis(0)),
    "torchao int8 activations, int8 weights in groups": _activations(torch.int8, PerGroup(GROUP)),
    "torchao int8 activations, int4 weights in groups": _activations(torch.int4, PerGroup(GROUP)),
    "torchao int8 weights": _weights(torch.int8, PerAxis(0)),
    "torchao int4 weights": _weights(torch.int4, PerAxis(0)),
    "torchao int8 weights in groups": _weights(torch.int8, PerGroup(GROUP)),
    "torchao int4 weights in groups": _weights(torch.int4, PerGroup(GROUP)),
}
"""What makes torchao's configuration, by the trait of the graphs whose weights it quantizes."""

HALVES = {"float16 weights": torch.float16, "bfloat16 weights": torch.bfloat16}
"""The dtype that weights are stored in, by the trait of graphs that have `dequantize_half`."""

OF_WEIGHTS = (*TORCHAO, *HALVES)
WAYS = (*PT2E, *OF_WEIGHTS)


def quantized_by_pt2e(
    model: nn.Module, calibration: Sequence[Sequence[Tensor]], way: str
) -> fx.GraphModule:
    """The model as `convert_pt2e` leaves it.

    calibration: inputs to observe ranges with; the first ones are the example. way: of PT2E.
    """
    module = export(model, tuple(calibration[0])).module()
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(**PT2E[way]))
    prepared = prepare_pt2e(module, quantizer)
    for inputs in calibration:
        prepared(*inputs)
    converted: fx.GraphModule = convert_pt2e(prepared)
    return converted


def quantized_weight(weight: Tensor, way: str, *, is_table: bool) -> nn.Parameter:
    """A weight of sizes (out, in) as it is stored, one of OF_WEIGHTS; a table likewise."""
    if way in HALVES:
        return nn.Parameter(weight.to(HALVES[way]), requires_grad=False)
    if is_table:
        # Activations are no business of an embedding.
        way = way.replace("int8 activations, ", "")
        holder: nn.Module = nn.Embedding(*weight.shape)
    else:
        holder = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    holder.weight = nn.Parameter(weight.clone(), requires_grad=False)
    kind = type(holder)
    quantize_(nn.Sequential(holder), TORCHAO[way](), lambda each, _: isinstance(each, kind))
    quantized: nn.Parameter = holder.weight
    return quantized
