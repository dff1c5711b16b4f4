"""Tensors of float16 and bfloat16: computed in float32, rounded where eager PyTorch rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from orchestrator.native import NativeProgram
from tests.harness.ops import check_op, lower_ggml, outputs_of, undelegated

HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}
# Of the digits behind the leading one.
_DIGITS = {torch.float16: 10, torch.bfloat16: 7}
# What float32 sums in another sequence lose, of the largest result.
_SUMS_LOSE = 1e-6
both = pytest.mark.parametrize("dtype", HALF.values(), ids=HALF)


def tensor(*sizes: int, seed: int = 3) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Any], *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs, *self.parts)


def steps_apart(got: Tensor, want: Tensor, lost: float = 0.0) -> float:
    """The largest difference in places of the last digit that the larger number has.

    lost: of the largest value; smaller differences do not count.
    """
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    a, b = got.double(), want.double()
    same = (a == b) | (a.isnan() & b.isnan())
    _, exponent = torch.frexp(torch.maximum(a.abs(), b.abs()))
    smallest = -14 if want.dtype == torch.float16 else -126
    step = torch.ldexp(
        torch.ones_like(a), exponent.clamp(min=smallest + 1) - 1 - _DIGITS[got.dtype]
    )
    apart = (a - b).abs() - lost * b[b.isfinite()].abs().max()
    return float(torch.where(same, 0.0, apart.clamp(min=0) / step).max())


def check_half(
    model: nn.Module, inputs: Sequence[Tensor], dtype: torch.dtype, steps: float = 1.0, **how: Any
) -> None:
    """Lowers a model of a half type for ggml, all of it, and counts how far it is from eager."""
    more = how.pop("more_inputs", ())
    model = model.eval().to(dtype)

    def cast(values: Sequence[Tensor]) -> list[Tensor]:
        return [value.to(dtype) if value.is_floating_point() else value for value in values]

    program, recorder, edge = lower_ggml(model, cast(inputs), **how)
    assert not undelegated(edge), recorder.reasons
    native = NativeProgram(program.buffer)
    for case in (inputs, *more):
        found = outputs_of(native.run("forward", cast(case)))
        with torch.no_grad():
            wanted = outputs_of(model(*cast(case)))
        assert len(found) == len(wanted)
        for got, want in zip(found, wanted, strict=True):
            if not want.is_floating_point():
                assert torch.equal(got, want)
                continue
            apart = steps_apart(got, want, _SUMS_LOSE if steps else 0.0)
            assert apart <= steps, f"{apart} steps, at most {steps} are allowed"


# ---- rounding --------------------------------------------------------------------------------

_EDGES = [
    *(0.0, 1.0, 65504.0, 65519.996, 65520.0, 65536.0, 3.3e38, 3.4e38, float("inf"), float("nan")),
    *(2.0**-14, 2.0**-24, 2.0**-25, 1.5 * 2.0**-25, 2.0**-26, 2.0**-126, 2.0**-149, 6.1e-5),
    *(1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-11 + 2.0**-23),
]


@both
def test_rounding_is_torchs(dtype: torch.dtype) -> None:
    """Any bits, and numbers next to where the result changes."""
    generator = torch.Generator().manual_seed(0)
    any_bits = torch.randint(-(2**31), 2**31, (20000,), generator=generator).to(torch.int32)
    near_one = torch.rand(20000, generator=generator) * 4 - 2
    small = torch.randn(20000, generator=generator) * 1e-5
    edges = torch.tensor(_EDGES)
    x = torch.cat([any_bits.view(torch.float32), near_one, small, edges, -edges])

    program, _, edge = lower_ggml(_Function(lambda x: x.to(dtype).to(torch.float32)), (x,))
    assert not undelegated(edge)
    (got,) = outputs_of(NativeProgram(program.buffer).run("forward", [x]))
    want = x.to(dtype).to(torch.float32)
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(got.signbit()[~want.isnan()], want.signbit()[~want.isnan()])


@both
def test_each_result_is_rounded(dtype: torch.dtype) -> None:
    """Added up in float32, the ones would not get lost."""
    model = _Function(lambda x, one: x + one + one + one + one - x)
    x = torch.full((5,), 2.0 ** (_DIGITS[dtype] + 1))
    check_half(model, [x, torch.ones(5)], dtype, 0.0)


# ---- ops -------------------------------------------------------------------------------------


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


_X = tensor(2, 6, 7, 5)
_ROWS = tensor(3, 17, 24)
_ZEROS = torch.tensor([[0.0, 0.0, -0.0], [0.3, 0.0, 6e-8], [1.0, -2.0, 3.0]])
_PLACES = torch.tensor([[3, 0, 2], [1, 1, 4]])
# Whose results differ by one step here and there, where float32 sums end next to a tie.
ONE_STEP: dict[str, tuple[nn.Module, list[Tensor]]] = {
    "linear": (nn.Linear(24, 40), [_ROWS]),
    "linear, one row": (nn.Linear(24, 40), [_ROWS[:1, 0]]),
    "computed weight": (_Function(functional.linear), [_ROWS, tensor(9, 24)]),
    "addmm": (
        _Function(lambda a, x, y: torch.addmm(a, x, y, beta=0.5)),
        [tensor(9), _ROWS[0], tensor(24, 9)],
    ),
    "bmm": (_Function(torch.matmul), [tensor(2, 5, 40), tensor(2, 40, 7)]),
    "convolution": (nn.Conv2d(6, 20, 3, padding=1), [_X]),
    "depthwise": (nn.Conv2d(6, 6, 3, stride=2, groups=6), [_X]),
    "convolution of rows": (nn.Conv1d(17, 8, 5), [_ROWS]),
    "layer norm": (nn.LayerNorm(24), [_ROWS]),
    "group norm": (nn.GroupNorm(3, 6), [_X]),
    "softmax": (nn.Softmax(-1), [_ROWS]),
    "log softmax": (nn.LogSoftmax(1), [_ROWS]),
    "mean": (_Function(lambda x: x.mean(1)), [_ROWS]),
    "sum over three": (_Function(lambda x: x.sum((1, 2, 3))), [_X]),
    "gelu": (nn.GELU(), [_X]),
    "silu": (nn.SiLU(), [_X]),
    "sigmoid": (nn.Sigmoid(), [_X]),
    "division": (_Function(lambda x, y: x / (y * y + 1)), [_X, _X]),
    "power": (_Function(lambda x: (x * x + 1) ** 1.3), [_X]),
    "pools": (
        _Function(lambda x: (functional.avg_pool2d(x, 2), functional.max_pool2d(x, 3, 2))),
        [_X],
    ),
    "resizes": (
        _Function(lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear")),
        [_X],
    ),
    "running sum": (_Function(lambda x: x.cumsum(1)), [_ROWS]),
}
# Which give the very numbers that eager gives.
EXACT: dict[str, tuple[nn.Module, list[Tensor]]] = {
    "add": (_Function(lambda x, y: x + y), [_X, _X.flip(0)]),
    "relu": (nn.ReLU6(), [_X * 5]),
    "clamp": (_Function(lambda x: x.clamp(-0.3, 0.7)), [_X]),
    "comparisons": (
        _Function(lambda x: (x > 0.1, x <= 0.1, x != 0.1, x == 0.1)),
        [torch.tensor([0.1, -0.1, 0.0999, 0.1001, 0.2])],
    ),
    "zeros": (
        _Function(lambda x, y: (torch.logical_not(x), torch.logical_xor(x, y), x.any(1), x.all(1))),
        [_ZEROS, _ZEROS.flip(0)],
    ),
    "choice": (_Function(lambda x: torch.where(x > 0, x, -0.123)), [_X]),
    "masked": (_Function(lambda x: x.masked_fill(x > 0, float("-inf"))), [_X]),
    "pad": (_Function(lambda x: functional.pad(x, (1, 2, 0, 1), value=0.123)), [_X]),
    "shapes": (
        _Function(lambda x: torch.cat([x[:, 1:3], x.permute(0, 1, 2, 3)[:, ::2]], 1).flatten(1)),
        [_X],
    ),
    "repeats": (_Function(lambda x: x.repeat(1, 2, 1).transpose(1, 2).reshape(-1)), [_ROWS]),
    "gather": (
        _Function(lambda x, i: x.gather(1, i.unsqueeze(2).expand(2, 3, 4))),
        [tensor(2, 6, 4), _PLACES],
    ),
    "index": (_Function(lambda x, i: x[:, i]), [tensor(2, 6, 4), _PLACES]),
    "pixels": (nn.Sequential(nn.ReLU(), nn.PixelShuffle(2)), [tensor(1, 8, 3, 3)]),
    "numbers": (_Function(lambda x: (0.7 - (x * 0.1 + 0.3)) / 7 - 0.01), [_X]),
    "factors of sums": (_Function(lambda x, y: torch.add(x, y, alpha=0.3)), [_X, _X.flip(0)]),
    "extremes": (_Function(lambda x: (*x.max(1), x.amin((0, 2)), x.argmin(1))), [_ROWS]),
    "made": (_Function(lambda x: x + torch.full((5,), 0.1, dtype=x.dtype)), [_X]),
    "floor": (_Function(lambda x: torch.floor(x * 4)), [_X]),
    "not a number": (_Function(lambda x: torch.isnan(x / 0)), [_X]),
    "integers": (
        _Function(lambda x, i: x.to(torch.int32) + i),
        [_ROWS * 100, torch.arange(24).int()],
    ),
    "from integers": (
        _Function(lambda x, i: x + i.to(x.dtype)),
        [tensor(5), torch.arange(1000, 1005)],
    ),
}


@both
@pytest.mark.parametrize("name", ONE_STEP)
def test_within_a_step(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    check_half(*ONE_STEP[name], dtype)


@both
@pytest.mark.parametrize("name", EXACT)
def test_the_same_numbers(name: str, dtype: torch.dtype) -> None:
    check_half(*EXACT[name], dtype, 0.0)


@both
def test_products_of_any_number_of_rows(dtype: torch.dtype) -> None:
    """Weights are read as they are by few rows, and expanded for more; sums go over blocks."""
    torch.manual_seed(0)
    layers = [nn.Linear(1600, n) for n in (50, 16, 130)]
    model = _Function(
        lambda *given: [layer(x) for x in given[:-3] for layer in given[-3:]], *layers
    )
    check_half(model, [tensor(rows, 1600, seed=rows) for rows in (1, 2, 4, 5, 8, 13)], dtype)


@both
def test_attention(dtype: torch.dtype) -> None:
    """Eager rounds the probabilities; what that is off by goes with the values' size."""
    q, k, v = tensor(2, 3, 9, 16), tensor(2, 3, 11, 16, seed=4), tensor(2, 3, 11, 16, seed=5)
    mask = tensor(9, 11, seed=6)
    program, _, edge = lower_ggml(_Function(_attend), [x.to(dtype) for x in (q, k, v, mask)])
    assert not undelegated(edge)
    inputs = [x.to(dtype) for x in (q, k, v, mask)]
    (got,) = outputs_of(NativeProgram(program.buffer).run("forward", inputs))
    exact = _attend(*(x.double() for x in inputs))
    assert (got.double() - exact).abs().max() <= 2.0 ** -_DIGITS[dtype]
    eager_off = (_attend(*inputs).double() - exact).abs().max()
    assert (got.double() - exact).abs().max() <= eager_off + _SUMS_LOSE * exact.abs().max()


@both
def test_transposed_convolution(dtype: torch.dtype) -> None:
    """Eager adds up what overlaps in the half type."""
    torch.manual_seed(0)
    model = nn.ConvTranspose2d(6, 4, 3, stride=2).to(dtype)
    x = _X.to(dtype)
    program, _, edge = lower_ggml(model, (x,))
    assert not undelegated(edge)
    (got,) = outputs_of(NativeProgram(program.buffer).run("forward", [x]))
    assert steps_apart(got, model.double()(x.double()).to(dtype)) <= 1


@both
def test_recurrent_layer(dtype: torch.dtype) -> None:
    """Eager rounds at each step; here the steps are float32."""
    torch.manual_seed(0)
    model = nn.LSTM(7, 20, batch_first=True).eval()
    exact, _ = model(tensor(2, 5, 7).to(dtype).float())
    model = model.to(dtype)
    x = tensor(2, 5, 7).to(dtype)
    program, _, edge = lower_ggml(model, (x,))
    assert not undelegated(edge)
    got = outputs_of(NativeProgram(program.buffer).run("forward", [x]))[0]
    eager = model(x)[0]
    assert got.dtype == dtype
    allowed = (eager - exact).abs().max() + 2.0 ** -_DIGITS[dtype]
    assert (got - exact).abs().max() <= allowed


@both
def test_mixed_with_floats(dtype: torch.dtype) -> None:
    """As layers do that compute their norms in float32."""

    def forward(x: Tensor, scale: Tensor) -> Tensor:
        y = x.to(torch.float32)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        return scale * y.to(x.dtype)

    check_half(_Function(forward), [_ROWS, tensor(24)], dtype)


@both
def test_floats_and_halves_side_by_side(dtype: torch.dtype) -> None:
    x, y = tensor(4, 6), tensor(4, 6, seed=8).to(dtype)
    check_op(lambda x, y: (x + y, x * 2, x.to(dtype), y.float()), [x, y], rtol=1e-6)


@both
def test_dynamic_sizes(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(24, 8), nn.LayerNorm(8), nn.GELU())
    shapes = ({0: Dim("n", min=1, max=9)},)
    check_half(
        model, [tensor(4, 24)], dtype, 2, dynamic_shapes=shapes, more_inputs=[[tensor(9, 24)]]
    )


# ---- weights ---------------------------------------------------------------------------------


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 64)
        self.head = nn.Linear(64, 100, bias=False)
        self.head.weight = self.table.weight

    def forward(self, places: Tensor) -> Tensor:
        logits: Tensor = self.head(self.table(places))
        return logits


@both
def test_weights_take_two_bytes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)).to(dtype)
    program, _, _ = lower_ggml(model, [tensor(2, 256).to(dtype)])
    assert len(program.buffer) < 1.05 * 2 * 2 * 256 * 512


@both
def test_a_tied_table_is_stored_once(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    places = torch.tensor([[0, 99, 5], [17, 16, 15]])
    check_half(_Tied(), [places], dtype)
    program, _, _ = lower_ggml(_Tied().to(dtype).eval(), [places])
    assert len(program.buffer) < 1.5 * 2 * 112 * 64
