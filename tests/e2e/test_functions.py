"""Functions of torch, one by one: each runs like eager, or lowering names what it lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator import lower

_GENERATOR = torch.Generator().manual_seed(0)


def _randn(*sizes: int) -> Tensor:
    return torch.randn(sizes, generator=_GENERATOR)


IMAGES, ROWS, MATRIX = _randn(2, 4, 6, 8), _randn(2, 5, 7), _randn(6, 5)
VOLUME = _randn(1, 3, 4, 5, 6)
POSITIVE = torch.rand(3, 4, generator=_GENERATOR) + 0.1
INTEGERS = torch.randint(0, 5, (3, 4), generator=_GENERATOR)

# By name: a function of one tensor, and the tensor.
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Any], Tensor]] = {
    "median": (lambda x: (x.median(),), MATRIX),
    "median.dim": (lambda x: tuple(x.median(1)), MATRIX),
    "mode": (lambda x: tuple(x.round().mode(1)), MATRIX),
    "kthvalue": (lambda x: tuple(x.kthvalue(2, 1)), MATRIX),
    "cumprod": (lambda x: x.cumprod(1), MATRIX),
    "cummax": (lambda x: tuple(x.cummax(1)), MATRIX),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), MATRIX),
    "searchsorted": (lambda x: torch.searchsorted(x.sort(1).values, x * 0.5), MATRIX),
    "bucketize": (lambda x: torch.bucketize(x, torch.tensor([-1.0, 0, 1])), MATRIX),
    "unique": (lambda x: torch.unique((x * 2).long()).float().sum(), MATRIX),
    "histc": (lambda x: torch.histc(x, 5, -2, 2), MATRIX),
    "cdist": (lambda x: torch.cdist(x, x * 2), ROWS),
    "pdist": (lambda x: functional.pdist(x), MATRIX),
    "grid_sample": (
        lambda x: functional.grid_sample(
            x, torch.tanh(x[:, :2, :, :].permute(0, 2, 3, 1)), align_corners=False
        ),
        IMAGES,
    ),
    "affine_grid": (
        lambda x: functional.affine_grid(x[:, :2, :3, 0], (2, 4, 5, 6), align_corners=False),
        _randn(2, 2, 3, 1),
    ),
    "bicubic": (lambda x: functional.interpolate(x, scale_factor=2.0, mode="bicubic"), IMAGES),
    "bilinear aa": (
        lambda x: functional.interpolate(x, size=(3, 4), mode="bilinear", antialias=True),
        IMAGES,
    ),
    "linear1d": (lambda x: functional.interpolate(x, scale_factor=2.0, mode="linear"), ROWS),
    "nearest1d": (lambda x: functional.interpolate(x, scale_factor=2.0), ROWS),
    "nearest-exact": (
        lambda x: functional.interpolate(x, scale_factor=1.5, mode="nearest-exact"),
        IMAGES,
    ),
    "trilinear": (lambda x: functional.interpolate(x, scale_factor=2.0, mode="trilinear"), VOLUME),
    "area": (lambda x: functional.interpolate(x, size=(3, 4), mode="area"), IMAGES),
    "avg_pool1d": (lambda x: functional.avg_pool1d(x, 2), ROWS),
    "avg_pool3d": (lambda x: functional.avg_pool3d(x, 2), VOLUME),
    "max_pool1d": (lambda x: functional.max_pool1d(x, 2), ROWS),
    "max_pool3d": (lambda x: functional.max_pool3d(x, 2), VOLUME),
    "adaptive_avg_pool1d": (lambda x: functional.adaptive_avg_pool1d(x, 3), ROWS),
    "adaptive_avg_pool3d": (lambda x: functional.adaptive_avg_pool3d(x, 2), VOLUME),
    "adaptive_max_pool1d": (lambda x: functional.adaptive_max_pool1d(x, 3), ROWS),
    "adaptive_max_pool2d": (lambda x: functional.adaptive_max_pool2d(x, 3), IMAGES),
    "lp_pool": (lambda x: functional.lp_pool2d(x, 2, 2), IMAGES),
    "conv3d": (lambda x: functional.conv3d(x, torch.ones(2, 3, 2, 2, 2)), VOLUME),
    "conv_t1d": (lambda x: functional.conv_transpose1d(x, torch.ones(5, 3, 3)), ROWS),
    "conv_t2d": (
        lambda x: functional.conv_transpose2d(x, torch.ones(4, 3, 3, 3), stride=2),
        IMAGES,
    ),
    "conv_t3d": (lambda x: functional.conv_transpose3d(x, torch.ones(3, 2, 2, 2, 2)), VOLUME),
    "unfold": (lambda x: functional.unfold(x, 3, padding=1), IMAGES),
    "fold": (
        lambda x: functional.fold(functional.unfold(x, 2, stride=2), (6, 8), 2, stride=2),
        IMAGES,
    ),
    "tensor.unfold": (lambda x: x.unfold(2, 3, 2), ROWS),
    "logsumexp": (lambda x: x.logsumexp(1), MATRIX),
    "logaddexp": (lambda x: torch.logaddexp(x, x * 2), MATRIX),
    "cross": (lambda x: torch.cross(x, x + 1, dim=-1), _randn(4, 3)),
    "diag": (lambda x: torch.diag(x[0]), MATRIX),
    "diagonal": (lambda x: x.diagonal(0, 1, 2), ROWS),
    "diag_embed": (lambda x: torch.diag_embed(x), MATRIX),
    "tril": (lambda x: x.tril(), MATRIX),
    "triu": (lambda x: x.triu(1), MATRIX),
    "trace": (lambda x: x.trace(), MATRIX),
    "kron": (lambda x: torch.kron(x, x), MATRIX),
    "meshgrid": (lambda x: torch.meshgrid(x[:, 0], x[0], indexing="ij"), MATRIX),
    "flip": (lambda x: x.flip(1), ROWS),
    "rot90": (lambda x: x.rot90(), MATRIX),
    "one_hot": (lambda x: functional.one_hot(x, 6), INTEGERS),
    "scatter_add": (
        lambda x: torch.zeros(6, 5).scatter_add(0, torch.zeros(6, 5, dtype=torch.long), x),
        MATRIX,
    ),
    "scatter_reduce": (
        lambda x: torch.zeros(6, 5).scatter_reduce(
            0, torch.zeros(6, 5, dtype=torch.long), x, "amax"
        ),
        MATRIX,
    ),
    "index_add": (lambda x: x.index_add(0, torch.tensor([0, 2]), x[:2]), MATRIX),
    "index_copy": (lambda x: x.index_copy(0, torch.tensor([0, 2]), x[:2]), MATRIX),
    "index_fill": (lambda x: x.index_fill(0, torch.tensor([0, 2]), 1.0), MATRIX),
    "masked_fill": (lambda x: x.masked_fill(x > 0, -1.0), MATRIX),
    "masked_scatter": (lambda x: x.masked_scatter(x > 0, x * 2), MATRIX),
    "masked_select": (lambda x: x.masked_select(x > 0).sum(), MATRIX),
    "take": (lambda x: x.take(torch.tensor([1, 3, 5])), MATRIX),
    "take_along": (lambda x: torch.take_along_dim(x, x.argmax(1, keepdim=True), 1), MATRIX),
    "nan_to_num": (lambda x: torch.nan_to_num(x / x.round()), MATRIX),
    "lerp": (lambda x: torch.lerp(x, x + 1, 0.3), MATRIX),
    "lerp.T": (lambda x: torch.lerp(x, x + 1, x.sigmoid()), MATRIX),
    "erfinv": (lambda x: torch.erfinv(x.tanh()), MATRIX),
    "erfc": (lambda x: torch.erfc(x), MATRIX),
    "lgamma": (lambda x: torch.lgamma(x), POSITIVE),
    "digamma": (lambda x: torch.digamma(x), POSITIVE),
    "xlogy": (lambda x: torch.xlogy(x, x), POSITIVE),
    "fmod": (lambda x: torch.fmod(x, 0.7), MATRIX),
    "remainder": (lambda x: torch.remainder(x, 0.7), MATRIX),
    "floor_div": (lambda x: x // 0.3, MATRIX),
    "atan2": (lambda x: torch.atan2(x, x + 1), MATRIX),
    "hypot": (lambda x: torch.hypot(x, x + 1), MATRIX),
    "copysign": (lambda x: torch.copysign(x, -x), MATRIX),
    "frac": (lambda x: x.frac(), MATRIX),
    "sinc": (lambda x: torch.sinc(x), MATRIX),
    "expit": (lambda x: torch.special.expit(x), MATRIX),
    "logit": (lambda x: torch.logit(x), POSITIVE / 2),
    "exp2": (lambda x: x.exp2(), MATRIX),
    "log2": (lambda x: x.log2(), POSITIVE),
    "log10": (lambda x: x.log10(), POSITIVE),
    "asinh": (lambda x: x.asinh(), MATRIX),
    "atanh": (lambda x: x.tanh().atanh(), MATRIX),
    "sgn": (lambda x: x.sgn(), MATRIX),
    "sign": (lambda x: x.sign(), MATRIX),
    "heaviside": (lambda x: torch.heaviside(x, x * 0 + 0.5), MATRIX),
    "signbit": (lambda x: x.signbit(), MATRIX),
    "rsub": (lambda x: 1 - x, MATRIX),
    "addcmul": (lambda x: torch.addcmul(x, x, x, value=0.5), MATRIX),
    "addcdiv": (lambda x: torch.addcdiv(x, x, x.abs() + 1), MATRIX),
    "clamp.T": (lambda x: torch.clamp(x, x * 0 - 0.5, x * 0 + 0.5), MATRIX),
    "bitshift": (lambda x: (x << 1) >> 1, INTEGERS),
    "gcd": (lambda x: torch.gcd(x, x + 1), INTEGERS),
    "int div": (lambda x: torch.div(x, 3, rounding_mode="trunc"), INTEGERS),
    "int pow": (lambda x: x**2, INTEGERS),
    "var": (lambda x: x.var(1), MATRIX),
    "std": (lambda x: x.std(), MATRIX),
    "std_mean": (lambda x: torch.std_mean(x, 1), MATRIX),
    "norm": (lambda x: x.norm(dim=1), MATRIX),
    "norm p": (lambda x: x.norm(p=3, dim=1), MATRIX),
    "normalize": (lambda x: functional.normalize(x), MATRIX),
    "renorm": (lambda x: x.renorm(2, 0, 1.0), MATRIX),
    "instance_norm": (lambda x: functional.instance_norm(x), IMAGES),
    "lrn": (lambda x: functional.local_response_norm(x, 3), IMAGES),
    "group_norm": (lambda x: functional.group_norm(x, 2), IMAGES),
    "rms": (lambda x: functional.rms_norm(x, (7,)), ROWS),
    "pixel_unshuffle": (lambda x: functional.pixel_unshuffle(x, 2), IMAGES),
    "channel_shuffle": (lambda x: functional.channel_shuffle(x, 2), IMAGES),
    "glu": (lambda x: functional.glu(x), _randn(3, 6)),
    "softshrink": (lambda x: functional.softshrink(x), MATRIX),
    "hardshrink": (lambda x: functional.hardshrink(x), MATRIX),
    "tanhshrink": (lambda x: functional.tanhshrink(x), MATRIX),
    "selu": (lambda x: functional.selu(x), MATRIX),
    "softsign": (lambda x: functional.softsign(x), MATRIX),
    "threshold": (lambda x: functional.threshold(x, 0.1, 20.0), MATRIX),
    "softmin": (lambda x: functional.softmin(x, 1), MATRIX),
    "embedding_bag": (lambda x: functional.embedding_bag(x, torch.ones(6, 3)), INTEGERS),
    "cos_sim": (lambda x: functional.cosine_similarity(x, x + 1, dim=1), MATRIX),
    "pad reflect": (lambda x: functional.pad(x, (1, 2, 1, 1), mode="reflect"), IMAGES),
    "pad replicate": (lambda x: functional.pad(x, (1, 2), mode="replicate"), ROWS),
    "pad circular": (lambda x: functional.pad(x, (1, 2, 1, 1), mode="circular"), IMAGES),
    "einsum": (lambda x: torch.einsum("bij,bkj->bik", x, x), ROWS),
    "tensordot": (lambda x: torch.tensordot(x, x, ([1, 2], [1, 2])), ROWS),
    "baddbmm": (lambda x: torch.baddbmm(torch.ones(2, 5, 5), x, x.transpose(1, 2)), ROWS),
    "matrix_power": (lambda x: torch.linalg.matrix_power(x[:5], 2), MATRIX),
    "det": (lambda x: torch.linalg.det(x[:5]), MATRIX),
    "svdvals": (lambda x: torch.linalg.svdvals(x), MATRIX),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), MATRIX),
    "tile": (lambda x: x.tile(2, 3), MATRIX),
    "roll": (lambda x: x.roll(2, 1), MATRIX),
    "stack": (lambda x: torch.stack([x, x * 2], 1), MATRIX),
    "hstack": (lambda x: torch.hstack([x, x]), MATRIX),
    "split": (lambda x: x.split([2, 3], 1), MATRIX),
    "chunk": (lambda x: x.chunk(3, 1), MATRIX),
    "tensor_split": (lambda x: x.tensor_split(3, 1), MATRIX),
    "unbind": (lambda x: x.unbind(1), MATRIX),
    "swapaxes": (lambda x: x.swapaxes(0, 1) * 1, ROWS),
    "moveaxis": (lambda x: x.moveaxis(0, 2) * 1, ROWS),
    "view_as": (lambda x: x.reshape(-1).as_strided((3, 4), (4, 1)) * 1, MATRIX),
    "narrow": (lambda x: x.narrow(1, 1, 2) * 1, MATRIX),
    "where idx": (lambda x: torch.where(x > 0)[0].float().sum(), MATRIX),
    "count_nonzero": (lambda x: torch.count_nonzero(x > 0), MATRIX),
    "all": (lambda x: (x > 0).all(), MATRIX),
    "isin": (lambda x: torch.isin(x, torch.tensor([1, 3])), INTEGERS),
    "isclose": (lambda x: torch.isclose(x, x + 1e-9), MATRIX),
    "aminmax": (lambda x: torch.aminmax(x), MATRIX),
    "quantile": (lambda x: torch.quantile(x, 0.4, dim=1), MATRIX),
    "nansum": (lambda x: x.nansum(1), MATRIX),
    "nanmean": (lambda x: x.nanmean(1), MATRIX),
    "diff": (lambda x: torch.diff(x, dim=1), MATRIX),
    "trapz": (lambda x: torch.trapz(x), MATRIX),
    "vander": (lambda x: torch.vander(x[0], 3), MATRIX),
    "fft": (lambda x: torch.fft.rfft(x).abs(), MATRIX),
    "cross_entropy": (
        lambda x: functional.cross_entropy(x, torch.zeros(6, dtype=torch.long)),
        MATRIX,
    ),
    "nll": (
        lambda x: functional.nll_loss(
            functional.log_softmax(x, 1), torch.zeros(6, dtype=torch.long)
        ),
        MATRIX,
    ),
    "mse": (lambda x: functional.mse_loss(x, x * 2), MATRIX),
    "l1": (lambda x: functional.l1_loss(x, x * 2), MATRIX),
    "bce": (lambda x: functional.binary_cross_entropy(x.sigmoid(), x.sigmoid()), MATRIX),
    "huber": (lambda x: functional.huber_loss(x, x * 2), MATRIX),
    "kl": (
        lambda x: functional.kl_div(
            functional.log_softmax(x, 1), functional.softmax(x, 1), reduction="sum"
        ),
        MATRIX,
    ),
}
# No backend takes these, and ExecuTorch has no kernel for them.
WITHOUT_KERNEL = {
    "mode",
    "unique",
    "histc",
    "scatter_reduce",
    "erfinv",
    "lgamma",
    "digamma",
    "gcd",
    "det",
    "svdvals",
}


class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        result = self.function(x)
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in WITHOUT_KERNEL])
def test_function_runs_like_eager(name: str) -> None:
    function, x = FUNCTIONS[name]
    model = _Function(function)
    # Delegates get all that they take, whatever it costs.
    results = lower(model, (x,), strategy="greedy")(x)
    results = results if isinstance(results, (tuple, list)) else (results,)
    for got, want in zip(results, model(x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", sorted(WITHOUT_KERNEL))
def test_what_has_no_kernel_is_named(name: str) -> None:
    function, x = FUNCTIONS[name]
    with pytest.warns(UserWarning, match="will not load"):
        program = lower(_Function(function), (x,))
    assert program.report.methods[0].missing_kernels
