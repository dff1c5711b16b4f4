"""Plans which backend runs which part of a graph; knows numbers and ids only.

Build a `CostGraph`, then ask `greedy` (capability in list order) or `solve` (cheapest) for a
`Plan`.
"""

from .bounds import lower_bound, min_cut_bound
from .calls import Calls
from .constraints import Constraints, Exclude, Pin, duplicated_bytes, private_bytes
from .cost_graph import CostGraph
from .elements import (
    INFEASIBLE,
    UNKNOWN,
    Atom,
    AtomCost,
    Backend,
    Constant,
    Cost,
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
from .solve import solve
from .ties import is_tie

__all__ = [
    "INFEASIBLE",
    "UNKNOWN",
    "Atom",
    "AtomCost",
    "Backend",
    "Calls",
    "Constant",
    "ConstraintError",
    "Constraints",
    "Cost",
    "CostBreakdown",
    "CostGraph",
    "Exclude",
    "Flow",
    "IllegalPlanError",
    "InfeasibleAtomError",
    "InvalidGraphError",
    "Layout",
    "NoPrice",
    "Pin",
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
    "duplicated_bytes",
    "greedy",
    "greedy_assignment",
    "is_convex",
    "is_tie",
    "lower_bound",
    "min_cut_bound",
    "price_plan",
    "private_bytes",
    "quotient_graph",
    "solve",
    "split_into_segments",
]
