"""Random cost graphs: shared tensors, several outputs per atom, call overheads, layouts, holes.

Costs are small whole numbers, so that ties are common and sums are exact. Hypothesis draws the
sizes and a seed; the rest comes from the seed, which is many times faster than drawing each number.
"""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

from orchestrator.planner import (
    INFEASIBLE,
    Atom,
    AtomCost,
    Backend,
    CostGraph,
    Flow,
    Tensor,
    Transfer,
)
from tests.planner.harness import BOTH, CHANNELS_LAST, CONTIGUOUS

_FLOWS = [Flow(reads, writes) for reads in BOTH for writes in BOTH]


def cost_graphs(
    *, backends: int | None = None, min_atoms: int = 6, max_atoms: int = 8
) -> st.SearchStrategy[CostGraph]:
    """Strategy for random graphs on 2 to 4 backends, or on as many as given."""
    return st.builds(
        random_graph,
        seed=st.integers(0, 2**32 - 1),
        atoms=st.integers(min_atoms, max_atoms),
        backends=st.integers(2, 4) if backends is None else st.just(backends),
        two_layouts=st.booleans(),
        kernels=st.booleans(),
    )


def random_graph(
    seed: int, atoms: int, backends: int, two_layouts: bool, kernels: bool
) -> CostGraph:
    """One graph; `kernels` makes the last backend one that is no delegate."""
    random = Random(seed)
    choices = [
        Backend(
            f"b{number}",
            call_overhead_ns=0.0 if kernels and number == backends - 1 else _ns(random),
            is_delegate=not kernels or number < backends - 1,
            layouts=random.choice([(CONTIGUOUS,), (CHANNELS_LAST,), BOTH])
            if two_layouts
            else (CONTIGUOUS,),
        )
        for number in range(backends)
    ]
    names = [f"a{number}" for number in range(atoms)]
    made = []
    for name in names:
        costs: dict[str, AtomCost] = {each.name: _cost(random, each) for each in choices}
        if all(cost is INFEASIBLE for cost in costs.values()):
            costs[random.choice(choices).name] = _ns(random)
        made.append(Atom(name, costs, trivial=random.random() < 0.1))
    return CostGraph(choices, made, _tensors(random, names, choices, two_layouts))


def _ns(random: Random) -> float:
    return float(random.choice([0, random.randint(1, 12), random.randint(1, 12)]))


def _cost(random: Random, backend: Backend) -> AtomCost:
    kind = random.randrange(10)
    if kind == 0:
        return INFEASIBLE
    if kind <= 6 or len(backend.layouts) == 1:
        return _ns(random)
    return {flow: _ns(random) for flow in random.sample(_FLOWS, random.randint(1, 4))}


def _transfer(random: Random, two_layouts: bool) -> Transfer:
    if not two_layouts:
        return Transfer(_ns(random), _ns(random))
    return Transfer(
        read_ns=_ns(random),
        write_ns=_ns(random),
        convert_ns=_ns(random),
        read_converting_ns=random.choice([None, _ns(random)]),
        write_converting_ns=random.choice([None, _ns(random)]),
    )


def _tensors(
    random: Random, names: list[str], backends: list[Backend], two_layouts: bool
) -> list[Tensor]:
    sources: list[str | None] = [None]
    for name in names:
        sources += [name] * random.choice([1, 1, 1, 2])
    tensors = []
    for number, source in enumerate(sources):
        later = names if source is None else names[names.index(source) + 1 :]
        users = random.sample(later, min(len(later), random.choice([0, 1, 1, 2, 3])))
        two = two_layouts and random.random() < 0.6
        tensors.append(
            Tensor(
                id=f"t{number}",
                producer=source,
                consumers=tuple(users),
                is_output=source is not None and random.random() < (0.2 if users else 0.5),
                layouts=BOTH if two else (CONTIGUOUS,),
                memory_layouts=random.choice([None, None, BOTH, (CHANNELS_LAST,)]) if two else None,
                transfers={each.name: _transfer(random, two) for each in backends},
            )
        )
    return tensors
