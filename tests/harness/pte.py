"""Small .pte files, for tests of the native runtime."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.backend.partitioner import Partitioner
from executorch.exir.passes import MemoryPlanningPass
from torch import Tensor, nn
from torch.export import Dim, export

from ggml_delegate.partitioner import GgmlPartitioner
from orchestrator.frontend.torch_speed import repeated_work_spared


class Function(nn.Module):
    """A module whose forward is a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Wraps the function."""
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        """Calls the function."""
        return self.function(*args)


def make_pte(
    model: nn.Module | Callable[..., Any],
    inputs: Sequence[Any],
    *,
    dynamic_shapes: Any = None,
    planned: bool = False,
    xnnpack: bool = False,
    ggml: bool = False,
) -> bytes:
    """A program with one method, "forward".

    Args:
        model: A module in eval mode or a function.
        inputs: Example inputs.
        dynamic_shapes: As torch.export takes them.
        planned: Whether inputs and outputs live in the method's own memory.
        xnnpack: Whether XNNPACK gets what it can run; the rest runs on portable kernels.
        ggml: Whether ggml does, before XNNPACK.
    """
    return make_methods_pte(
        {"forward": (model, inputs)},
        dynamic_shapes=dynamic_shapes,
        planned=planned,
        xnnpack=xnnpack,
        ggml=ggml,
    )


def make_methods_pte(
    methods: Mapping[str, tuple[nn.Module | Callable[..., Any], Sequence[Any]]],
    *,
    dynamic_shapes: Any = None,
    planned: bool = False,
    xnnpack: bool = False,
    ggml: bool = False,
) -> bytes:
    """A program with several methods; see make_pte()."""
    partitioners: list[Partitioner] = [GgmlPartitioner()] if ggml else []
    if xnnpack:
        partitioners.append(XnnpackPartitioner())
    with repeated_work_spared():
        exported = {}
        for name, (model, inputs) in methods.items():
            module = model if isinstance(model, nn.Module) else Function(model)
            exported[name] = export(module.eval(), tuple(inputs), dynamic_shapes=dynamic_shapes)
        lowered = to_edge_transform_and_lower(exported, partitioner=partitioners)
    planning = MemoryPlanningPass(alloc_graph_input=planned, alloc_graph_output=planned)
    config = ExecutorchBackendConfig(memory_planning_pass=planning)
    return bytes(lowered.to_executorch(config).buffer)


class ConvNet(nn.Module):
    """A convolution, a mean and a linear layer: images [N, 3, H, W] to [N, 4]."""

    def __init__(self) -> None:
        """Makes seeded weights."""
        super().__init__()
        torch.manual_seed(7)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.linear = nn.Linear(8, 4)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Runs the layers."""
        return self.linear(torch.relu(self.conv(x)).mean((2, 3)))


def image(batch: int = 2, seed: int = 0) -> Tensor:
    """A seeded input of ConvNet, [batch, 3, 8, 8]."""
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@functools.cache
def conv_net_pte(*, planned: bool = False) -> bytes:
    """ConvNet with a fixed batch of 2, on XNNPACK."""
    return make_pte(ConvNet(), (image(),), xnnpack=True, planned=planned)


@functools.cache
def dynamic_conv_net_pte(*, planned: bool = False) -> bytes:
    """ConvNet with a batch of 1 to 8, on XNNPACK."""
    shapes = ({0: Dim("batch", min=1, max=8)},)
    return make_pte(ConvNet(), (image(),), dynamic_shapes=shapes, xnnpack=True, planned=planned)
