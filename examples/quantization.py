"""How models are quantized here: PT2E with ExecuTorch's quantizer for XNNPACK."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torch import Tensor, nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


def pt2e(
    net: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    dynamic: bool = False,
    per_channel: bool = True,
    shapes: Any = None,
    calibration: Iterable[tuple[Tensor, ...]] = (),
) -> nn.Module:
    """Quantize a model to int8.

    dynamic: have the scales of activations found in every run, not by calibration. shapes: as
    `dynamic_shapes` of `torch.export.export`. calibration: inputs to calibrate with; four random
    ones if left out.
    """
    module = torch.export.export(net.eval(), inputs, dynamic_shapes=shapes).module()
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(
        get_symmetric_quantization_config(is_per_channel=per_channel, is_dynamic=dynamic)
    )
    prepared = prepare_pt2e(module, quantizer)
    random = (tuple(torch.randn_like(each) for each in inputs) for _ in range(4))
    for given in calibration or random:
        prepared(*given)
    converted: nn.Module = convert_pt2e(prepared)
    return converted
