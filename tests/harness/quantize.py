"""Quantized models as people make them, and what ExecuTorch alone makes of them."""

from __future__ import annotations

from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import nn

from orchestrator.frontend.torch_speed import repeated_work_spared


def torchao_quantized(net: nn.Module, config: Any) -> nn.Module:
    """Quantize the weights of a model in place, in eval mode, and return it."""
    from torchao.quantization import quantize_

    quantize_(net.eval(), config)
    return net


def bytes_of_executorch(model: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Return the size of the file that ExecuTorch's own flow makes with XNNPACK."""
    with repeated_work_spared():
        exported = torch.export.export(model, inputs)
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    return len(edge.to_executorch().buffer)
