"""Every quirk of XNNPACK's delegate shows with ExecuTorch alone; one that does not can go."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional
from torchao.quantization import (
    Int8DynamicActivationInt8WeightConfig,
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    MappingType,
    PerAxis,
    PerGroup,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
    X86InductorQuantizer,
    get_default_x86_inductor_quantization_config,
)
from torchao.quantization.quant_primitives import (
    choose_qparams_affine,
    dequantize_affine,
    quantize_affine,
)

from examples.quantization import pt2e
from orchestrator.backends.xnnpack.quirks import CALL_QUIRKS, QUIRKS
from orchestrator.edge import edge_compile_config
from orchestrator.frontend.torch_speed import repeated_work_spared
from orchestrator.native import NativeProgram
from orchestrator.versions import executorch_version
from tests.harness.ops import relative_error
from tests.harness.quantize import torchao_quantized

ALL = (*QUIRKS, *CALL_QUIRKS)
_LAST = torch.channels_last


@dataclass(frozen=True)
class Case:
    """A model that meets a quirk, with example inputs and others to run.

    crashes: the process, so that it has to be another one.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    more: tuple[tuple[Tensor, ...], ...] = ()
    shapes: Any = None
    tolerance: float = 1e-5
    crashes: bool = False


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.layers)


class Changing(nn.Module):
    """A linear layer whose weight the model changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.linear(x, self.weight)
        self.weight.mul_(0.5)
        return y


class Tied(nn.Module):
    """One signal convolution, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x).relu())


class Symmetric(nn.Module):
    """A linear layer whose input is quantized in every run, without a zero point."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(8, 64)
        scales = weight.abs().amax(1) / 127
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros(8, dtype=torch.int32))
        self.register_buffer("integers", (weight / scales[:, None]).round().to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        rows, limits = (1, 64), (torch.int8, -128, 127)
        scale, zero = choose_qparams_affine(
            x,
            MappingType.SYMMETRIC,
            rows,
            *limits,
            scale_dtype=torch.float32,
            zero_point_dtype=torch.int8,
        )
        integers = quantize_affine(x, rows, scale, zero, *limits)
        x = dequantize_affine(integers, rows, scale, zero, *limits)
        weight = dequantize_affine(self.integers, rows, self.scales, self.zeros, *limits)
        return functional.linear(x, weight)


def of(function: Callable[..., Any], *sizes: int, **how: Any) -> Case:
    return Case(Function(function), (torch.randn(*sizes),), **how)


def static(model: nn.Module, *sizes: int, dynamic: bool = False, **how: Any) -> Case:
    x = torch.randn(*sizes)
    return Case(pt2e(model, (x,), dynamic=dynamic), (x,), tolerance=5e-2, **how)


def weights(config: Any, *sizes: int) -> Case:
    layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    return Case(torchao_quantized(layers, config), (torch.randn(*sizes),), tolerance=5e-2)


def _unsigned() -> Case:
    """PT2E with the quantizer for Inductor, whose activations are uint8."""
    layers, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(3, 8)
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(layers.eval(), (x,)).module(), quantizer)
    prepared(x)
    return Case(convert_pt2e(prepared), (x,), tolerance=5e-2)


def _reshaped() -> Case:
    sizes = {0: Dim("n", min=1, max=8), 1: Dim("m", min=1, max=8)}
    x, other = torch.randn(3, 4, 5), torch.randn(8, 1, 5)
    function = Function(lambda x: torch.sigmoid(x.unsqueeze(-1)))
    return Case(function, (x,), ((other,),), shapes=(sizes,))


def _in_last(case: Case) -> Case:
    inputs = tuple(each.to(memory_format=_LAST) for each in case.inputs)
    return Case(case.model, inputs, tolerance=case.tolerance)


_ROW, _RIGHT, _NUMBER = torch.randn(5), torch.randn(4, 5), torch.randn(1)
_KERNEL, _SQUARE = torch.randn(3, 2, 3, 2), torch.randn(4, 4, 3, 3)
CASES: dict[str, Callable[[], Case]] = {
    "addmm scales": lambda: of(lambda x: torch.addmm(_ROW, x, _RIGHT, alpha=0.5, beta=-2), 3, 4),
    "addmm bias": lambda: of(lambda x: torch.addmm(_NUMBER, x, _RIGHT), 3, 4),
    "gelu by tanh": lambda: of(lambda x: functional.gelu(x * 3, approximate="tanh"), 3, 4),
    "prelu of no image": lambda: of(lambda x: torch.prelu(x, _NUMBER), 3, 4),
    "pool of no image": lambda: of(lambda x: functional.max_pool2d(x, 2), 3, 4, 6),
    "hardtanh of one bound": lambda: of(lambda x: torch.ops.aten.hardtanh.default(x, -0.5), 3, 4),
    "max along a dim": lambda: of(lambda x: x.max(1, keepdim=True).values, 2, 3, 4, 5),
    "reshape to dynamic sizes": _reshaped,
    "copy beside its source": lambda: of(
        lambda x: [(y := functional.gelu(x)).clone(), *y.split(3, -1)], 2, 5
    ),
    "output padding": lambda: of(
        lambda x: functional.conv_transpose2d(
            x, _KERNEL, stride=(1, 2), output_padding=1, dilation=2
        ),
        *(2, 3, 4, 5),
    ),
    "slice from before": lambda: of(lambda x: x[:, -7:3], 3, 4),
    "resize by rounded factors": lambda: of(
        lambda x: functional.interpolate(x, scale_factor=1.5, mode="bilinear"), 2, 3, 7, 9
    ),
    "linear with more in it": lambda: weights(Int8DynamicActivationInt8WeightConfig(), 20, 64),
    "quantized dim order": lambda: _in_last(
        static(
            Function(lambda x, c: [(y := c(x + x).relu()), functional.silu(y)], nn.Conv2d(3, 3, 2)),
            *(2, 3, 4, 5),
        )
    ),
    "conversion beside quantized": lambda: static(
        Function(lambda x, c: c(x).to(memory_format=_LAST).relu(), nn.Conv2d(3, 3, 2)), 2, 3, 6, 5
    ),
    "float activation": lambda: weights(IntxWeightOnlyConfig(torch.int8, PerAxis(0)), 3, 64),
    "pad of quantized": lambda: static(nn.Conv3d(3, 4, 3, padding=1), 1, 3, 4, 4, 4),
    "float weight": lambda: static(
        Function(lambda x, c: c(x) + c(c(x).relu()) * 3, nn.Conv2d(4, 4, 3, padding=1)), 1, 4, 8, 8
    ),
    "quantized activation": _unsigned,
    "symmetric activation": lambda: Case(Symmetric(), (torch.randn(3, 64),), tolerance=2e-3),
    "quantized weight": lambda: weights(
        Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int8, weight_granularity=PerGroup(32)
        ),
        *(3, 64),
    ),
    "quantized weight of float16": lambda: Case(
        torchao_quantized(
            nn.Linear(64, 8).half(), Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8)
        ),
        (torch.randn(3, 64).half(),),
        tolerance=2e-2,
    ),
    "dynamically quantized image": lambda: static(
        Function(
            lambda x, conv, linear: [conv(x), linear(x)],
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Linear(6, 6),
        ),
        *(1, 4, 6, 6),
        dynamic=True,
    ),
    "softmax of an image": lambda: _in_last(of(lambda x: x.softmax(3), 5, 8, 7, 4)),
    "rank": lambda: of(lambda x: (x + 1).relu(), 1, 2, 1, 2, 1, 2, 3),
    "changed weight": lambda: Case(Changing(), (torch.randn(3, 4),), crashes=True),
    "shared weight of a signal": lambda: Case(Tied(), (torch.randn(2, 3, 8),)),
    "unknown dim order": lambda: Case(
        nn.Conv2d(3, 4, 2), (torch.randn(2, 4, 6, 3).permute(0, 3, 2, 1),)
    ),
    "weight of both ways": lambda: of(
        lambda x: functional.conv_transpose2d(functional.conv2d(x, _SQUARE), _SQUARE), 2, 4, 6, 6
    ),
    "image read and handed out": lambda: static(
        Function(lambda x, conv: [(y := conv(x)).sigmoid(), y], nn.Conv2d(4, 4, 1)), 1, 4, 4, 4
    ),
    "ambiguous dim order": lambda: of(lambda x: x.clone(memory_format=_LAST).sin(), 3, 1, 7, 7),
}


def runs_right(case: Case) -> bool:
    """Whether ExecuTorch's own flow, with XNNPACK alone, computes what eager PyTorch does."""
    model = case.model
    if not isinstance(model, torch.fx.GraphModule):  # of PT2E, which is in eval mode
        model.eval()
    try:
        with torch.no_grad(), repeated_work_spared():
            exported = torch.export.export(model, case.inputs, dynamic_shapes=case.shapes)
            edge = to_edge_transform_and_lower(
                exported,
                partitioner=[XnnpackPartitioner()],
                compile_config=edge_compile_config(),
            )
            native = NativeProgram(edge.to_executorch().buffer)
            for inputs in (case.inputs, *case.more):
                got = native.run("forward", list(inputs))
                want = torch.utils._pytree.tree_leaves(model(*inputs))
                for one, other in zip(got, want, strict=True):
                    if not relative_error(one, other) <= case.tolerance:
                        return False
    except Exception:  # it fails to lower, to load or to run, or the sizes are wrong
        return False
    return True


def _exit(name: str) -> None:
    sys.exit(0 if runs_right(CASES[name]()) else 1)


def _runs_right_elsewhere(name: str) -> bool:
    """The same in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=_exit, args=(name,))
    process.start()
    process.join()
    return process.exitcode == 0


def test_every_quirk_has_a_case() -> None:
    assert CASES.keys() == {quirk.name for quirk in ALL}


@pytest.mark.parametrize("quirk", ALL, ids=lambda quirk: quirk.name)
def test_executorch_has_not_mended_it(quirk: Any) -> None:
    case = CASES[quirk.name]()
    is_right = _runs_right_elsewhere(quirk.name) if case.crashes else runs_right(case)
    assert not is_right, (
        f"{executorch_version()} has mended {quirk.name!r}, which was seen in {quirk.version}: "
        "take it out of the table"
    )


def test_what_has_no_quirk_runs_right() -> None:
    """The check can say yes: to a network that XNNPACK computes."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 5))
    assert runs_right(Case(model, (torch.randn(2, 3, 6, 6),)))
    assert runs_right(static(model, 1, 3, 6, 6))


def test_the_version_is_the_one_that_is_installed() -> None:
    """Quirks were seen in the version that is pinned; with another, each has to be looked at."""
    assert {f"executorch {quirk.version}" for quirk in ALL} == {executorch_version()}
