"""Plans which backend runs which part of a graph; knows numbers and ids only.

Build a `CostGraph`, then ask `greedy` (capability in list order) or `solve` (cheapest) for a
`Plan`.
"""

from .cost_graph import CostGraph
from .elements import (
    INFEASIBLE,
    UNKNOWN,
    Atom,
    AtomCost,
    Backend,
    Constant,
    Flow,
    Layout,
    NoPrice,
    Price,
    Tensor,
    Transfer,
)
from .errors import (
    ConstraintError,
    IllegalPlanError,
    InfeasibleAtomError,
    InvalidGraphError,
    PlannerError,
    UnknownCostError,
)
from .greedy import drop_trivial_segments, greedy, greedy_assignment
from .legality import check_segments, is_convex, quotient_graph, split_into_segments
from .plan import CostBreakdown, Plan, Segment, SegmentCost
from .pricing import price_plan

__all__ = [
    "INFEASIBLE",
    "UNKNOWN",
    "Atom",
    "AtomCost",
    "Backend",
    "Constant",
    "ConstraintError",
    "CostBreakdown",
    "CostGraph",
    "Flow",
    "IllegalPlanError",
    "InfeasibleAtomError",
    "InvalidGraphError",
    "Layout",
    "NoPrice",
    "Plan",
    "PlannerError",
    "Price",
    "Segment",
    "SegmentCost",
    "Tensor",
    "Transfer",
    "UnknownCostError",
    "check_segments",
    "drop_trivial_segments",
    "greedy",
    "greedy_assignment",
    "is_convex",
    "price_plan",
    "quotient_graph",
    "split_into_segments",
]
