"""A plan: which segment runs where, in which order and layouts, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .elements import Flow, Layout
from .spreads import merge_spreads


@dataclass(frozen=True)
class Segment:
    """Atoms (ids, in topological order) that run together.

    For a delegate that is one call; else they are kernels that run one by one between two calls.
    """

    backend: str
    atoms: tuple[str, ...]
    is_delegate: bool = True


@dataclass(frozen=True)
class SegmentCost:
    """What one segment costs, in ns.

    spreads: of the atoms' prices, added up by source (see `spreads`).
    """

    atoms_ns: float = 0.0
    overhead_ns: float = 0.0
    read_ns: float = 0.0
    write_ns: float = 0.0
    convert_ns: float = 0.0
    spreads: Mapping[str, float] = field(default_factory=dict)

    @property
    def spread_ns(self) -> float:
        """Spread of the atoms' time."""
        return math.hypot(*self.spreads.values())

    @property
    def boundary_ns(self) -> float:
        """Time for moving tensors in and out and for changing their layouts."""
        return self.read_ns + self.write_ns + self.convert_ns

    @property
    def total_ns(self) -> float:
        """Time of the whole segment."""
        return self.atoms_ns + self.overhead_ns + self.boundary_ns


@dataclass(frozen=True)
class CostBreakdown:
    """Costs by segment, in the plan's order.

    unknown: atoms (ids) counted as 0 for want of a cost.
    """

    segments: tuple[SegmentCost, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def atoms_ns(self) -> float:
        """Time inside the atoms."""
        return math.fsum(segment.atoms_ns for segment in self.segments)

    @property
    def overhead_ns(self) -> float:
        """Time for calling delegates."""
        return math.fsum(segment.overhead_ns for segment in self.segments)

    @property
    def boundary_ns(self) -> float:
        """Time for moving tensors between segments and for changing their layouts."""
        return math.fsum(segment.boundary_ns for segment in self.segments)

    @property
    def total_ns(self) -> float:
        """Latency of the plan; a lower limit of it if some costs are unknown."""
        return math.fsum((self.atoms_ns, self.overhead_ns, self.boundary_ns))

    @property
    def spread_ns(self) -> float:
        """Spread of the total."""
        return math.hypot(*merge_spreads(each.spreads for each in self.segments).values())

    @property
    def is_complete(self) -> bool:
        """Whether every cost is known."""
        return not self.unknown


@dataclass(frozen=True)
class Plan:
    """What a solver answers.

    segments: in execution order; every atom is in exactly one.
    flows: by atom id, the layouts it computes in.
    layouts: by tensor id, the layout in memory of every tensor that crosses between segments or
        is given or got by the caller.
    solver: "exact", "beam", "greedy", ... ; lower_bound_ns: no plan can cost less; None if not
        computed. notes: what the reader of a report should know (caps, constraints, ties).
    states: how many the search looked at, as a measure of what it took.
    """

    segments: tuple[Segment, ...]
    flows: Mapping[str, Flow]
    layouts: Mapping[str, Layout]
    cost: CostBreakdown
    solver: str
    lower_bound_ns: float | None = None
    notes: tuple[str, ...] = ()
    states: int = field(default=0, compare=False)
    assignment: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Derive the backend of every atom."""
        assignment = {atom: segment.backend for segment in self.segments for atom in segment.atoms}
        object.__setattr__(self, "assignment", assignment)

    @property
    def total_ns(self) -> float:
        """Predicted latency."""
        return self.cost.total_ns

    @property
    def partitions(self) -> tuple[Segment, ...]:
        """The segments that become delegate calls."""
        return tuple(segment for segment in self.segments if segment.is_delegate)

    @property
    def gap(self) -> float | None:
        """How far the plan can at most be from the best one: (cost - bound) / cost, 0 for optimal.

        None without a bound or with unknown costs.
        """
        if self.lower_bound_ns is None or not self.cost.is_complete:
            return None
        if self.total_ns <= 0:
            return 0.0
        return max(0.0, (self.total_ns - self.lower_bound_ns) / self.total_ns)

    def noting(self, *notes: str) -> Plan:
        """The same plan with more notes."""
        return replace(self, notes=(*self.notes, *notes))
