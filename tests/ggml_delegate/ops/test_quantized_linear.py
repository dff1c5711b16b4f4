"""Linear layers with weights of integers: x @ the weight as eager PyTorch expands it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from ggml_delegate import ir
from orchestrator.native import NativeProgram
from tests.harness.changeable import ChangeableFile, changeable_file, resize, set_input
from tests.harness.integer_weights import SCHEMES, Layer, Several
from tests.harness.ops import check_op, lower_ggml, rejections


def tensor(*sizes: int, seed: int = 5) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_linear_equals_eager(scheme: str, bits: int) -> None:
    """One row of one result, several, and more than fit into one block along either side."""
    sizes = [((1,), 1, 32), ((3, 5), 50, 96), ((200,), 17, 1600)]
    layers = [SCHEMES[scheme](n, k, bits=bits) for _, n, k in sizes]
    check_op(Several(layers), [tensor(*rows, k) for rows, _, k in sizes])


@pytest.mark.parametrize("bits", [8, 4])
def test_odd_rows(bits: int) -> None:
    """Two elements of 4 bits share a byte; the last row's last half is nothing."""
    check_op(Layer("channel", 9, 33, bits=bits, zeros="some"), [tensor(4, 33)])
    check_op(Layer("channel", 5, 1, bits=bits, zeros="some"), [tensor(4, 1)])


@pytest.mark.parametrize("bits", [8, 4])
def test_any_number_of_rows(bits: int) -> None:
    model = Layer("affine", 40, 64, bits=bits, group=32)
    check_op(
        model,
        [tensor(7, 64)],
        dynamic_shapes=({0: Dim("n", min=1, max=300)},),
        more_inputs=[[tensor(size, 64, seed=size)] for size in (1, 2, 13, 300)],
    )


def test_every_integer_is_itself() -> None:
    """An identity as input reads the weight out, exactly."""
    for bits in (8, 4):
        model = Layer("affine", 32, 64, bits=bits, group=32, zeros="some")
        program, _, _ = lower_ggml(model, [torch.eye(64)])
        (result,) = NativeProgram(program.buffer).run("forward", [torch.eye(64)])
        assert torch.equal(result, model.weight().t())


def test_integers_beyond_their_limits() -> None:
    """Eager PyTorch expands them as they are."""
    model = Layer("affine", 9, 64, bits=4, group=32)
    model.q[3, 5], model.q[0, 0] = 100, -9
    check_op(model, [tensor(3, 64)])


@pytest.mark.parametrize(("bits", "per_element"), [(8, 1.0), (4, 0.5)])
def test_the_file_holds_the_integers(bits: int, per_element: float) -> None:
    """And a float for each of 64 rows and 8 groups; equal weights once."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = Layer("affine", 64, 1024, bits=bits, group=128)
            self.other = Layer("affine", 64, 1024, bits=bits, group=128)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.other(2 * x)

    program, _, _ = lower_ggml(Twice().eval(), [tensor(2, 1024)])
    packed = 64 * 1024 * per_element + 64 * 8 * 4
    assert packed < len(program.buffer) < packed + 6_000


class Shared(nn.Module):
    """A weight that two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer("channel", 8, 8, zeros="zero")

    def forward(self, x: Tensor) -> Tensor:
        weight = self.layer.weight()
        return nn.functional.linear(nn.functional.linear(x, weight), weight)


class Returned(nn.Module):
    """A weight that is a result as well."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer("channel", 8, 8, zeros="zero")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.layer.weight()
        return nn.functional.linear(x, weight), weight


class Columns(nn.Module):
    """Scales by column."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer("channel", 8, 8, zeros="zero")

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(
            layer.q, layer.scale, layer.zero, 1, -128, 127, torch.int8
        )
        return nn.functional.linear(x, weight)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Shared(), "is not one layer's alone"),
        (Returned(), "is not one layer's alone"),
        (Columns(), "takes weights of int8 or int4 with scales by row or group"),
    ],
    ids=["shared", "returned", "by column"],
)
def test_others_are_left(model: nn.Module, reason: str) -> None:
    assert any(reason in each for each in rejections(model, [tensor(8, 8)]))


# ---- files that say something else ---------------------------------------------------------


@functools.cache
def _file(bits: int) -> ChangeableFile:
    model = Layer("affine", 20, 64, bits=bits, group=32, zeros="some", bias=True)
    return changeable_file(model, [tensor(3, 64)])


def _run(bits: int, mutate: Callable[[Any, Any], object]) -> None:
    program = _file(bits).program()
    (node,) = program.nodes
    mutate(program, node)
    NativeProgram(_file(bits).with_program(program)).run("forward", [tensor(3, 64)])


_X, _WEIGHT, _BIAS, _SCALES, _ZEROS = range(5)


MUTATIONS: dict[str, Callable[[Any, Any], object]] = {
    "other bits": lambda p, n: setattr(n.op.integers, "bits", 5),
    "no bits": lambda p, n: setattr(n.op.integers, "bits", 0),
    "groups of none": lambda p, n: setattr(n.op.integers, "group", 0),
    "groups of another size": lambda p, n: setattr(n.op.integers, "group", 16),
    "one group": lambda p, n: setattr(n.op.integers, "group", 1 << 31),
    "no integers": lambda p, n: setattr(n.op, "integers", None),
    "scales absent": set_input(_SCALES, None),
    "scales of integers": set_input(_SCALES, _ZEROS),
    "the zero points are the bias": set_input(_ZEROS, _BIAS),
    "the weight is the scales": set_input(_WEIGHT, _SCALES),
    "the weight is absent": set_input(_WEIGHT, None),
    "x is the weight": set_input(_X, _WEIGHT),
    "the bias is the zero points": set_input(_BIAS, _ZEROS),
    "fewer scales": resize(_SCALES, 2, 1, 16),
    "fewer zero points": resize(_ZEROS, 1, 2, 16),
    "a larger weight": resize(_WEIGHT, 2, 65, 16),
    "inputs missing": lambda p, n: setattr(n, "inputs", n.inputs[:3]),
    "more inputs": lambda p, n: setattr(n, "inputs", [*n.inputs, n.inputs[_X]]),
    "x in int8": lambda p, n: setattr(p.tensors[p.inputs[0]], "dtype", ir.DType.Int8),
    "the result in int8": lambda p, n: setattr(p.tensors[p.outputs[0]], "dtype", ir.DType.Int8),
}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_file_is_an_error(name: str, bits: int) -> None:
    with pytest.raises(RuntimeError):
        _run(bits, MUTATIONS[name])


def test_the_unchanged_file_runs() -> None:
    for bits in (8, 4):
        _run(bits, lambda program, node: None)


def test_zero_points_may_be_left_out() -> None:
    _run(4, set_input(_ZEROS, None))
