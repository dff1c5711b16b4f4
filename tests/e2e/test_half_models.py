"""Models of float16 and bfloat16, under every list of backends, are as exact as eager PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from orchestrator import lower

HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}
# What a result may lose where it is rounded once.
_STEP = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
BACKENDS: list[list[str]] = [["ggml", "xnnpack"], ["ggml"], ["xnnpack"], []]


def tensor(*sizes: int, seed: int = 3) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


class Images(nn.Module):
    """Dense, depthwise and grouped convolutions with batch norms, a squeeze and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
        )
        self.grouped = nn.Conv2d(16, 16, 3, 1, 1, groups=4)
        self.squeeze = nn.Sequential(nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.grouped(self.depthwise(x))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Words(nn.Module):
    """A layer of a transformer: RMS norms in float32, rotated heads, a mask, a gated network."""

    def __init__(self, width: int = 64, heads: int = 4, words: int = 50) -> None:
        super().__init__()
        self.heads = heads
        self.table = nn.Embedding(words, width)
        self.norms = nn.ParameterList([nn.Parameter(tensor(width, seed=s)) for s in (1, 2)])
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, 2 * width, bias=False)
        self.up = nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, places: Tensor) -> Tensor:
        x = self.table(places)
        b, n, _ = x.shape
        q, k, v = (
            part.view(b, n, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self._norm(x, 0)).chunk(3, -1)
        )
        ahead = torch.ones(n, n, dtype=torch.bool).triu(1)
        mask = torch.zeros(n, n, dtype=x.dtype).masked_fill(ahead, torch.finfo(x.dtype).min)
        y = functional.scaled_dot_product_attention(self._turned(q), self._turned(k), v, mask)
        x = x + self.out(y.transpose(1, 2).reshape(b, n, -1))
        y = self._norm(x, 1)
        x = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return functional.linear(x, self.table.weight)

    def _norm(self, x: Tensor, number: int) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.norms[number] * y.to(x.dtype)

    def _turned(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[-2])[:, None] * 0.1 ** torch.arange(x.shape[-1] // 2)
        cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
        a, b = x.chunk(2, -1)
        return x * cos.to(x.dtype) + torch.cat([-b, a], -1) * sin.to(x.dtype)


class Steps(nn.Module):
    """Recurrent layers, and what kernels alone have."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(12, 20, batch_first=True, bidirectional=True)
        self.head = nn.Linear(40, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.head(self.gru(x)[0])
        return y.log_softmax(-1), torch.topk(y.abs() + 0.1, 2, -1).values.cumprod(-1)


_PLACES = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))
MODELS: dict[str, tuple[type[nn.Module], tuple[Tensor, ...]]] = {
    "images": (Images, (tensor(2, 3, 21, 18),)),
    "words": (Words, (_PLACES,)),
    "steps": (Steps, (tensor(2, 3, 12),)),
}


def _made(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    make, inputs = MODELS[name]
    return make().eval(), inputs


def _leaves(result: object) -> Sequence[Tensor]:
    return list(torch.utils._pytree.tree_leaves(result))


def assert_as_exact_as_eager(
    found: object, model: nn.Module, inputs: Sequence[Tensor], dtype: torch.dtype
) -> None:
    """model: of the half type, whose weights are exact in float64."""
    exact_model = copy.deepcopy(model).double()
    given = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
    with torch.no_grad():
        eager = _leaves(model(*given))
        exact = _leaves(exact_model(*(x.double() if x.is_floating_point() else x for x in given)))
    for got, want, true in zip(_leaves(found), eager, exact, strict=True):
        assert got.dtype == want.dtype == dtype
        scale = true.abs().max()
        off, allowed = (got - true).abs().max(), (want - true).abs().max()
        assert off <= 1.5 * allowed + 4 * _STEP[dtype] * scale, f"off by {off / scale:.2e}"


@pytest.mark.parametrize("backends", BACKENDS, ids=lambda names: "-".join(names) or "kernels")
@pytest.mark.parametrize("dtype", HALF.values(), ids=HALF)
@pytest.mark.parametrize("name", MODELS)
def test_as_exact_as_eager(name: str, dtype: torch.dtype, backends: list[str]) -> None:
    model, inputs = _made(name)
    model = model.to(dtype)
    given = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    program = lower(model, given, backends=backends, tune="off")
    assert_as_exact_as_eager(program(*given), model, inputs, dtype)


def test_images_are_one_delegate() -> None:
    """The mean over height and width too, which XNNPACK gets in float32."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    program = lower(model.bfloat16().eval(), (tensor(1, 3, 9, 9).bfloat16(),), tune="off")
    (method,) = program.report.methods
    assert [segment.backend for segment in method.segments] == ["ggml"]


@pytest.mark.parametrize("dtype", HALF.values(), ids=HALF)
def test_a_transformer_is_one_delegate(dtype: torch.dtype) -> None:
    model, inputs = _made("words")
    program = lower(model.to(dtype), inputs, tune="off")
    (method,) = program.report.methods
    assert [segment.backend for segment in method.segments] == ["ggml"]


def test_half_types_are_priced() -> None:
    """XNNPACK takes float16, but without the processor's help, in more time than float32."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)).eval().half()
    program = lower(model, (tensor(1, 16, 32, 32).half(),), tune="off")
    (method,) = program.report.methods
    assert {segment.backend for segment in method.segments} == {"ggml"}
    costs = {
        name: sum(atom.costs_ns[name] or 0.0 for atom in method.atoms)
        for name in ("ggml", "xnnpack")
    }
    assert costs["ggml"] < costs["xnnpack"]


def test_weights_take_two_bytes() -> None:
    model = nn.Sequential(nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 512)).bfloat16().eval()
    program = lower(model, (tensor(1, 512).bfloat16(),), tune="off")
    assert len(program.buffer) < 1.05 * 2 * 2 * 512 * 512


def test_dynamic_sizes() -> None:
    model, _ = _made("words")
    model = model.bfloat16()
    places = torch.randint(0, 50, (2, 8))
    shapes = ({1: Dim("n", min=2, max=12)},)
    program = lower(model, (places,), dynamic_shapes=shapes, tune="off")
    for n in (2, 12, 7):
        more = torch.randint(0, 50, (2, n))
        assert_as_exact_as_eager(program(more), model, (more,), torch.bfloat16)


class Numbers(nn.Module):
    """What the edge dialect makes tensors of."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        compared = x > 0.1, x == 0.1, x >= 257, x < 2049
        return x * 0.1, x + 0.3, 0.7 - x, x / 3, torch.add(x, x, alpha=0.3), x + 257, *compared


@pytest.mark.parametrize("backends", BACKENDS[1:], ids=lambda names: "-".join(names) or "kernels")
@pytest.mark.parametrize("dtype", HALF.values(), ids=HALF)
@pytest.mark.parametrize("sizes", [(), (64, 8)], ids=["a number", "a matrix"])
def test_numbers_count_as_in_eager(
    sizes: tuple[int, ...], dtype: torch.dtype, backends: list[str]
) -> None:
    x = tensor(*sizes).to(dtype)
    if sizes:
        x[0], x[1], x[2] = 0.1, 256, 2048
    program = lower(Numbers(), (x,), backends=backends, tune="off")
    for got, want in zip(program(x), Numbers()(x), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


class Either(nn.Module):
    """Products in the branches of a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(256, 256), nn.Linear(256, 256)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.cond(
            x.sum() > 0,
            lambda y: functional.layer_norm(self.one(y), (256,)),
            lambda y: self.other(y).softmax(-1),
            (x,),
        )
        return result


@pytest.mark.parametrize("backends", BACKENDS, ids=lambda names: "-".join(names) or "kernels")
def test_branches(backends: list[str]) -> None:
    torch.manual_seed(0)
    model = Either().eval().bfloat16()
    x = (tensor(8, 256) + 1).bfloat16()
    program = lower(model, (x,), backends=backends, tune="off")
    for given in (x, -x):
        assert_as_exact_as_eager(program(given), model, (given,), torch.bfloat16)


def test_kernels_move_half_types_as_they_are() -> None:
    """Only what computes reads float32."""

    class Moves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x.flip(0), x[:, ::2].repeat(1, 2)], 1).transpose(0, 1)

    x = tensor(4, 6).bfloat16()
    program = lower(Moves(), (x,), backends=[], tune="off")
    assert torch.equal(program(x), Moves()(x))
    (method,) = program.report.methods
    assert not any("_to_dim_order_copy" in op for op in method.kernels)


def test_kernels_keep_channels_last() -> None:
    class Image(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return functional.softmax(x * 0.3, 1), x.cumsum(2)

    x = tensor(2, 3, 5, 4).bfloat16().to(memory_format=torch.channels_last)
    program = lower(Image(), (x,), backends=[], tune="off")
    for got, want in zip(program(x), Image()(x), strict=True):
        assert got.stride() == want.stride()
        torch.testing.assert_close(got, want, rtol=2.0**-8, atol=2.0**-8)
