"""Random graphs that keep states from call to call: caches, histories, running sums."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from tests.differential import proposals as p
from tests.differential.cached_heads import Written, cached_heads
from tests.differential.generate import computes
from tests.differential.graphs import Graph, Input, Ref, Step, Values, resolve
from tests.differential.grow import Proposal, finish, grow_by
from tests.differential.pool import Pool
from tests.differential.scale import LARGEST
from tests.differential.subjects import StateTracks
from tests.differential.tolerance import ROUNDING, run_eagerly
from tests.harness.allowed import largest

_POOLS = 400
_WIDTH = 8
_ROOM = 12
"""How many rows a cache has."""
_CALLS = 5
_FLOAT = torch.float32


def state_graph(
    rng: random.Random, *, two_methods: bool = False, dtypes: Sequence[torch.dtype] = (_FLOAT,)
) -> Graph:
    """A graph with one or two states, or caches of keys and values.

    two_methods: it takes several rows at a time in one method, and one row in the other. dtypes:
    one of them is that of inputs, constants, states and results.
    """
    for _ in range(_POOLS):
        pool = Pool(rng, dynamic=two_methods, dtype=rng.choice(dtypes))
        rows = pool.batch if two_methods else rng.choice([1, 1, 3, 6])
        pool.new_input((rows, _WIDTH))
        grow_by(pool, _BEFORE, at_least=0, at_most=2)
        writes = {}
        for _ in range(rng.choice([1, 1, 2])):
            states = _STATES if pool.dtype == _FLOAT else _STATES_OF_HALVES
            for state, value in rng.choice(states)(pool, rows) or ():
                writes[state.index] = value
        if not writes:
            continue
        after = _AFTER if pool.dtype == _FLOAT else _AFTER_HALVES
        grow_by(pool, after, at_least=1, at_most=4)
        pool.graph.writes = writes
        graph = finish(pool)
        graph.dtype = pool.dtype
        if not computes(graph):
            continue
        _drop_views_of_states(graph)
        if graph.outputs and graph.dynamic == two_methods and _stays_small(graph, two_methods):
            return graph
    raise AssertionError("no graph with states was fit for a comparison")


# ---- states -------------------------------------------------------------------------------------


def _state(pool: Pool, *sizes: int) -> Ref:
    return pool.add_input(Input(sizes, state=True, zeros=pool.rng.random() < 0.5))


def _stepped(pool: Pool, op: str, *args: object) -> Ref | None:
    return pool.last() if pool.try_step(Step(op, args)) else None


def _rows_of(pool: Pool, rows: int) -> Ref | None:
    """Rows as wide as the states."""
    fit = [ref for ref in pool.refs() if tuple(pool.value(ref).shape) == (rows, _WIDTH)]
    fit = [ref for ref in fit if not _is_state(pool, ref)]
    return pool.rng.choice(fit) if fit else None


def _is_state(pool: Pool, ref: Ref) -> bool:
    return ref.kind == "x" and pool.graph.inputs[ref.index].state


def _cache(pool: Pool, rows: int) -> list[Written] | None:
    """New rows at given places, as in a key-value cache."""
    value = _rows_of(pool, rows)
    if value is None:
        return None
    state = _state(pool, _ROOM, _WIDTH)
    symbols = pool.symbols_of((rows,))
    spec = Input((rows,), _ROOM, torch.int64, symbols=symbols, ascending=True)
    places = pool.add_input(spec)
    if pool.rng.random() < 0.5:
        new = _stepped(pool, "aten.index_copy.default", state, 0, places, value)
    else:
        new = _stepped(pool, "aten.index_put.default", state, [places], value)
    return None if new is None else [(state, new)]


def _history(pool: Pool, rows: int) -> list[Written] | None:
    """The last rows that came, the oldest ones pushed out."""
    value = _rows_of(pool, rows)
    if value is None:
        return None
    state = _state(pool, _ROOM, _WIDTH)
    joined = _stepped(pool, "aten.cat.default", [state, value], 0)
    if joined is None:
        return None
    new = _stepped(pool, "aten.slice.Tensor", joined, 0, -_ROOM, 1 << 40)
    return None if new is None else [(state, new)]


def _average(pool: Pool, rows: int) -> list[Written] | None:
    """A running average of the rows' mean."""
    value = _rows_of(pool, rows)
    if value is None:
        return None
    state = _state(pool, _WIDTH)
    mean = _stepped(pool, "aten.mean.dim", value, [0])
    faded = _stepped(pool, "aten.mul.Scalar", state, 0.75)
    if mean is None or faded is None:
        return None
    new = _stepped(pool, "aten.add.Tensor", faded, mean)
    return None if new is None else [(state, new)]


def _recurrent(pool: Pool, rows: int) -> list[Written] | None:
    """The state of a recurrent cell."""
    value = _rows_of(pool, rows)
    if value is None:
        return None
    state = _state(pool, 1, _WIDTH)
    first = pool.weight(_WIDTH, _WIDTH, spread=0.3)
    seen = _stepped(pool, "aten.mean.dim", value, [0], True)
    kept = _stepped(pool, "aten.linear.default", state, first)
    if seen is None or kept is None:
        return None
    both = _stepped(pool, "aten.add.Tensor", seen, kept)
    new = None if both is None else _stepped(pool, "aten.tanh.default", both)
    return None if new is None else [(state, new)]


def _heads(pool: Pool, rows: int) -> list[Written] | None:
    """Caches of keys and values, with the attention that reads them."""
    value = _rows_of(pool, rows)
    return None if value is None else cached_heads(pool, rows, value)


_STATES = (_cache, _heads, _heads, _heads, _history, _average, _recurrent)
# Caches of half types are what backends treat apart.
_STATES_OF_HALVES = (*_STATES, *[_heads] * 5)


# ---- around them --------------------------------------------------------------------------------


def _attend(pool: Pool) -> Step:
    """Rows that look things up in a cache, before or after it was written."""
    query = p._of_rank(pool, 2, 2)
    depth = pool.value(query).shape[-1]
    keys = [r for r in pool.refs() if pool.value(r).dim() == 2 and pool.value(r).shape[1] == depth]
    key = pool.rng.choice(keys)
    return Step("aten.scaled_dot_product_attention.default", (query, key, key))


def _linear(pool: Pool) -> Step:
    x = p._of_rank(pool, 2, 2)
    k = pool.value(x).shape[-1]
    return Step("aten.linear.default", (x, pool.weight(_WIDTH, k, spread=p._fan_in(k))))


def _of_one(pool: Pool) -> Step:
    op = pool.rng.choice(["relu", "sigmoid", "tanh", "gelu", "neg"])
    return Step(f"aten.{op}.default", (pool.pick(),))


def _of_two(pool: Pool) -> Step:
    x = pool.pick()
    sizes = tuple(pool.value(x).shape)
    fit = [r for r in pool.refs() if tuple(pool.value(r).shape) in (sizes, sizes[-1:])]
    return Step(pool.rng.choice(["aten.add.Tensor", "aten.mul.Tensor"]), (x, pool.rng.choice(fit)))


_BEFORE: dict[Proposal, int] = {_linear: 3, _of_one: 2, _of_two: 1, p._row_norm: 1}
_AFTER: dict[Proposal, int] = {
    **_BEFORE,
    _attend: 4,
    _of_two: 3,
    p._mean: 1,
    p._permute: 1,
    p._softmax: 1,
}
# XNNPACK's softmax rounds to half types inside, by more than what is allowed of few steps after it;
# the kinds without states have it.
_AFTER_HALVES = {each: often for each, often in _AFTER.items() if each is not p._softmax}


# ---- what is fit --------------------------------------------------------------------------------


def _drop_views_of_states(graph: Graph) -> None:
    """Returns no views of states, which would show what is written after they were made."""
    values = run_eagerly(graph, graph.make_inputs(1))
    graph.outputs = [
        ref for ref in graph.outputs if not _shares_memory(resolve(ref, values), graph, values)
    ]
    graph.writes = {
        index: ref
        for index, ref in graph.writes.items()
        if not _shares_memory(resolve(ref, values), graph, values)
    }


def _shares_memory(value: Tensor, graph: Graph, values: Values) -> bool:
    memory = value.untyped_storage().data_ptr()
    return any(
        values.inputs[i].untyped_storage().data_ptr() == memory
        for i, spec in enumerate(graph.inputs)
        if spec.state
    )


def _stays_small(graph: Graph, two_methods: bool) -> bool:
    """Whether some calls in a row neither blow states up nor amplify rounding errors."""
    tracks = StateTracks(graph)
    for call in range(_CALLS):
        run = call % 2 if two_methods else 0
        for want in tracks.step(call, run):
            if not want.value.isfinite().all() or largest(want.value) > LARGEST:
                return False
            if want.error > ROUNDING[graph.dtype].most * largest(want.value):
                return False
    return True
