"""Activation functions on ggml equal eager, in value and at the edges of the number range."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.export import Dim

from orchestrator import lower
from tests.harness.ops import check_op

SIZES = [(), (7,), (3, 65), (3, 2, 5, 7), (2, 1, 3, 2, 5)]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -1.5, 2.5),
    "clamp": lambda x: x.clamp(-0.5, 1.5),
    "clamp to integers": lambda x: x.clamp(-1, 2),
    "clamp from below": lambda x: x.clamp(min=0.25),
    "clamp from above": lambda x: x.clamp(max=1),
    "clamp to crossed bounds, plus x": lambda x: x.clamp(2, 1) + x,
    "clamp to the largest numbers": lambda x: x.clamp(-3.4e38, 3.4e38),
    "clamp_min": lambda x: torch.clamp_min(x, 0.5),
    "clamp_max": lambda x: torch.clamp_max(x, 0.5),
    "leaky_relu": F.leaky_relu,
    "leaky_relu with a slope": lambda x: F.leaky_relu(x, 0.3),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu in tanh form": lambda x: F.gelu(x, approximate="tanh"),
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "elu": F.elu,
    "elu with alpha": lambda x: F.elu(x, 0.3),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.6),
    "softplus": F.softplus,
    "softplus with beta and threshold": lambda x: F.softplus(x, 2.5, 5),
    "logsigmoid": F.logsigmoid,
    "mish": F.mish,
    "glu": lambda x: F.glu(torch.stack((x, -x), -1), -1),
    "tanhshrink": F.tanhshrink,
    "softsign": F.softsign,
}

# At these, eager's own forms differ between its vectors and its tails, or overflow on the way.
FINITE_ONLY = {"gelu", "softsign", "softplus with beta and threshold", "glu", "tanhshrink"}


def normal(sizes: tuple[int, ...], scale: float = 3, seed: int = 0) -> Tensor:
    """Normally distributed numbers."""
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed + 1)) * scale


def test_activations_equal_eager_at_every_rank() -> None:
    functions = list(ACTIVATIONS.values())
    check_op(
        lambda *xs: tuple(function(x) for x in xs for function in functions),
        [normal(sizes) for sizes in SIZES],
    )


def test_activations_keep_nan_and_infinities_as_eager_does() -> None:
    special = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38]
    functions = [f for name, f in ACTIVATIONS.items() if name not in FINITE_ONLY]
    check_op(
        lambda x: tuple(f(x) for f in functions), [torch.tensor(special)], may_be_constant=True
    )


def test_gelu_at_nan_and_infinity() -> None:
    """Eager's vectors make NaN of infinity on some processors; its scalars do not."""
    special = torch.tensor([math.nan, math.inf, 3e38, -3e38] * 5)
    program = lower(torch.nn.GELU(), (special,), backends=["ggml"], strategy="greedy", tune="off")
    assert [part.backend for part in program.report.methods[0].partitions] == ["ggml"]
    expected = torch.tensor([math.nan, math.inf, 3e38, 0.0] * 5)
    torch.testing.assert_close(program(special), expected, equal_nan=True)


def test_the_tails_of_the_smooth_activations() -> None:
    functions = [F.gelu, torch.sigmoid, torch.tanh, F.silu, F.mish, F.softplus, F.logsigmoid, F.elu]
    check_op(lambda x: tuple(f(x) for f in functions), [torch.linspace(-30, 30, 4001)])


def test_small_arguments_keep_their_relative_accuracy() -> None:
    functions = [torch.tanh, torch.erf, torch.expm1, torch.log1p, torch.sin, F.elu, F.gelu]
    factor = 1e30
    check_op(lambda x: tuple(f(x) * factor for f in functions), [normal((257,)) * 1e-30])


def test_activations_keep_channels_last() -> None:
    x = normal((3, 6, 5, 7)).to(memory_format=torch.channels_last)
    check_op(lambda x: (F.gelu(x), F.relu6(x), F.silu(x) + x), [x])


def test_activations_of_views() -> None:
    def views(x: Tensor) -> tuple[Tensor, ...]:
        return (
            F.silu(x[:, 1:3]),
            F.relu(x[:, :, 1:, 2:5]),
            F.gelu(x[..., ::2]),
            torch.tanh(x.permute(0, 2, 3, 1)),
            torch.sigmoid(x[1:2, :, 2]),
        )

    check_op(views, [normal((3, 4, 5, 7))])


class Prelus(nn.Module):
    """One slope, and six, over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.PReLU(1, 0.3)
        self.six = nn.PReLU(6)
        with torch.no_grad():
            self.six.weight.copy_(torch.linspace(-0.5, 1.5, 6))

    def forward(self, *xs: Tensor) -> tuple[Tensor, ...]:
        return tuple(prelu(x) for prelu in (self.one, self.six) for x in xs)


def test_prelu() -> None:
    inputs = [normal(sizes) for sizes in ((3, 6), (2, 6, 5), (3, 6, 5, 7), (2, 6, 1, 3, 4))]
    inputs.append(normal((2, 6, 5, 7)).to(memory_format=torch.channels_last))
    check_op(Prelus(), inputs)


def test_dynamic_sizes() -> None:
    batch = Dim("batch", min=1, max=8)
    check_op(
        lambda x: (F.gelu(x), F.hardswish(x), F.elu(x, 0.5)),
        [normal((3, 5, 7))],
        dynamic_shapes={"args": ({0: batch},)},
        more_inputs=[[normal((1, 5, 7))], [normal((8, 5, 7))]],
    )


def test_bounds_that_are_tensors_are_left_to_others() -> None:
    check_op(
        lambda x, low: torch.clamp(x, low),
        [normal((3, 5)), normal((5,))],
        delegated=False,
        reason="no rule for aten.clamp.Tensor",
    )


def test_a_bound_that_is_nan_is_refused() -> None:
    check_op(
        lambda x: x.clamp(min=math.nan),
        [normal((3, 5))],
        delegated=False,
        reason="a bound is NaN",
        may_be_constant=True,
    )


def test_integers_are_refused() -> None:
    check_op(lambda x: x.clamp(1, 3), [torch.arange(6)], delegated=False, reason="dtype int64")
