"""Dynamically quantized images that 1x1 convolutions read beside others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from executorch.exir.dialects._ops import ops as exir_ops
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult
from torch.nn import Conv2d, ConvTranspose2d, functional

from examples.quantization import pt2e
from orchestrator import lower
from orchestrator.backends.xnnpack.pointwise import SplitQuantizedImages
from orchestrator.program import LoweredProgram
from tests.harness.quantized import allowed_outputs

SIZES = [(1, 8, 4, 4), (1, 8, 9, 11), (3, 8, 6, 5)]
# The other convolution, by what tells it from one that is computed as a linear layer.
OTHERS: dict[str, Callable[[], nn.Module]] = {
    "kernel": lambda: Conv2d(8, 6, 3),
    "padded kernel": lambda: Conv2d(8, 6, (3, 1), padding=(1, 0)),
    "stride": lambda: Conv2d(8, 6, 1, stride=2),
    "padding": lambda: Conv2d(8, 6, 1, padding=1),
    "groups": lambda: Conv2d(8, 6, 1, groups=2),
    "transposed": lambda: ConvTranspose2d(8, 6, 2),
    "none": lambda: Conv2d(8, 6, 1),
}


class Branches(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [branch(x) for branch in self.branches]


class Chain(nn.Module):
    """As random graphs found it: what a 1x1 convolution makes is quantized anew."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = Conv2d(8, 8, 3, padding=(1, 0))
        self.narrow = Conv2d(8, 4, 1)
        self.last = Conv2d(4, 4, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.wide(x), self.last(functional.hardtanh(self.narrow(x), 0, 6))


def _lowered(model: Any, x: Tensor) -> LoweredProgram:
    return lower(model, (x,), backends=["xnnpack"], pins={"convolution": "xnnpack"}, tune="off")


def _assert_right(model: Any, x: Tensor) -> None:
    program = _lowered(model, x)
    for given in (x, 5 * torch.randn_like(x) + 1):
        wanted = allowed_outputs(model, (given,))
        got = program(given)
        assert [each.difference(one) for each, one in zip(wanted, got, strict=True)] == [
            None for _ in wanted
        ]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("other", OTHERS)
def test_each_reads_its_own(other: str, size: tuple[int, ...]) -> None:
    x = torch.randn(size)
    branches = [Conv2d(8, 4, 1), OTHERS[other](), Conv2d(8, 5, 1)]
    for model in (Branches(*branches), Branches(*branches[1::-1])):
        _assert_right(pt2e(model, (x,), dynamic=True), x)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_chain(size: tuple[int, ...]) -> None:
    x = torch.randn(size)
    _assert_right(pt2e(Chain(), (x,), dynamic=True), x)


def test_executorch_has_not_mended_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, ExecuTorch has, and the pass can go."""
    monkeypatch.setattr(
        SplitQuantizedImages, "call", lambda self, module: PassResult(module, False)
    )
    x = torch.randn(1, 8, 4, 4)
    model = pt2e(Chain(), (x,), dynamic=True)
    wide, _ = allowed_outputs(model, (x,))
    assert wide.difference(_lowered(model, x)(x)[0]) is not None


_OPS = exir_ops.edge.quantized_decomposed


def _graph(kernels: list[int], dequantizes: int) -> tuple[GraphModule, Node]:
    """Convolutions of one quantized image, which takes turns among its dequantizes."""
    graph = Graph()
    x, scale, zero = map(graph.placeholder, ("x", "scale", "zero"))
    more = (scale, zero, -128, 127, torch.int8)
    quantize = graph.call_function(_OPS.quantize_per_tensor.tensor, (x, *more))
    images = [
        graph.call_function(_OPS.dequantize_per_tensor.tensor, (quantize, *more))
        for _ in range(dequantizes)
    ]
    results = []
    for i, kernel in enumerate(kernels):
        weight = graph.placeholder(f"weight{i}")
        weight.meta["val"] = torch.empty(4, 8, kernel, kernel)
        args = (images[i % dequantizes], weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
        results.append(graph.call_function(exir_ops.edge.aten.convolution.default, args))
    graph.output(tuple(results))
    return GraphModule(nn.Module(), graph), quantize


@pytest.mark.parametrize("dequantizes", [1, 2])
def test_only_mixed_readers_are_split(dequantizes: int) -> None:
    for kernels, quantizes in (([1, 3, 1, 3], 2), ([1, 1], 1), ([3, 3], 1)):
        module, quantize = _graph(kernels, dequantizes)
        result = SplitQuantizedImages(None).call(module)
        assert result.modified == (quantizes == 2)
        module.graph.lint()
        found = module.graph.find_nodes(op="call_function", target=quantize.target)
        assert len(found) == quantizes
        (output,) = module.graph.find_nodes(op="output")
        read = [node.args[0].args[0] for node in output.args[0]]
        for kernel, source in zip(kernels, read, strict=True):
            assert (source is quantize) == (kernel == 3 or quantizes == 1)
