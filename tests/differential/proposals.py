"""Proposals for steps whose arguments have to fit each other: products, convolutions, norms, ...

Ops without an entry here get their arguments from their schema (schema_calls.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch

from tests.differential.graphs import Ref, Step
from tests.differential.pool import Pool

Proposal = Callable[[Pool], Step]
PROPOSALS: dict[str, Proposal] = {}
"""By the name of a rule's target."""


def _proposes(*targets: str) -> Callable[[Proposal], Proposal]:
    def add(proposal: Proposal) -> Proposal:
        for target in targets:
            assert target not in PROPOSALS, target
            PROPOSALS[target] = proposal
        return proposal

    return add


def _fan_in(*sizes: int) -> float:
    return 1 / math.sqrt(max(1, math.prod(sizes)))


# ---- products -----------------------------------------------------------------------------------


@_proposes("aten.linear.default")
def _linear(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    k, n = pool.value(x).shape[-1], pool.rng.choice([1, 2, 3, 8, 15, 16, 17, 33])
    weight = pool.weight(n, k, spread=_fan_in(k))
    if pool.rng.random() < 0.1:
        weight = pool.pick(rank=2)
    bias = pool.weight(n) if pool.rng.random() < 0.6 else None
    return Step("aten.linear.default", (x, weight, bias))


@_proposes("aten.mm.default")
def _mm(pool: Pool) -> Step:
    x = pool.pick(rank=2)
    k, n = pool.value(x).shape[1], pool.rng.choice([1, 3, 8, 17])
    right = pool.weight(k, n, spread=_fan_in(k))
    if pool.rng.random() < 0.5:
        right = _of_sizes(pool, (k, n))
    return Step("aten.mm.default", (x, right))


@_proposes("aten.bmm.default")
def _bmm(pool: Pool) -> Step:
    x = pool.pick(rank=3)
    b, _, k = pool.value(x).shape
    right = _of_sizes(pool, (b, k, pool.rng.choice([1, 4, 9, 16])))
    return Step("aten.bmm.default", (x, right))


@_proposes("aten.matmul.default")
def _matmul(pool: Pool) -> Step:
    x = _of_rank(pool, 2)
    shape = pool.value(x).shape
    n = pool.rng.choice([1, 2, 8, 13])
    batch = [1 if pool.rng.random() < 0.3 else size for size in shape[:-2]]
    if pool.rng.random() < 0.3:
        return Step("aten.matmul.default", (x, pool.weight(shape[-1], n, spread=0.3)))
    right = _of_sizes(pool, (*batch[pool.rng.randrange(len(batch) + 1) :], shape[-1], n))
    return Step("aten.matmul.default", (x, right))


@_proposes("aten.addmm.default")
def _addmm(pool: Pool) -> Step:
    x = pool.pick(rank=2)
    m, k = pool.value(x).shape
    n = pool.rng.choice([1, 5, 16, 19])
    right = pool.weight(k, n, spread=_fan_in(k))
    if pool.rng.random() < 0.4:
        right = _of_sizes(pool, (k, n))
    sizes = pool.rng.choice([(n,), (1,), (m, n), (m, 1), (1, n)])
    added = pool.weight(*sizes) if pool.rng.random() < 0.6 else _of_sizes(pool, sizes)
    factors = {name: pool.rng.choice([1, 0.5, -2, 0]) for name in ("alpha", "beta")}
    return Step("aten.addmm.default", (added, x, right), factors if pool.rng.random() < 0.5 else {})


@_proposes("aten.convolution.default")
def _convolution(pool: Pool) -> Step:
    rng = pool.rng
    x = pool.pick(rank=rng.choice([3, 4, 4]))
    c, *spatial = pool.value(x).shape[1:]
    dims = len(spatial)
    kernel = [rng.choice([1, 1, 2, 3, 3, 5]) for _ in range(dims)]
    stride = [rng.choice([1, 1, 2, 3]) for _ in range(dims)]
    dilation = [rng.choice([1, 1, 1, 2]) for _ in range(dims)]
    padding = [rng.choice([0, 1, k // 2 * d]) for k, d in zip(kernel, dilation, strict=True)]
    transposed = rng.random() < 0.2
    groups = rng.choice([1, 1, c] + [g for g in (2, 4) if c % g == 0])
    out = groups * rng.choice([1, 1, 2, 3] if groups > 1 else [1, 4, 9, 16, 20])
    extra = [0] * dims
    if transposed:
        groups = 1
        extra = [rng.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True)]
    sizes = (c, out) if transposed else (out, c // groups)
    weight = pool.weight(*sizes, *kernel, spread=_fan_in(sizes[1], *kernel))
    bias = pool.weight(out) if rng.random() < 0.6 else None
    args = (x, weight, bias, stride, padding, dilation, transposed, extra, groups)
    return Step("aten.convolution.default", args)


@_proposes("aten.scaled_dot_product_attention.default")
def _attention(pool: Pool) -> Step:
    rng = pool.rng
    q = _of_rank(pool, 3, 4)
    *batch, length, depth = pool.value(q).shape
    keys = rng.choice([1, 2, 5, 16, length])
    k = _of_sizes(pool, (*batch, keys, depth))
    v = _of_sizes(pool, (*batch, keys, rng.choice([1, 4, depth])))
    mask, causal = None, False
    kind = rng.choice(["none", "float", "bool", "causal"])
    if kind == "float":
        mask = pool.weight(length, keys)
    elif kind == "bool":
        keep = torch.rand(length, keys, generator=torch.Generator().manual_seed(rng.randrange(99)))
        keep[:, 0] = 1.0  # each query sees some key
        mask = pool.new_constant(keep > 0.3)
    elif kind == "causal":
        causal = True
    scale = {"scale": rng.choice([0.1, 0.5])} if rng.random() < 0.3 else {}
    return Step("aten.scaled_dot_product_attention.default", (q, k, v, mask, 0.0, causal), scale)


# ---- recurrent layers ---------------------------------------------------------------------------


def _recurrent(name: str, gates: int, pool: Pool) -> Step | None:
    rng = pool.rng
    x = pool.pick(rank=3)
    hidden, layers, directions = (
        rng.choice([1, 3, 8, 16, 17]),
        rng.choice([1, 1, 2]),
        rng.choice([1, 2]),
    )
    batch_first, biases = rng.random() < 0.5, rng.random() < 0.7
    projected = (
        rng.randrange(1, hidden) if name == "lstm" and hidden > 1 and rng.random() < 0.3 else hidden
    )
    weights: list[Ref] = []
    for layer in range(layers):
        width = pool.value(x).shape[2] if layer == 0 else directions * projected
        for _ in range(directions):
            weights.append(pool.weight(gates * hidden, width, spread=_fan_in(width)))
            weights.append(pool.weight(gates * hidden, projected, spread=_fan_in(projected)))
            weights += [pool.weight(gates * hidden) for _ in range(2 * biases)]
            if projected < hidden:
                weights.append(pool.weight(projected, hidden, spread=_fan_in(hidden)))
    batch = pool.value(x).shape[0 if batch_first else 1]
    sizes = [(layers * directions, batch, n) for n in (projected, hidden)]
    states = [_of_sizes(pool, each) for each in sizes[: 2 if name == "lstm" else 1]]
    for which in range(len(pool.runs)):  # torch reads beyond states of another batch, unchecked
        shape = list(pool.value(x, which).shape)
        if shape[2] != pool.value(x).shape[2] or any(
            pool.value(state, which).shape[1] != shape[0 if batch_first else 1] for state in states
        ):
            return None
    options = (biases, layers, 0.0, False, directions == 2, batch_first)
    hx = states if name == "lstm" else states[0]
    return Step(f"aten.{name}.input", (x, hx, weights, *options))


_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
RECURRENT = frozenset(f"aten.{name}.input" for name in _GATES)
for _name, _gates in _GATES.items():
    PROPOSALS[f"aten.{_name}.input"] = functools.partial(_recurrent, _name, _gates)


# ---- norms and reductions -----------------------------------------------------------------------


@_proposes("aten.layer_norm.default", "aten.native_layer_norm.default", "aten.rms_norm.default")
def _row_norm(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    shape = pool.value(x).shape
    sizes = list(shape[len(shape) - pool.rng.randint(1, min(3, len(shape))) :])
    weight = pool.weight(*sizes, spread=0.3, around=1.0) if pool.rng.random() < 0.7 else None
    eps = pool.rng.choice([1e-5, 1e-3])
    if pool.rng.random() < 0.3:
        return Step("aten.rms_norm.default", (x, sizes, weight, eps))
    bias = pool.weight(*sizes) if weight is not None and pool.rng.random() < 0.8 else None
    return Step("aten.layer_norm.default", (x, sizes, weight, bias, eps))


@_proposes("aten.group_norm.default", "aten.native_group_norm.default")
def _group_norm(pool: Pool) -> Step:
    x = _of_rank(pool, 2)
    channels = pool.value(x).shape[1]
    groups = pool.rng.choice([g for g in range(1, channels + 1) if channels % g == 0])
    affine = pool.rng.random() < 0.7
    weight = pool.weight(channels, spread=0.3, around=1.0) if affine else None
    bias = pool.weight(channels) if affine else None
    return Step("aten.group_norm.default", (x, groups, weight, bias, 1e-5))


@_proposes("aten.instance_norm.default")
def _instance_norm(pool: Pool) -> Step:
    x = _of_rank(pool, 3)
    channels = pool.value(x).shape[1]
    weight = pool.weight(channels, spread=0.3, around=1.0) if pool.rng.random() < 0.6 else None
    bias = None if weight is None else pool.weight(channels)
    args = (x, weight, bias, None, None, True, 0.1, 1e-5, False)
    return Step("aten.instance_norm.default", args)


@_proposes("aten._native_batch_norm_legit_no_training.default")
def _batch_norm(pool: Pool) -> Step:
    x = _of_rank(pool, 2)
    channels = pool.value(x).shape[1]
    affine = pool.rng.random() < 0.8
    weight = pool.weight(channels, spread=0.3, around=1.0) if affine else None
    bias = pool.weight(channels) if affine else None
    mean = pool.new_constant(torch.linspace(-1, 1, channels))
    variance = pool.new_constant(torch.linspace(0.5, 2, channels))
    args = (x, weight, bias, mean, variance, False, 0.1, 1e-5, False)
    return Step("aten.batch_norm.default", args)


@_proposes("aten._softmax.default", "aten.softmax.int")
def _softmax(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    return Step("aten.softmax.int", (x, _dim(pool, x)))


@_proposes("aten._log_softmax.default", "aten.log_softmax.int")
def _log_softmax(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    return Step("aten.log_softmax.int", (x, _dim(pool, x)))


@_proposes("aten.mean.dim")
def _mean(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    return Step("aten.mean.dim", (x, _dims(pool, x), pool.rng.random() < 0.5))


@_proposes("aten.sum.dim_IntList")
def _sum(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    return Step("aten.sum.dim_IntList", (x, _dims(pool, x), pool.rng.random() < 0.5))


# ---- pools --------------------------------------------------------------------------------------


@_proposes("aten.max_pool2d_with_indices.default")
def _max_pool(pool: Pool) -> Step:
    x, kernel, stride, padding = _window(pool)
    dilation = pool.rng.choice([[1, 1], [1, 1], [2, 1], [2, 2]])
    args = (x, kernel, stride, padding, dilation, pool.rng.random() < 0.3)
    return Step("aten.max_pool2d.default", args)


@_proposes("aten.avg_pool2d.default")
def _avg_pool(pool: Pool) -> Step:
    x, kernel, stride, padding = _window(pool)
    divisor = pool.rng.choice([None, None, None, 3])
    flags = (pool.rng.random() < 0.3, pool.rng.random() < 0.5)
    return Step("aten.avg_pool2d.default", (x, kernel, stride, padding, *flags, divisor))


@_proposes("aten._adaptive_avg_pool2d.default", "aten.adaptive_avg_pool2d.default")
def _adaptive_avg_pool(pool: Pool) -> Step:
    x = pool.pick(rank=pool.rng.choice([3, 4, 4]))
    return Step("aten.adaptive_avg_pool2d.default", (x, _adaptive_sizes(pool)))


@_proposes("aten.adaptive_max_pool2d.default")
def _adaptive_max_pool(pool: Pool) -> Step:
    x = pool.pick(rank=pool.rng.choice([3, 4, 4]))
    return Step("aten.adaptive_max_pool2d.default", (x, _adaptive_sizes(pool)))


def _adaptive_sizes(pool: Pool) -> list[int]:
    return [pool.rng.choice([1, 1, 2, 3, 5]) for _ in range(2)]


def _window(pool: Pool) -> tuple[Ref, list[int], list[int], list[int]]:
    rng = pool.rng
    x = pool.pick(rank=rng.choice([3, 4, 4]))
    kernel = [rng.choice([1, 2, 2, 3, 3, 5]) for _ in range(2)]
    stride = [rng.choice([1, 2, 2, 3]) for _ in range(2)]
    padding = [rng.randint(0, size // 2) for size in kernel]
    return x, kernel, stride, padding


# ---- functions of positive numbers --------------------------------------------------------------


def _of_positive(op: str, *numbers: tuple[float, ...]) -> Proposal:
    def propose(pool: Pool) -> Step:
        x = pool.pick()
        if pool.value(x).min() <= 0.05 and pool.try_step(Step("aten.abs.default", (x,))):
            x = pool.last()
        if pool.value(x).min() <= 0.05 and pool.try_step(Step("aten.add.Scalar", (x, 0.3))):
            x = pool.last()
        return Step(op, (x, *(pool.rng.choice(choices) for choices in numbers)))

    return propose


for _op in ("aten.log.default", "aten.sqrt.default", "aten.rsqrt.default", "aten.log1p.default"):
    PROPOSALS[_op] = _of_positive(_op)
PROPOSALS["aten.reciprocal.default"] = _of_positive("aten.reciprocal.default")
PROPOSALS["aten.pow.Tensor_Scalar"] = _of_positive(
    "aten.pow.Tensor_Scalar", (0.5, 2, 3, 1.5, -1, -0.5, 2.7)
)


# ---- shapes -------------------------------------------------------------------------------------


@_proposes("aten.view_copy.default", "aten.view.default", "aten.reshape.default")
def _reshape(pool: Pool) -> Step:
    x = pool.pick(dtype=None if pool.rng.random() < 0.1 else torch.float32)
    shape = list(pool.value(x).shape)
    kept = 1 if pool.dynamic and shape else 0
    rest = math.prod(shape[kept:])
    sizes: list[int] = []
    for factor in (2, 3, 4, 5, 7):
        if rest % factor == 0 and rest > 1 and pool.rng.random() < 0.5 and len(sizes) < 4:
            sizes.append(factor)
            rest //= factor
    sizes.insert(pool.rng.randrange(len(sizes) + 1), rest)
    if kept:
        sizes = [-1, *sizes] if pool.rng.random() < 0.8 else [-1, math.prod(shape[1:])]
    return Step("aten.reshape.default", (x, sizes))


@_proposes("aten.permute_copy.default", "aten.permute.default")
def _permute(pool: Pool) -> Step:
    x = _of_rank(pool, 2)
    dims = list(range(pool.value(x).dim()))
    pool.rng.shuffle(dims)
    return Step("aten.permute.default", (x, dims))


@_proposes("aten.expand_copy.default", "aten.expand.default")
def _expand(pool: Pool) -> Step:
    x = pool.pick(dtype=None if pool.rng.random() < 0.1 else torch.float32)
    shape = pool.value(x).shape
    kept = [pool.rng.choice([2, 3]) if size == 1 else -1 for size in shape]
    new = [pool.rng.choice([1, 2, 3]) for _ in range(pool.rng.choice([0, 0, 1]))]
    return Step("aten.expand.default", (x, new + kept))


@_proposes("aten.repeat.default")
def _repeat(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    times = [pool.rng.choice([1, 1, 2, 3]) for _ in pool.value(x).shape]
    return Step("aten.repeat.default", (x, [1] * pool.rng.choice([0, 0, 1]) + times))


@_proposes("aten.split_with_sizes_copy.default", "aten.split_with_sizes.default")
def _split_with_sizes(pool: Pool) -> Step:
    x, dim, size = _splittable(pool)
    first = pool.rng.randint(1, max(1, size - 1))
    sizes = [first, size - first] if size > 1 else [size]
    return Step("aten.split_with_sizes.default", (x, sizes, dim))


@_proposes("aten.split_copy.Tensor", "aten.split.Tensor", "aten.chunk.default")
def _split(pool: Pool) -> Step:
    x, dim, size = _splittable(pool)
    if pool.rng.random() < 0.5:
        return Step("aten.chunk.default", (x, pool.rng.choice([2, 3]), dim))
    return Step("aten.split.Tensor", (x, pool.rng.randint(max(1, size // 4), size), dim))


@_proposes("aten.unbind_copy.int", "aten.unbind.int")
def _unbind(pool: Pool) -> Step:
    for _ in range(10):
        x, dim, size = _splittable(pool)
        if size <= 5:
            break
    return Step("aten.unbind.int", (x, dim))


@_proposes("aten.cat.default")
def _cat(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    dim = _dim(pool, x)
    parts = [x]
    for _ in range(pool.rng.randint(1, 3)):
        sizes = list(pool.value(x).shape)
        sizes[dim] = pool.rng.choice([1, 2, sizes[dim]])
        parts.append(x if pool.rng.random() < 0.15 else _part(pool, tuple(sizes)))
    pool.rng.shuffle(parts)
    return Step("aten.cat.default", (parts, dim))


@_proposes("aten.stack.default")
def _stack(pool: Pool) -> Step:
    x = pool.pick()
    other = _part(pool, tuple(pool.value(x).shape))
    parts = [x, other] + ([x] if pool.rng.random() < 0.3 else [])
    rank = pool.value(x).dim()
    return Step("aten.stack.default", (parts, pool.rng.randint(-rank - 1, rank)))


@_proposes("aten.constant_pad_nd.default")
def _pad(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    dims = pool.rng.randint(1, pool.value(x).dim() - (pool.dynamic and pool.value(x).dim() > 1))
    # ExecuTorch's kernel refuses what is below 0 (a cut).
    pads = [pool.rng.choice([0, 0, 1, 2, 5]) for _ in range(2 * dims)]
    return Step("aten.constant_pad_nd.default", (x, pads, pool.rng.choice([0.0, 1.5, -3.0])))


# ---- indices ------------------------------------------------------------------------------------


@_proposes("aten.embedding.default")
def _embedding(pool: Pool) -> Step:
    rows = pool.rng.choice([2, 7, 20])
    table = pool.weight(rows, pool.rng.choice([1, 4, 8, 17]))
    indices = _indices(pool, pool.sizes(pool.rng.choice([1, 2])), rows)
    return Step("aten.embedding.default", (table, indices))


@_proposes("aten.index_select.default")
def _index_select(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    dim = _dim(pool, x)
    indices = _indices(pool, (pool.rng.choice([1, 2, 5]),), _smallest_size(pool, x, dim))
    return Step("aten.index_select.default", (x, dim, indices))


@_proposes("aten.index.Tensor")
def _index(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    dim = _dim(pool, x) % pool.value(x).dim()
    sizes = pool.rng.choice([(1,), (3,), (2, 2)])
    indices = _indices(pool, sizes, _smallest_size(pool, x, dim))
    return Step("aten.index.Tensor", (x, [None] * dim + [indices]))


@_proposes("aten.gather.default")
def _gather(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    dim = _dim(pool, x)
    sizes = list(pool.value(x).shape)
    sizes[dim] = pool.rng.choice([1, 2, 5])
    indices = _indices(pool, tuple(sizes), _smallest_size(pool, x, dim))
    return Step("aten.gather.default", (x, dim, indices))


@_proposes("aten.index_put.default")
def _index_put(pool: Pool) -> Step:
    x = _of_rank(pool, 1)
    dim = _dim(pool, x) % pool.value(x).dim()
    indices = _indices(pool, pool.rng.choice([(1,), (3,)]), _smallest_size(pool, x, dim))
    # The same values for every index: which of two equal ones comes last is nobody's promise.
    sizes = [1, *pool.value(x).shape[dim + 1 :]]
    return Step("aten.index_put.default", (x, [None] * dim + [indices], _of_sizes(pool, (*sizes,))))


@_proposes("aten._to_copy.default", "dim_order_ops._to_dim_order_copy.default")
def _to_copy(pool: Pool) -> Step:
    if pool.rng.random() < 0.5:
        x = pool.pick(dtype=None)
        return Step("aten._to_copy.default", (x,), {"dtype": torch.float32})
    x = pool.pick(rank=4)
    return Step("aten._to_copy.default", (x,), {"memory_format": torch.channels_last})


@_proposes("aten.clone.default", "dim_order_ops._clone_dim_order.default")
def _clone(pool: Pool) -> Step:
    x = pool.pick(rank=4)
    form = pool.rng.choice([torch.channels_last, torch.contiguous_format])
    return Step("aten.clone.default", (x,), {"memory_format": form})


def _smallest_size(pool: Pool, ref: Ref, dim: int) -> int:
    """The size of a dimension with the smallest batch, so that indices are within it always."""
    return min(pool.value(ref, which).shape[dim] for which in range(len(pool.runs)))


def _indices(pool: Pool, sizes: tuple[int, ...], below: int) -> Ref:
    known = [
        ref
        for ref in pool.refs(dtype=torch.int64)
        if ref.kind == "x" and pool.graph.inputs[ref.index].below == below
    ]
    if known and pool.rng.random() < 0.5:
        return pool.rng.choice(known)
    return pool.new_input(sizes, below=below, dtype=torch.int64)


# ---- masks --------------------------------------------------------------------------------------


@_proposes("aten.where.self")
def _where(pool: Pool) -> Step:
    x = _of_rank(pool, 0)
    return Step("aten.where.self", (_mask(pool, x), x, _of_sizes(pool, (*pool.value(x).shape,))))


@_proposes("aten.masked_fill.Scalar")
def _masked_fill(pool: Pool) -> Step:
    x = _of_rank(pool, 0)
    return Step("aten.masked_fill.Scalar", (x, _mask(pool, x), pool.rng.choice([0.0, -2.5, 1.0])))


@_proposes("aten.masked_fill.Tensor")
def _masked_fill_tensor(pool: Pool) -> Step:
    x = _of_rank(pool, 0)
    return Step("aten.masked_fill.Tensor", (x, _mask(pool, x), pool.weight()))


def _of_masks(op: str) -> Proposal:
    """Of conditions, and of integers now and then."""

    def propose(pool: Pool) -> Step:
        x = _of_rank(pool, 0)
        if pool.rng.random() < 0.3:
            sizes = tuple(pool.value(x).shape)
            first, second = (pool.new_input(sizes, below=9, dtype=torch.int64) for _ in range(2))
            choices: tuple[object, ...] = (3, 5)
        else:
            first, second, choices = _mask(pool, x), _mask(pool, x), (True, False)
        if op.endswith(".Tensor"):
            return Step(op, (first, second))
        return Step(op, (first, pool.rng.choice(choices)) if op.endswith(".Scalar") else (first,))

    return propose


for _op in ("and", "or", "xor"):
    for _form in ("Tensor", "Scalar"):
        PROPOSALS[f"aten.bitwise_{_op}.{_form}"] = _of_masks(f"aten.bitwise_{_op}.{_form}")
PROPOSALS["aten.bitwise_not.default"] = _of_masks("aten.bitwise_not.default")


def _comparing(op: str) -> Proposal:
    """Of integers, or of noise with a number that no function levels off at, as cosines do at 1."""

    def propose(pool: Pool) -> Step:
        if op.endswith(".Scalar") and pool.rng.random() < 0.6:
            return Step(op, (pool.pick(), pool.rng.choice([0.37, -0.61, 1.23])))
        sizes = pool.sizes()
        first, second = (pool.new_input(sizes, below=5, dtype=torch.int64) for _ in range(2))
        return Step(op, (first, 3 if op.endswith(".Scalar") else second))

    return propose


for _op in ("eq", "ne", "lt", "le", "gt", "ge"):
    for _form in ("Tensor", "Scalar"):
        PROPOSALS[f"aten.{_op}.{_form}"] = _comparing(f"aten.{_op}.{_form}")


def _mask(pool: Pool, x: Ref) -> Ref:
    """A condition of a tensor's sizes: an input, or one that compares the tensor."""
    compared = Step("aten.gt.Scalar", (x, pool.rng.choice([0.0, 0.5, -0.3])))
    if pool.rng.random() < 0.6 and pool.try_step(compared):
        return pool.last()
    return pool.new_input(tuple(pool.value(x).shape), below=2, dtype=torch.bool)


# ---- resizing -----------------------------------------------------------------------------------


@_proposes("aten.upsample_nearest2d.vec")
def _upsample_nearest(pool: Pool) -> Step:
    x = pool.pick(rank=4)
    return Step("aten.upsample_nearest2d.vec", (x, *_new_sizes(pool, x)))


@_proposes("aten.upsample_bilinear2d.vec")
def _upsample_bilinear(pool: Pool) -> Step:
    x = pool.pick(rank=4)
    sizes, factors = _new_sizes(pool, x)
    return Step("aten.upsample_bilinear2d.vec", (x, sizes, pool.rng.random() < 0.5, factors))


def _new_sizes(pool: Pool, x: Ref) -> tuple[list[int] | None, list[float] | None]:
    """Sizes, or factors."""
    if pool.rng.random() < 0.5:
        return None, [pool.rng.choice([1.0, 2.0, 3.0, 1.5]) for _ in range(2)]
    return [pool.rng.choice([size, 2 * size, size + 1]) for size in pool.value(x).shape[2:]], None


# ---- picking ------------------------------------------------------------------------------------


def _part(pool: Pool, sizes: tuple[int, ...]) -> Ref:
    """What goes into a list: a value, or a weight, which others may use as well."""
    return pool.weight(*sizes) if pool.rng.random() < 0.2 else _of_sizes(pool, sizes)


def _of_rank(pool: Pool, low: int, high: int = 8) -> Ref:
    for _ in range(20):
        ref = pool.pick()
        if low <= pool.value(ref).dim() <= high:
            return ref
    return pool.new_input(pool.sizes(pool.rng.randint(low, min(high, low + 1))))


def _of_sizes(pool: Pool, sizes: tuple[int, ...]) -> Ref:
    """A value of these sizes: one that is there, a new input or a constant."""
    fit = [ref for ref in pool.refs() if tuple(pool.value(ref).shape) == sizes]
    if fit and pool.rng.random() < 0.7:
        return pool.rng.choice(fit)
    if len(pool.graph.inputs) < 5 and pool.rng.random() < 0.7:
        return pool.new_input(sizes)
    return pool.weight(*sizes)


def _dim(pool: Pool, ref: Ref) -> int:
    rank = pool.value(ref).dim()
    first = 1 if pool.dynamic and rank > 1 and pool.rng.random() < 0.7 else 0
    dim = pool.rng.randint(first, rank - 1)
    return dim - rank if pool.rng.random() < 0.3 else dim


def _dims(pool: Pool, ref: Ref) -> list[int]:
    rank = pool.value(ref).dim()
    if rank == 4 and pool.rng.random() < 0.3:
        return [2, 3]
    dims = {pool.rng.randrange(rank) for _ in range(pool.rng.choice([1, 1, 1, 2]))}
    return [dim - rank if pool.rng.random() < 0.3 else dim for dim in dims]


def _splittable(pool: Pool) -> tuple[Ref, int, int]:
    x = _of_rank(pool, 1)
    dim = _dim(pool, x)
    return x, dim, int(pool.value(x).shape[dim])
