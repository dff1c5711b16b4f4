"""Random graphs to quantize: layers that quantizers know, and float ops between them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from tests.differential import proposals as p
from tests.differential.generate import computes
from tests.differential.graphs import Graph, Ref, Step
from tests.differential.grouped_weights import SCHEMES, GroupedConstant
from tests.differential.grow import Proposal, finish, grow_by
from tests.differential.pool import Pool
from tests.differential.quantizing import GROUP, OF_WEIGHTS
from tests.differential.tolerance import is_comparable

_POOLS = 200


def pt2e_graph(rng: random.Random, way: str) -> Graph:
    """An image or rows through convolutions and linear layers, sums, pools and activations.

    way: of quantizing it, one of quantizing.PT2E.
    """
    for _ in range(_POOLS):
        pool = Pool(rng)
        if rng.random() < 0.25:
            pool.new_input(_rows(rng, [5, 8, 16, 24]))
            grow_by(pool, _ROWS)
        else:
            channels = rng.choice([3, 4, 8])
            height = rng.choice([4, 6, 8, 9])
            width = rng.choice([channels, height, height, 5])
            pool.new_input((rng.choice([1, 1, 2]), channels, height, width))
            grow_by(pool, _IMAGES, at_least=2)
        graph = _ended(pool, way)
        if graph is not None and _quantizes(graph, _PT2E_LAYERS):
            return graph
    raise AssertionError("no graph to quantize was fit for a comparison")


def weights_graph(rng: random.Random) -> Graph:
    """Linear layers and embeddings, whose weights are stored otherwise, with float ops between."""
    for _ in range(_POOLS):
        pool = Pool(rng)
        pool.new_input(_rows(rng, [32, 64, 96]))
        grow_by(pool, _WEIGHTS)
        graph = _ended(pool, rng.choice(OF_WEIGHTS))
        if graph is not None and graph.quantized_weights():
            return graph
    raise AssertionError("no graph with weights was fit for a comparison")


def grouped_graph(rng: random.Random, dtypes: Sequence[torch.dtype]) -> Graph:
    """Linear layers and embeddings of integers in groups, with float ops between them.

    dtypes: one of them is that of inputs, other constants and results.
    """
    for _ in range(_POOLS):
        pool = Pool(rng)
        pool.new_input(_rows(rng, [32, 64, 96]))
        grow_by(pool, _GROUPED)
        if pool.graph.steps:
            graph = finish(pool)
            graph.dtype = rng.choice(dtypes)
            if computes(graph) and is_comparable(graph) and _has_groups(graph):
                return graph
    raise AssertionError("no graph with weights in groups was fit for a comparison")


def _has_groups(graph: Graph) -> bool:
    return any(isinstance(each, GroupedConstant) for each in graph.constants)


def _rows(rng: random.Random, widths: list[int]) -> tuple[int, ...]:
    before = rng.choice([[], [1], [2]])
    return (*before, rng.choice([1, 3, 7, 16]), rng.choice(widths))


def _ended(pool: Pool, way: str) -> Graph | None:
    if not pool.graph.steps:
        return None
    graph = finish(pool)
    graph.quantized = way
    return graph if is_comparable(graph) else None


def _quantizes(graph: Graph, layers: set[str]) -> bool:
    return any(step.op in layers for step in graph.steps)


# ---- layers -------------------------------------------------------------------------------------

_PT2E_LAYERS = {
    "aten.conv1d.default",
    "aten.conv2d.default",
    "aten.conv2d.padding",
    "aten.conv_transpose2d.input",
    "aten.linear.default",
}


def _conv2d(pool: Pool) -> Step:
    rng = pool.rng
    x = pool.pick(rank=4)
    c = pool.value(x).shape[1]
    groups = rng.choice([1, 1, 1, c, *(g for g in (2, 4) if c % g == 0)])
    out = c if rng.random() < 0.5 else groups * rng.choice([1, 2] if groups > 1 else [4, 8, 10])
    kernel = [rng.choice([1, 3, 3, 2])] * 2
    bias = pool.weight(out, spread=0.3) if rng.random() < 0.7 else None
    weight = pool.weight(out, c // groups, *kernel, spread=p._fan_in(c // groups, *kernel))
    if rng.random() < 0.15:
        return Step("aten.conv2d.padding", (x, weight, bias, [1, 1], "same", [1, 1], groups))
    stride = [1, 1] if rng.random() < 0.7 else [2, 2]
    args = (x, weight, bias, stride, [rng.choice([0, k // 2]) for k in kernel], [1, 1], groups)
    return Step("aten.conv2d.default", args)


def _conv1d(pool: Pool) -> Step:
    x = pool.pick(rank=3)
    c = pool.value(x).shape[1]
    out, kernel = pool.rng.choice([c, 8]), pool.rng.choice([1, 3])
    weight = pool.weight(out, c, kernel, spread=p._fan_in(c, kernel))
    return Step("aten.conv1d.default", (x, weight, pool.weight(out), [1], [kernel // 2]))


def _conv_transpose2d(pool: Pool) -> Step:
    x = pool.pick(rank=4)
    c = pool.value(x).shape[1]
    out, size = pool.rng.choice([c, 4]), pool.rng.choice([2, 3])
    weight = pool.weight(c, out, size, size, spread=p._fan_in(c, size))
    return Step("aten.conv_transpose2d.input", (x, weight, pool.weight(out), [2, 2]))


def _linear(pool: Pool) -> Step:
    x = p._of_rank(pool, 2, 4)
    k = pool.value(x).shape[-1]
    n = k if pool.rng.random() < 0.4 else pool.rng.choice([5, 8, 16, 32, 64])
    bias = pool.weight(n, spread=0.3) if pool.rng.random() < 0.7 else None
    return Step("aten.linear.default", (x, pool.weight(n, k, spread=p._fan_in(k)), bias))


def _linear_of_groups(pool: Pool) -> Step:
    """Of rows that divide into groups."""
    fit = [ref for ref in pool.refs() if _divides(pool, ref)]
    x = pool.rng.choice(fit[-3:])
    k, n = pool.value(x).shape[-1], pool.rng.choice([32, 32, 64, 96, 8, 5])
    bias = pool.weight(n, spread=0.3) if pool.rng.random() < 0.7 else None
    return Step("aten.linear.default", (x, pool.weight(n, k, spread=p._fan_in(k)), bias))


def _divides(pool: Pool, ref: Ref) -> bool:
    value = pool.value(ref)
    return value.dim() >= 2 and value.shape[-1] % GROUP == 0


def _embedding(pool: Pool) -> Step:
    rows = pool.rng.choice([7, 20, 50])
    table = pool.weight(rows, pool.rng.choice([32, 64, 96]))
    indices = p._indices(pool, pool.rng.choice([(3,), (1, 5), (2, 4)]), rows)
    return Step("aten.embedding.default", (table, indices))


def _integers(pool: Pool, n: int, k: int, spread: float) -> Ref:
    """A weight [n, k] in groups, perhaps one that is there already."""
    found = enumerate(pool.graph.constants)
    known = [i for i, each in found if isinstance(each, GroupedConstant) and each.sizes == (n, k)]
    if known and pool.rng.random() < 0.4:
        return Ref("w", pool.rng.choice(known))
    generator = torch.Generator().manual_seed(pool.rng.randrange(1 << 30))
    value = torch.randn(n, k, generator=generator) * spread
    return pool.own_constant(GroupedConstant.of(value, pool.rng.choice(SCHEMES)))


def _linear_of_integers(pool: Pool) -> Step:
    fit = [ref for ref in pool.refs() if _divides(pool, ref)]
    x = pool.rng.choice(fit[-3:])
    k, n = pool.value(x).shape[-1], pool.rng.choice([32, 32, 64, 96, 20, 5, 1])
    bias = pool.weight(n, spread=0.3) if pool.rng.random() < 0.5 else None
    return Step("aten.linear.default", (x, _integers(pool, n, k, p._fan_in(k)), bias))


def _embedding_of_integers(pool: Pool) -> Step:
    rows = pool.rng.choice([7, 20, 64])
    table = _integers(pool, rows, pool.rng.choice([32, 64, 96]), 0.3)
    indices = p._indices(pool, pool.rng.choice([(3,), (1, 5), (2, 4)]), rows)
    return Step("aten.embedding.default", (table, indices))


# ---- between them -------------------------------------------------------------------------------


def _of_one(op: str, *args: object) -> Proposal:
    return lambda pool: Step(op, (pool.pick(), *args))


def _of_two(op: str) -> Proposal:
    """Of two values of the same sizes, the second one as often one that is there as not."""

    def propose(pool: Pool) -> Step:
        x = pool.pick()
        return Step(op, (x, _alike(pool, x)))

    return propose


def _alike(pool: Pool, x: Ref) -> Ref:
    sizes = tuple(pool.value(x).shape)
    others = [ref for ref in pool.refs() if ref != x and tuple(pool.value(ref).shape) == sizes]
    if others and pool.rng.random() < 0.8:
        return pool.rng.choice(others)
    return p._of_sizes(pool, sizes)


def _cat(pool: Pool) -> Step:
    x = p._of_rank(pool, 2)
    parts = [x, _alike(pool, x)]
    dim = 1 if pool.rng.random() < 0.7 else -1
    return Step("aten.cat.default", (parts, dim))


def _max_pool(pool: Pool) -> Step:
    return Step("aten.max_pool2d.default", (pool.pick(rank=4), [2, 2], [2, 2]))


def _avg_pool(pool: Pool) -> Step:
    return Step("aten.avg_pool2d.default", (pool.pick(rank=4), [2, 2], [1, 1]))


def _pool_all(pool: Pool) -> Step:
    return Step("aten.adaptive_avg_pool2d.default", (pool.pick(rank=4), [1, 1]))


def _mean(pool: Pool) -> Step:
    return Step("aten.mean.dim", (pool.pick(rank=4), [2, 3], pool.rng.random() < 0.7))


def _flatten(pool: Pool) -> Step:
    x = p._of_rank(pool, 3)
    dims = pool.rng.choice([(1, -1), (2, -1), (0, 1)])
    return Step("aten.flatten.using_ints", (x, *dims))


def _upsample(pool: Pool) -> Step:
    return Step("aten.upsample_nearest2d.vec", (pool.pick(rank=4), None, [2.0, 2.0]))


def _layer_norm(pool: Pool) -> Step:
    x = p._of_rank(pool, 2)
    size = pool.value(x).shape[-1]
    return Step("aten.layer_norm.default", (x, [size], pool.weight(size, around=1.0, spread=0.2)))


_ACTIVATIONS: dict[Proposal, int] = {
    _of_one("aten.relu.default"): 5,
    _of_one("aten.hardtanh.default", 0.0, 6.0): 3,
    _of_one("aten.hardswish.default"): 2,
    _of_one("aten.sigmoid.default"): 1,
    _of_one("aten.gelu.default"): 1,
}
_ANY: dict[Proposal, int] = {
    **_ACTIVATIONS,
    _of_two("aten.add.Tensor"): 6,
    _of_two("aten.mul.Tensor"): 3,
    _of_two("aten.sub.Tensor"): 1,
    _cat: 3,
    p._reshape: 1,
    p._permute: 1,
    p._softmax: 1,
    _flatten: 1,
}
_ROWS: dict[Proposal, int] = {**_ANY, _linear: 12, _conv1d: 3, _layer_norm: 1}
_IMAGES: dict[Proposal, int] = {
    **_ANY,
    _conv2d: 16,
    _linear: 2,
    _conv_transpose2d: 1,
    _max_pool: 2,
    _avg_pool: 1,
    _pool_all: 1,
    _mean: 1,
    _upsample: 1,
}
_WEIGHTS: dict[Proposal, int] = {**_ANY, _linear_of_groups: 12, _embedding: 3, _layer_norm: 2}
_GROUPED: dict[Proposal, int] = {
    **_ANY,
    _linear_of_integers: 12,
    _embedding_of_integers: 5,
    _layer_norm: 2,
}
