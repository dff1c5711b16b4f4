"""Arithmetic on ggml equals eager, whatever the sizes, dim orders and scalars."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from tests.harness.ops import check_op

SIZES = [(), (7,), (1, 65), (3, 2, 5, 7), (2, 1, 3, 2, 5)]

UNARY: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "neg": (torch.neg, -3, 3),
    "abs": (torch.abs, -3, 3),
    "sqrt": (torch.sqrt, 0, 9),
    "rsqrt": (torch.rsqrt, 0.1, 9),
    "exp": (torch.exp, -8, 2),
    "expm1": (torch.expm1, -3, 2),
    "log": (torch.log, 0.01, 30),
    "log1p": (torch.log1p, -0.9, 30),
    "reciprocal": (torch.reciprocal, 0.2, 4),
    "square": (torch.square, -3, 3),
    "sin": (torch.sin, -30, 30),
    "cos": (torch.cos, -30, 30),
    "floor": (torch.floor, -4, 4),
    "ceil": (torch.ceil, -4, 4),
    "round": (torch.round, -4, 4),
    "trunc": (torch.trunc, -4, 4),
    "erf": (torch.erf, -4, 4),
}

BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "sub with alpha": lambda a, b: torch.sub(a, b, alpha=-3),
    "rsub": lambda a, b: torch.rsub(a, b, alpha=2),
}

BROADCASTS = [
    ((), ()),
    ((7,), ()),
    ((), (3, 5)),
    ((3, 5), (5,)),
    ((5,), (3, 5)),
    ((3, 1), (1, 4)),
    ((2, 3, 4), (3, 1)),
    ((3, 8, 5, 7), (8, 1, 1)),
    ((3, 8, 5, 7), (3, 8, 1, 1)),
    ((1, 1, 1, 33), (3, 1, 5, 1)),
    ((3, 1, 5, 1), (1, 8, 1, 7)),
    ((2, 1, 3, 1, 4), (5, 1, 2, 1)),
    ((1, 2, 1, 3, 1, 2, 1, 5), (2, 1, 3, 1, 2, 1, 3, 1)),
]


def uniform(sizes: tuple[int, ...], low: float = -3, high: float = 3, seed: int = 0) -> Tensor:
    """Evenly drawn numbers."""
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.rand(sizes, generator=generator) * (high - low) + low


def test_functions_of_one_element_equal_eager_at_every_rank() -> None:
    inputs = [uniform(sizes, low, high) for _, low, high in UNARY.values() for sizes in SIZES]
    functions = [function for function, _, _ in UNARY.values() for _ in SIZES]
    check_op(lambda *xs: tuple(f(x) for f, x in zip(functions, xs, strict=True)), inputs)


def test_functions_of_one_element_keep_nan_and_infinities_as_eager_does() -> None:
    special = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40, 3e38, -3e38, 1.0, -1.0, 0.5, 2.5]
    functions = [function for function, _, _ in UNARY.values()]
    x = torch.tensor(special)
    check_op(lambda x: tuple(function(x) for function in functions), [x], may_be_constant=True)


def test_sine_and_cosine_of_large_angles() -> None:
    angles = torch.tensor([100.0, 8000.0, -8191.5, 1e4, 123456.0, -1e6, 1e10, 3e38])
    check_op(lambda x: (x.sin(), x.cos()), [angles])


@pytest.mark.parametrize("name", ["add", "div"])
def test_broadcasting_of_either_side(name: str) -> None:
    function = BINARY[name]
    inputs = []
    for left, right in BROADCASTS:
        inputs += [uniform(left), uniform(right, 0.5, 3, seed=1)]
    check_op(
        lambda *xs: tuple(function(a, b) for a, b in zip(xs[::2], xs[1::2], strict=True)), inputs
    )


def test_every_op_of_two_tensors() -> None:
    check_op(
        lambda a, b, c: tuple(f(*pair) for f in BINARY.values() for pair in ((a, b), (a, c))),
        [uniform((3, 37)), uniform((3, 37), seed=1), uniform((3, 1), -1, 1, seed=2)],
    )


@pytest.mark.parametrize("name", ["add", "div"])
def test_operands_in_different_dim_orders(name: str) -> None:
    function = BINARY[name]
    last = uniform((2, 6, 5, 3), seed=1).to(memory_format=torch.channels_last)
    whole = uniform((2, 6, 5, 3), 0.5, 3, seed=2)
    channel = uniform((6, 1, 1), 0.5, 3, seed=3)
    plane = uniform((2, 1, 5, 3), 0.5, 3, seed=4)
    sample = uniform((2, 6, 1, 1), 0.5, 3, seed=5)

    def every_pair(last: Tensor, whole: Tensor, *small: Tensor) -> tuple[Tensor, ...]:
        pairs = [(last, whole), (whole, last), (last + whole, last)]
        pairs += [(large, s) for large in (last, whole) for s in small]
        pairs += [(s, last) for s in small]
        return tuple(function(a, b) for a, b in pairs)

    check_op(every_pair, [last, whole, channel, plane, sample])


def test_operands_that_are_views() -> None:
    def views(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (
            x[:, 1:4] + y[:, 2:5],
            x[:, :, ::2] * 3.0,
            x.transpose(1, 2) * y[:, :6, :6],
            x.permute(2, 0, 1) + x.permute(2, 0, 1)[:, :, :1],
            x[:, :1].expand(3, 6, 6) - y[:, :6, :6],
            x[:, 2:3, ::2].exp() / y[:1, :1, ::2].abs().exp(),
            x[1].unsqueeze(0).unsqueeze(2) + y[0, 0],
        )

    check_op(views, [uniform((3, 6, 6)), uniform((3, 8, 6), seed=1)])


def test_a_tensor_and_its_transpose_may_share_memory_with_no_result() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        square = x * 2.0
        cube = (x[:3, :3] + 1.0).unsqueeze(0) * x[:3, :3].unsqueeze(2)
        return square + square.t(), cube + cube.permute(1, 0, 2), cube.permute(2, 1, 0) * cube

    check_op(function, [uniform((9, 9))])


def test_chains_reuse_memory_without_disturbing_values_that_are_needed_later() -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        a = (x + y).exp()
        b = (a * y).sin()
        c = (b - a).abs() + b.neg()
        return (c.abs() / (a + 1.0)).sqrt() * b.softmax(-1) + y

    check_op(function, [uniform((4, 33)), uniform((4, 33), 0, 2, seed=1)])


SCALARS: dict[str, Callable[[Tensor], Tensor]] = {
    "x + 1": lambda x: x + 1,
    "x + 0.5": lambda x: x + 0.5,
    "1.5 + alpha x": lambda x: torch.add(torch.tensor(1.5), x, alpha=2),
    "x - 3": lambda x: x - 3,
    "x - 3 alpha": lambda x: torch.sub(x, 3, alpha=0.5),
    "3 - x": lambda x: 3 - x,
    "3 - alpha x": lambda x: torch.rsub(x, 3, alpha=0.5),
    "x * 0.5": lambda x: x * 0.5,
    "-2 * x": lambda x: -2 * x,
    "x / 2": lambda x: x / 2,
    "x / 0.3": lambda x: x / 0.3,
    "x / infinity": lambda x: (x / math.inf) + x,
    "integer x / 2": lambda x: (x * 4).to(torch.int32) / 2,
    "1 / x": lambda x: 1 / x,
    "2.5 / x": lambda x: torch.tensor(2.5) / x,
    "minimum": lambda x: torch.minimum(x, torch.tensor(0.25)),
    "maximum": lambda x: torch.maximum(torch.tensor([0.25]), x),
    "a scalar that adds dimensions": lambda x: x + torch.tensor([[[[1.5]]]]),
}


def test_scalars() -> None:
    functions = list(SCALARS.values())
    check_op(lambda x: tuple(function(x) for function in functions), [uniform((3, 5))])


def test_scalars_that_make_infinities_and_nan() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        nan = torch.tensor(math.nan)
        return (
            x * math.inf,
            x / 0,
            x / 1e-40,
            x * 1e300,
            torch.minimum(x, nan),
            torch.maximum(nan, x),
        )

    check_op(function, [torch.tensor([-2.0, -0.0, 0.0, 1.0, math.nan])], may_be_constant=True)


def test_minimum_and_maximum_keep_nan_of_either_side() -> None:
    x = torch.tensor([1.0, math.nan, 2.0, math.nan, -math.inf])
    y = torch.tensor([2.0, 1.0, math.nan, math.nan, math.inf])
    check_op(lambda x, y: (torch.minimum(x, y), torch.maximum(x, y)), [x, y], may_be_constant=True)


def test_powers_of_positive_numbers() -> None:
    exponents = [-2, -1, -0.5, 0.5, 1, 2, 3, 4, 0.75, 2.7]
    check_op(lambda x: tuple(x**exponent for exponent in exponents), [uniform((3, 13), 0.3, 3)])


def test_powers_of_other_numbers() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return x**2, x**3, x**-1, x**0.5, x**-0.5, x**0.75, x**5, x**0

    special = torch.tensor([-2.0, -0.0, 0.0, 1.0, math.nan, math.inf, -math.inf])
    check_op(function, [special], may_be_constant=True)


def test_half_precision_constants() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", uniform((5,)).half())
            self.register_buffer("shift", uniform((1,)).bfloat16())

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale.float() + self.shift.float()

    check_op(Scaled(), [uniform((3, 5))])


def test_dynamic_sizes() -> None:
    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (x + y).tanh(), (x * 2.0 - y.abs()) / (x.abs() + 1.0), x.transpose(0, 1) - y.t()

    batch, length = Dim("batch", min=1, max=9), Dim("length", min=2, max=40)
    check_op(
        function,
        [uniform((3, 17)), uniform((3, 17), seed=1)],
        dynamic_shapes={"args": ({0: batch, 1: length}, {0: batch, 1: length})},
        more_inputs=[
            [uniform((1, 40)), uniform((1, 40), seed=1)],
            [uniform((9, 2)), uniform((9, 2), seed=1)],
        ],
    )


REFUSED: dict[str, tuple[Callable[..., Tensor], list[Tensor], str]] = {
    "rounded division": (
        lambda x: torch.div(x, 2, rounding_mode="floor"),
        [uniform((3, 5))],
        "division rounded by 'floor'",
    ),
    "integers": (lambda x: x + x, [torch.arange(6)], "may exceed int32"),
    "float64": (lambda x: x * x, [uniform((3, 5)).double()], "dtype float64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_still_equals_eager(name: str) -> None:
    function, inputs, reason = REFUSED[name]
    check_op(function, inputs, delegated=False, reason=reason)
