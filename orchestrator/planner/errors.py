"""What can go wrong while planning. Every message names the atom, tensor, pin or limit at fault."""


class PlannerError(ValueError):
    """Base of all planner errors."""


class InvalidGraphError(PlannerError):
    """The cost graph contradicts itself: cycles, unknown ids, impossible numbers."""


class InfeasibleAtomError(PlannerError):
    """No backend that the constraints allow can run some atom."""


class UnknownCostError(PlannerError):
    """An atom can run, but nothing is known of its cost on any backend that could take it."""


class IllegalPlanError(PlannerError):
    """Segments that cannot run one after another, or that do not cover the graph."""


class ConstraintError(PlannerError):
    """Constraints that contradict each other, match nothing, or leave no plan."""
