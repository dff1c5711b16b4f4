"""Key-value caches as decoders have them: heads written at given places, read by attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from tests.differential.graphs import Input, Ref, Step
from tests.differential.pool import Pool

Written = tuple[Ref, Ref]
"""A state, and its new value."""

_ROOMS = (12, 33, 70)
"""Rows of a cache: less than a vector, and more than a block of keys."""


@dataclass(frozen=True)
class Layout:
    """How a cache lies in memory, of rows [1, rows, groups, depth].

    sizes: of `room` rows. order: of a row's dimensions in the cache. dim: the rows'. flat: groups
    and depth are one dimension, and there is no batch.
    """

    order: tuple[int, int, int, int]
    dim: int
    flat: bool = False

    def sizes(self, room: int, groups: int, depth: int) -> tuple[int, ...]:
        """The cache's."""
        rows = (1, room, groups, depth)
        return (room, groups * depth) if self.flat else tuple(rows[i] for i in self.order)


LAYOUTS: Mapping[str, Layout] = {
    "heads": Layout((0, 2, 1, 3), 2),
    "rows": Layout((0, 1, 2, 3), 1),
    "columns": Layout((0, 2, 3, 1), 3),
    "flat": Layout((0, 1, 2, 3), 0, flat=True),
}


@dataclass(frozen=True)
class _Sizes:
    """heads: of the queries, a multiple of the groups. seen: rows that attention reads."""

    room: int
    groups: int
    heads: int
    depth: int
    seen: int


class _RefusedError(Exception):
    """The pool does not take a step."""


def cached_heads(pool: Pool, rows: int, value: Ref) -> list[Written] | None:
    """Attention over one or two caches into which rows are written; None if the pool refuses it.

    rows: how many. value: [rows, width], which queries, keys and values are projected from.
    """
    try:
        return _cached_heads(pool, rows, value)
    except _RefusedError:
        return None


def _cached_heads(pool: Pool, rows: int, value: Ref) -> list[Written]:
    rng = pool.rng
    room, groups = rng.choice(_ROOMS), rng.choice([1, 2, 3])
    depth = rng.choice([4, 5, 8, 16, 20])
    seen = room if rng.random() < 0.7 else rng.randint(room // 2, room)
    sizes = _Sizes(room, groups, groups * rng.choice([1, 1, 2, 4]), depth, seen)
    symbols = pool.symbols_of((rows,))
    places = pool.add_input(Input((rows,), room, torch.int64, symbols=symbols, ascending=True))
    layout = LAYOUTS[rng.choice(list(LAYOUTS))]
    joined = not layout.flat and rng.random() < 0.2
    written = [_write(pool, sizes, layout, places, value, 2 * depth if joined else depth)]
    parts = [(0, depth), (depth, 2 * depth)] if joined else [(0, depth)]
    if not joined and rng.random() < 0.9:
        other = layout if rng.random() < 0.7 else LAYOUTS[rng.choice(list(LAYOUTS))]
        written.append(_write(pool, sizes, other, places, value, depth))
    else:
        other = layout
    # What was there before is read now and then.
    which = 0 if rng.random() < 0.1 else 1
    key = _read(pool, sizes, layout, written[0][which], parts[0], joined)
    last = _read(pool, sizes, other, written[-1][which], parts[-1], joined)
    _attend(pool, sizes, rows, places, (value, key, last))
    return written


def _write(
    pool: Pool, sizes: _Sizes, layout: Layout, places: Ref, value: Ref, depth: int
) -> Written:
    """Puts projected rows into a cache of its own."""
    width = pool.value(value).shape[-1]
    weight = pool.weight(sizes.groups * depth, width, spread=1 / math.sqrt(width))
    new = _step(pool, "aten.linear.default", value, weight)
    if not layout.flat:
        new = _step(pool, "aten.view.default", new, [1, -1, sizes.groups, depth])
        new = _step(pool, "aten.permute.default", new, list(layout.order))
    zeros = pool.rng.random() < 0.5
    shape = layout.sizes(sizes.room, sizes.groups, depth)
    state = pool.add_input(Input(shape, state=True, zeros=zeros))
    cache = state
    kind = pool.rng.choice(["put", "put", "copy", "slice", "slice and put"])
    if kind.startswith("slice") and not pool.dynamic:
        cache = _put_slice(pool, sizes, layout.dim, cache, new)
    if kind == "copy":
        cache = _step(pool, "aten.index_copy.default", cache, layout.dim, places, new)
    elif kind != "slice" or cache == state:
        at = [*(None for _ in range(layout.dim)), places]
        cache = _step(pool, "aten.index_put.default", cache, at, new)
    return state, cache


def _put_slice(pool: Pool, sizes: _Sizes, dim: int, cache: Ref, new: Ref) -> Ref:
    """The same rows at the same place in every call."""
    count = pool.value(new).shape[dim]
    start = pool.rng.randrange(sizes.room - count + 1)
    return _step(pool, "aten.slice_scatter.default", cache, new, dim, start, start + count)


def _read(
    pool: Pool, sizes: _Sizes, layout: Layout, cache: Ref, part: tuple[int, int], joined: bool
) -> Ref:
    """A cache as [1, heads or groups, seen, depth]; part: of its depth, if that is joined."""
    early = pool.rng.random() < 0.5
    if early:
        cache = _first(pool, cache, layout.dim, sizes)
    if layout.flat:
        cache = _step(pool, "aten.view.default", cache, [1, -1, sizes.groups, sizes.depth])
    # From the cache's dimensions to [1, groups, rows, depth].
    order = [layout.order.index(dim) for dim in (0, 2, 1, 3)]
    if order != [0, 1, 2, 3]:
        cache = _step(pool, "aten.permute.default", cache, order)
    if not early:
        cache = _first(pool, cache, 2, sizes)
    return _step(pool, "aten.slice.Tensor", cache, 3, *part) if joined else cache


def _first(pool: Pool, cache: Ref, dim: int, sizes: _Sizes) -> Ref:
    if sizes.seen == sizes.room:
        return cache
    return _step(pool, "aten.slice.Tensor", cache, dim, 0, sizes.seen)


def _attend(pool: Pool, sizes: _Sizes, rows: int, places: Ref, of: tuple[Ref, Ref, Ref]) -> None:
    """Queries of a value look up keys and values: [rows, heads * depth]."""
    value, key, last = of
    heads, depth, width = sizes.heads, sizes.depth, pool.value(value).shape[-1]
    query = _step(pool, "aten.linear.default", value, pool.weight(heads * depth, width, spread=0.3))
    query = _step(pool, "aten.view.default", query, [1, -1, heads, depth])
    query = _step(pool, "aten.transpose.int", query, 1, 2)
    options = {}
    if heads > sizes.groups:
        if pool.rng.random() < 0.5:
            options["enable_gqa"] = True
        else:
            key, last = (_repeated(pool, sizes, each) for each in (key, last))
    batch = bool(options) or pool.rng.random() < 0.8
    if not batch:
        query, key, last = (_step(pool, "aten.squeeze.dim", x, 0) for x in (query, key, last))
    mask = _MASKS[pool.rng.choice(list(_MASKS))](pool, sizes, rows, places)
    args = (query, key, last, mask, 0.0, False)
    found = _step(pool, "aten.scaled_dot_product_attention.default", *args, **options)
    if not batch:
        found = _step(pool, "aten.unsqueeze.default", found, 0)
    found = _step(pool, "aten.transpose.int", found, 1, 2)
    _step(pool, "aten.reshape.default", found, [-1, heads * depth])


def _repeated(pool: Pool, sizes: _Sizes, cache: Ref) -> Ref:
    """Each group once per head that reads it."""
    times, groups = sizes.heads // sizes.groups, sizes.groups
    cache = _step(pool, "aten.unsqueeze.default", cache, 2)
    repeats = [1, groups, times, sizes.seen, sizes.depth]
    cache = _step(pool, "aten.expand.default", cache, repeats)
    return _step(pool, "aten.reshape.default", cache, [1, sizes.heads, sizes.seen, sizes.depth])


# ---- masks --------------------------------------------------------------------------------------


def _seen(pool: Pool, sizes: _Sizes, rows: int, places: Ref) -> Ref:
    """Bools [rows, seen]: which keys are no later than a row."""
    column = _step(pool, "aten.unsqueeze.default", places, 1)
    keys = pool.own_constant(torch.arange(sizes.seen))
    return _step(pool, "aten.le.Tensor", keys, column)


def _table(pool: Pool, sizes: _Sizes, rows: int, places: Ref) -> Ref:
    """Rows of a table of floats."""
    later = torch.ones(sizes.room, sizes.seen).tril() == 0
    table = torch.zeros(sizes.room, sizes.seen).masked_fill(later, _never(pool))
    return _step(pool, "aten.index.Tensor", pool.own_constant(table), [places], checked=False)


def _of_floats(pool: Pool, sizes: _Sizes, rows: int, places: Ref) -> Ref:
    """0 where a key is seen; elsewhere minus infinity or the lowest float."""
    numbers = [pool.own_constant(torch.tensor([each])) for each in (0.0, _never(pool))]
    seen = _seen(pool, sizes, rows, places)
    return _step(pool, "aten.where.self", seen, *numbers, checked=False)


def _given(pool: Pool, sizes: _Sizes, rows: int, places: Ref) -> Ref:
    """Bools of no order; now and then a row sees none."""
    keep = torch.tensor([pool.rng.random() < 0.6 for _ in range(sizes.seen)])
    if pool.rng.random() < 0.9:
        keep[pool.rng.randrange(sizes.seen)] = True
    return pool.own_constant(keep[None])


def _biases(pool: Pool, sizes: _Sizes, rows: int, places: Ref) -> Ref:
    """Floats that are added, for each key."""
    return pool.weight(1, sizes.seen)


def _never(pool: Pool) -> float:
    return pool.rng.choice([-math.inf, torch.finfo(pool.dtype).min])


_MASKS: Mapping[str, Callable[[Pool, _Sizes, int, Ref], Ref | None]] = {
    "none": lambda *_: None,
    "seen": _seen,
    "floats": _of_floats,
    "table": _table,
    "given": _given,
    "biases": _biases,
}


def _step(pool: Pool, op: str, *args: object, checked: bool = True, **kwargs: object) -> Ref:
    if not pool.try_step(Step(op, args, kwargs), checked=checked):
        raise _RefusedError
    return pool.last()
