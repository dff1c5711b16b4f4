"""Short ways to write cost graphs down, and the strategy for random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

from orchestrator.planner import (
    INFEASIBLE,
    Atom,
    AtomCost,
    Backend,
    CostGraph,
    Flow,
    Layout,
    Tensor,
    Transfer,
)

CONTIGUOUS = Layout.CONTIGUOUS
CHANNELS_LAST = Layout.CHANNELS_LAST
BOTH = (CONTIGUOUS, CHANNELS_LAST)


def delegates(*names: str, overhead_ns: float = 0.0) -> list[Backend]:
    return [Backend(name, overhead_ns) for name in names]


PORTABLE = Backend("portable", is_delegate=False)


def graph_of(
    backends: Sequence[Backend],
    costs: Mapping[str, Mapping[str, AtomCost]],
    edges: Sequence[tuple[str, str]] = (),
    *,
    transfer: Transfer | None = None,
    trivial: Sequence[str] = (),
) -> CostGraph:
    """One tensor per atom that has users (called after the atom); "in" stands for the caller."""
    users: dict[str, list[str]] = {}
    for source, target in edges:
        users.setdefault(source, []).append(target)
    transfers = {} if transfer is None else {backend.name: transfer for backend in backends}
    tensors = [
        Tensor(
            id=f"{source}_out",
            producer=None if source == "in" else source,
            consumers=tuple(targets),
            transfers=transfers,
        )
        for source, targets in users.items()
    ]
    atoms = [Atom(name, cost, trivial=name in trivial) for name, cost in costs.items()]
    return CostGraph(backends, atoms, tensors)


_NS = st.integers(0, 12).map(float)


@st.composite
def _transfers(draw: st.DrawFn, two_layouts: bool) -> Transfer:
    read, write = draw(st.tuples(_NS, _NS))
    if not two_layouts:
        return Transfer(read, write)
    return Transfer(
        read_ns=read,
        write_ns=write,
        convert_ns=draw(_NS),
        read_converting_ns=draw(st.none() | _NS),
        write_converting_ns=draw(st.none() | _NS),
    )


@st.composite
def _costs(draw: st.DrawFn, backend: Backend) -> AtomCost:
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return INFEASIBLE
    if kind <= 6 or len(backend.layouts) == 1:
        return draw(_NS)
    flows = [Flow(reads, writes) for reads in BOTH for writes in BOTH]
    return draw(st.dictionaries(st.sampled_from(flows), _NS, min_size=1, max_size=4))


@st.composite
def cost_graphs(
    draw: st.DrawFn,
    *,
    backends: int | None = None,
    max_atoms: int = 8,
    min_atoms: int = 6,
    two_layouts: bool | None = None,
) -> CostGraph:
    """Random DAGs: shared tensors, several outputs per atom, overheads, layouts, holes.

    Costs are small whole numbers, so that ties are common and sums are exact.
    """
    layouts = draw(st.booleans()) if two_layouts is None else two_layouts
    count = backends if backends is not None else draw(st.integers(2, 3))
    choices = []
    for number in range(count):
        kernels = number == count - 1 and draw(st.booleans())
        computes_in = draw(st.sampled_from([(CONTIGUOUS,), (CHANNELS_LAST,), BOTH]))
        choices.append(
            Backend(
                f"b{number}",
                call_overhead_ns=0.0 if kernels else draw(_NS),
                is_delegate=not kernels,
                layouts=computes_in if layouts else (CONTIGUOUS,),
            )
        )
    names = [f"a{number}" for number in range(draw(st.integers(min_atoms, max_atoms)))]
    atoms = []
    for name in names:
        costs: dict[str, AtomCost] = {each.name: draw(_costs(each)) for each in choices}
        if all(cost is INFEASIBLE for cost in costs.values()):
            costs[choices[0].name] = draw(_NS)
        atoms.append(Atom(name, costs))
    tensors = _tensors(draw, names, choices, layouts)
    return CostGraph(choices, atoms, tensors)


def _tensors(
    draw: st.DrawFn, names: Sequence[str], backends: Sequence[Backend], layouts: bool
) -> list[Tensor]:
    tensors = []
    sources: list[tuple[str | None, Sequence[str]]] = [(None, names)]
    for position, name in enumerate(names):
        later = names[position + 1 :]
        sources += [(name, later)] * draw(st.sampled_from([1, 1, 1, 2]))
    for number, (source, possible) in enumerate(sources):
        users = (
            draw(st.lists(st.sampled_from(possible), unique=True, max_size=3)) if possible else []
        )
        is_output = source is not None and draw(st.sampled_from([not users, False, True]))
        two = layouts and draw(st.booleans())
        tensors.append(
            Tensor(
                id=f"t{number}",
                producer=source,
                consumers=tuple(users),
                is_output=is_output,
                layouts=BOTH if two else (CONTIGUOUS,),
                memory_layouts=draw(st.sampled_from([None, BOTH, (CHANNELS_LAST,)]))
                if two
                else None,
                transfers={each.name: draw(_transfers(two)) for each in backends},
            )
        )
    return tensors
