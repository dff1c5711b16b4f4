"""Short ways to write cost graphs down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.planner import (
    Atom,
    AtomCost,
    Backend,
    CostGraph,
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
