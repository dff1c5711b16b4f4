"""Random graphs whose height and width, or length, are dynamic: strides, splits, resizing."""

from __future__ import annotations

import random

from tests.differential import proposals as p
from tests.differential.graphs import Graph, Ref, Step, Symbol
from tests.differential.grow import Proposal, finish, grow_by
from tests.differential.pool import Pool
from tests.differential.subjects import is_exportable
from tests.differential.tolerance import is_comparable

_POOLS = 400
# By the steps that sizes come in. No other size that is drawn equals one of the examples.
_HEIGHTS = {step: Symbol("h", 20, 8, 32, 16 - step, step) for step in (1, 2, 4)}
_WIDTHS = {step: Symbol("w", 12, 4, 28, 20 - step, step) for step in (1, 2, 4)}
_LENGTHS = {step: Symbol("l", 18 if step == 2 else 14, 4, 30, 12 - step, step) for step in (1, 2)}


def open_graph(rng: random.Random) -> Graph:
    """A graph of images of any height and width, or of sequences of any length."""
    for _ in range(_POOLS):
        if rng.random() < 0.6:
            step = rng.choice([1, 1, 2, 4])
            pool = Pool(rng, symbols=[_HEIGHTS[step], _WIDTHS[step]])
            pool.new_input((rng.choice([1, 2]), rng.choice([3, 4, 6, 8]), 20, 12))
            proposals = _IMAGES
        else:
            length = _LENGTHS[rng.choice([1, 1, 2])]
            pool = Pool(rng, symbols=[length])
            channels = rng.choice([3, 4, 8, 16])
            sizes = (channels, length.example) if rng.random() < 0.5 else (length.example, channels)
            pool.new_input((rng.choice([1, 2]), *sizes))
            proposals = _SEQUENCES
        grow_by(pool, proposals, at_least=2)
        if not pool.graph.steps:
            continue
        graph = finish(pool)
        if graph.dynamic and is_comparable(graph) and is_exportable(graph):
            return graph
    raise AssertionError("no graph with dynamic sizes was fit for a comparison")


# ---- of images ----------------------------------------------------------------------------------


def _conv(pool: Pool) -> Step:
    rng = pool.rng
    x = pool.pick(rank=rng.choice([3, 4, 4, 4]))
    c, *spatial = pool.value(x).shape[1:]
    dims = len(spatial)
    groups = rng.choice([1, 1, c, *(g for g in (2, 4) if c % g == 0)])
    out = groups * rng.choice([1, 2] if groups > 1 else [4, 6, 8])
    kernel = [rng.choice([1, 3, 3, 2])] * dims
    stride = [rng.choice([1, 1, 2, 2, 3])] * dims
    padding = [rng.choice([0, size // 2]) for size in kernel]
    weight = pool.weight(out, c // groups, *kernel, spread=p._fan_in(c // groups, *kernel))
    bias = pool.weight(out) if rng.random() < 0.6 else None
    args = (x, weight, bias, stride, padding, [1] * dims, False, [0] * dims, groups)
    return Step("aten.convolution.default", args)


def _resize(pool: Pool) -> Step:
    x, rng = pool.pick(rank=4), pool.rng
    factors = [rng.choice([2.0, 2.0, 1.5, 0.5])] * 2
    kind = rng.choice(["nearest", "bilinear", "bicubic"])
    if kind == "nearest":
        return Step("aten.upsample_nearest2d.vec", (x, None, factors))
    return Step(f"aten.upsample_{kind}2d.vec", (x, None, rng.random() < 0.3, factors))


def _gate(pool: Pool) -> Step:
    """An image scaled by what squeezing and exciting gives."""
    x = pool.pick(rank=4)
    if pool.try_step(Step("aten.mean.dim", (x, [2, 3], True))):
        squeezed = pool.last()
        if pool.try_step(Step("aten.sigmoid.default", (squeezed,))):
            return Step("aten.mul.Tensor", (x, pool.last()))
    return Step("aten.sigmoid.default", (x,))


def _pad(pool: Pool) -> Step:
    x = p._of_rank(pool, 2)
    pads = [pool.rng.choice([0, 1, 2]) for _ in range(4)]
    return Step("aten.constant_pad_nd.default", (x, pads, 0.0))


# ---- of anything --------------------------------------------------------------------------------


def _of_one(pool: Pool) -> Step:
    op = pool.rng.choice(["relu", "exp", "sigmoid", "tanh", "gelu", "hardswish", "neg", "abs"])
    x = pool.pick()
    if op == "exp" and pool.value(x).max() > 5:
        op = "tanh"
    return Step(f"aten.{op}.default", (x,))


def _of_two(pool: Pool) -> Step:
    """Of two values of equal sizes, both dynamic."""
    x = pool.pick()
    sizes = pool.value(x).shape
    same = [ref for ref in pool.refs() if pool.value(ref).shape == sizes]
    op = pool.rng.choice(["add", "mul", "sub"])
    return Step(f"aten.{op}.Tensor", (x, pool.rng.choice(same)))


def _join(pool: Pool) -> Step:
    """Values that differ in one size at most, side by side."""
    x = p._of_rank(pool, 2)
    dim = pool.rng.randrange(pool.value(x).dim())
    fit = [ref for ref in pool.refs() if _same_but(pool, x, ref, dim)]
    return Step("aten.cat.default", ([x, pool.rng.choice(fit)], dim))


def _same_but(pool: Pool, first: Ref, second: Ref, dim: int) -> bool:
    a, b = list(pool.value(first).shape), list(pool.value(second).shape)
    return len(a) == len(b) and a[:dim] + a[dim + 1 :] == b[:dim] + b[dim + 1 :]


def _flatten(pool: Pool) -> Step:
    x = p._of_rank(pool, 3)
    return Step(
        "aten.flatten.using_ints", (x, *pool.rng.choice([(2, -1), (1, -1), (0, 1), (1, 2)]))
    )


def _transpose(pool: Pool) -> Step:
    return Step("aten.transpose.int", (p._of_rank(pool, 2), -1, -2))


def _linear(pool: Pool) -> Step:
    x = p._of_rank(pool, 2)
    k, n = pool.value(x).shape[-1], pool.rng.choice([4, 8, 16])
    return Step("aten.linear.default", (x, pool.weight(n, k, spread=p._fan_in(k)), pool.weight(n)))


def _slice(pool: Pool) -> Step | None:
    x = p._of_rank(pool, 2)
    dim = pool.rng.randrange(pool.value(x).dim())
    start, end = pool.rng.choice([(0, -1), (1, 1 << 40), (2, -1), (0, 3), (-3, 1 << 40)])
    if min(pool.value(x, which).shape[dim] for which in range(len(pool.runs))) < 3:
        return None  # torch.export takes the last three for three, however many there are
    return Step("aten.slice.Tensor", (x, dim, start, end, pool.rng.choice([1, 1, 1, 2])))


def _attend(pool: Pool) -> Step | None:
    x = p._of_rank(pool, 3, 4)
    if len({pool.value(x, which).shape[-1] for which in range(len(pool.runs))}) > 1:
        return None  # the power of a size that scales the scores is none of ExecuTorch's ops
    args = (x, x, x, None, 0.0, pool.rng.random() < 0.4)
    return Step("aten.scaled_dot_product_attention.default", args)


def _max_pool(pool: Pool) -> Step | None:
    step = p._max_pool(pool)
    return step if _has_windows_as_declared(step, ceil_mode=step.args[5]) else None


def _avg_pool(pool: Pool) -> Step | None:
    step = p._avg_pool(pool)
    return step if _has_windows_as_declared(step, ceil_mode=step.args[4]) else None


def _has_windows_as_declared(step: Step, *, ceil_mode: bool) -> bool:
    """Whether torch.export's size is right for all: it decides about a last window once."""
    _, kernel, stride, padding = step.args[:4]
    return not ceil_mode or all(
        each + pad <= size for size, each, pad in zip(kernel, stride, padding, strict=True)
    )


_ANY: dict[Proposal, int] = {
    _of_one: 6,
    _of_two: 5,
    _join: 3,
    _flatten: 2,
    _transpose: 1,
    _linear: 2,
    _slice: 2,
    _pad: 1,
    p._split: 2,
    p._split_with_sizes: 1,
    p._softmax: 1,
    p._mean: 1,
    p._permute: 1,
    p._group_norm: 1,
    p._row_norm: 1,
}
_IMAGES: dict[Proposal, int] = {
    **_ANY,
    _conv: 12,
    _resize: 3,
    _gate: 2,
    _max_pool: 2,
    _avg_pool: 2,
    p._adaptive_avg_pool: 1,
}
_SEQUENCES: dict[Proposal, int] = {**_ANY, _conv: 5, _linear: 5, _attend: 2}
