"""Quantized models as people make them: PT2E with ExecuTorch's quantizer, and torchao."""

from __future__ import annotations

from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


def pt2e(
    net: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    dynamic: bool = False,
    per_channel: bool = True,
    shapes: Any = None,
) -> nn.Module:
    """Quantize a model, with static activations calibrated on random inputs, or dynamic ones."""
    module = torch.export.export(net.eval(), inputs, dynamic_shapes=shapes).module()
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(
        get_symmetric_quantization_config(is_per_channel=per_channel, is_dynamic=dynamic)
    )
    prepared = prepare_pt2e(module, quantizer)
    for _ in range(4):
        prepared(*(torch.randn_like(each) for each in inputs))
    converted: nn.Module = convert_pt2e(prepared)
    return converted


def torchao_quantized(net: nn.Module, config: Any) -> nn.Module:
    """Quantize the weights of a model in place, in eval mode, and return it."""
    from torchao.quantization import quantize_

    quantize_(net.eval(), config)
    return net


def bytes_of_executorch(model: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Return the size of the file that ExecuTorch's own flow makes with XNNPACK."""
    exported = torch.export.export(model, inputs)
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    return len(edge.to_executorch().buffer)
