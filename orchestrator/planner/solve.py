"""One entry to all solvers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .bounds import lower_bound
from .constraints import Constraints, LimitLedger, allowed_options, duplicated_bytes
from .cost_graph import CostGraph, Option
from .errors import ConstraintError
from .exact import Found, find_plan
from .floating import near_order
from .greedy import greedy
from .legality import split_into_segments
from .plan import Plan
from .pricing import price_plan
from .problem import Problem

Method = Literal["auto", "exact", "beam", "greedy"]

# "auto" is exact for as many states as this (seconds for a model; less for large graphs, which
# rather need a beam soon), and then a beam of the width.
_ROOM = 40_000
_ROOM_OF_LARGE = 12_000
_LARGE = 400
_WIDTH = 16
# Where the restricted search leaves a gap, graphs of up to so many atoms are searched without it.
_MOST_ATOMS_UNRESTRICTED = 64
# Prices per delegate call that are tried to break ties, as parts of the largest that may matter.
_CALL_PRICES = (1.0, 0.3)
_BISECTIONS = 8
# Minimum cuts of larger graphs take seconds.
_MOST_ATOMS_TO_CUT = 2_000


def solve(
    graph: CostGraph,
    constraints: Constraints | None = None,
    *,
    method: Method = "auto",
    room: int | None = None,
) -> Plan:
    """The cheapest plan that the constraints allow.

    method: "exact" searches until it is proved; "beam" keeps few states; "auto" is exact for as
    long as there is room and a beam from then on, which it says in the plan's `solver`, `gap` and
    `notes`; "greedy" is the baseline by capability in list order. room: how many states "auto" may
    look at before it becomes a beam; a state takes some 50 us.

    Among equally cheap plans the one with the fewest partitions is taken, and so it is among plans
    whose costs differ by less than the spread of what they do differently.

    Raises InfeasibleAtomError or UnknownCostError naming an atom that nothing can run or price,
    ConstraintError naming constraints that contradict each other or leave no plan.
    """
    if method not in ("auto", "exact", "beam", "greedy"):
        raise ValueError(f"unknown method {method!r}; known: 'auto', 'exact', 'beam', 'greedy'.")
    return Solver(graph, constraints, method=method, room=room).solve()


@dataclass(frozen=True)
class _Answer:
    """What a search came to. plan: None if no plan within the limits was found.

    complete: whether nothing was dropped for want of room. bound_ns: of what was looked for.
    """

    plan: Plan | None
    complete: bool
    bound_ns: float | None


class Solver:
    """Solves one graph under constraints, perhaps several times with other prices of calls."""

    def __init__(
        self,
        graph: CostGraph,
        constraints: Constraints | None = None,
        *,
        method: Method = "auto",
        room: int | None = None,
    ) -> None:
        self.graph = graph
        self.constraints = constraints or Constraints()
        self.allowed = allowed_options(graph, self.constraints)
        self._method = method
        self._near = near_order(graph.order, graph.preds, graph.succs)
        if method == "exact":
            self._room = None
        elif method == "beam":
            self._room = 0
        else:
            default = _ROOM if len(graph.atoms) <= _LARGE else _ROOM_OF_LARGE
            self._room = default if room is None else room

    def solve(self) -> Plan:
        """The plan, with its bound and notes."""
        if self._method == "greedy":
            return self._greedy_only()
        answer = self._search()
        assert answer.plan is not None  # without limits there always is one
        if self._within_limits(answer.plan):
            plan = self._finished(answer)
            return self._fewest_calls(plan) if answer.complete else plan
        return self._solve_limited(answer)

    def greedy(self, order: Sequence[str] | None = None) -> Plan:
        """The baseline under the constraints' pins and excludes."""
        names = [backend.name for backend in self.graph.backends]
        allowed = {
            atom.id: {names[option.backend] for option in options}
            for atom, options in zip(self.graph.atoms, self.allowed, strict=True)
        }
        return greedy(self.graph, order, allowed=allowed)

    def best_if_calls_cost(self, extra_ns: float) -> Plan | None:
        """The best plan if every call cost more, at its true cost; None if it breaks the limits."""
        plan = self._search(extra_ns).plan
        return plan if plan is not None and self._within_limits(plan) else None

    def _search(self, extra_ns: float = 0.0, *, limited: bool = False) -> _Answer:
        """Find the best plan, if possible without a gap to the bound."""
        near = self._near if self._near.floating and self._method != "exact" else None
        problem = Problem(self.graph, self.allowed, extra_call_ns=extra_ns, near=near)
        found = self._find(problem, limited)
        plan = self._plan(found)
        if near is None or plan is None or found.dropped:
            bound = None if found.dropped or plan is None else plan.total_ns
            return _Answer(plan, not found.dropped, bound)
        if extra_ns or limited:
            return _Answer(plan, complete=True, bound_ns=None)
        relaxed = self._find(Problem(self.graph, self.allowed, near=near, relaxed=True), False)
        bound = None if relaxed.dropped else min(plan.total_ns, relaxed.cost_ns)
        unproved = bound is None or bound < plan.total_ns
        if unproved and len(self.graph.atoms) <= _MOST_ATOMS_UNRESTRICTED:
            free = self._find(Problem(self.graph, self.allowed), False)
            if not free.dropped:
                plan = self._plan(free)
                return _Answer(plan, complete=True, bound_ns=plan.total_ns if plan else None)
        return _Answer(plan, complete=True, bound_ns=bound)

    def _find(self, problem: Problem, limited: bool) -> Found:
        if limited:
            problem.ledger = LimitLedger(self.graph, self.constraints, problem.atoms)
        return find_plan(problem, self._room, _WIDTH)

    def _plan(self, found: Found) -> Plan | None:
        """Price what a search has found, and perhaps cut it in another way."""
        if found.segments is None:
            return None
        solver = "beam" if found.dropped else "exact"
        plan = price_plan(self.graph, found.segments, solver=solver, flows=found.flows)
        if self._near.floating or found.dropped:
            other = split_into_segments(self.graph, plan.assignment)
            cut = price_plan(self.graph, other, solver=solver, flows=found.flows)
            plan = min(plan, cut, key=_by_cost)
        return plan

    def _finished(self, answer: _Answer) -> Plan:
        """The plan with a bound, and with notes on what was left out."""
        plan = answer.plan
        assert plan is not None
        if not answer.complete:
            plan = min((plan, *self._baselines()), key=_by_cost)
        bound = answer.bound_ns
        if bound is None:
            use_cut = len(self.graph.atoms) <= _MOST_ATOMS_TO_CUT
            bound = lower_bound(self.graph, self.allowed, use_cut=use_cut)
        plan = replace(plan, lower_bound_ns=min(bound, plan.total_ns))
        plan = plan.noting(*_unknown_notes(self.graph, self.allowed))
        if not answer.complete:
            return plan.noting(
                f"The graph was too large to look at every plan ({len(self.graph.atoms)} atoms); "
                f"the best one can cost at most {plan.gap or 0.0:.2%} less."
            )
        if bound < plan.total_ns:
            return replace(plan, solver="restricted").noting(
                f"{len(self._near.floating)} atoms could run at almost any time, but were only "
                f"tried next to their users or makers; the best plan can cost at most "
                f"{plan.gap or 0.0:.2%} less."
            )
        return plan

    def _greedy_only(self) -> Plan:
        plan = self.greedy()
        if not self._within_limits(plan):
            raise ConstraintError(
                f"the greedy plan has {self._amounts(plan)}, which is more than "
                f"{self._limits_text()}; use another method."
            )
        if not plan.cost.is_complete:
            return plan
        use_cut = len(self.graph.atoms) <= _MOST_ATOMS_TO_CUT
        bound = lower_bound(self.graph, self.allowed, use_cut=use_cut)
        return replace(plan, lower_bound_ns=min(bound, plan.total_ns))

    def _baselines(self) -> list[Plan]:
        """Greedy plans within the limits, each delegate once as the first."""
        names = [backend.name for backend in self.graph.backends]
        delegates = [backend.name for backend in self.graph.backends if backend.is_delegate]
        plans = []
        for first in delegates or names[:1]:
            plan = self.greedy([first, *[name for name in names if name != first]])
            if plan.cost.is_complete and self._within_limits(plan):
                plans.append(plan)
        return plans

    def _fewest_calls(self, best: Plan) -> Plan:
        """Of the plans that cannot be told from the best one, one with the fewest partitions."""
        reach = math.sqrt(2) * best.cost.spread_ns
        if reach == 0 or len(best.partitions) < 2:
            return best
        chosen = best
        for part in _CALL_PRICES:
            plan = self.best_if_calls_cost(part * reach)
            if plan is not None and len(plan.partitions) < len(chosen.partitions):
                chosen = plan if _is_tie(self.graph, best, plan) else chosen
        if chosen is best:
            return best
        return replace(
            chosen, solver=best.solver, lower_bound_ns=best.lower_bound_ns, notes=best.notes
        ).noting(
            f"{len(chosen.partitions)} partitions instead of {len(best.partitions)}: the difference "
            f"of {chosen.total_ns - best.total_ns:.0f} ns is within the spread of the costs."
        )

    def _solve_limited(self, free: _Answer) -> Plan:
        """The best plan within the limits, which the best plan without them exceeds."""
        answer = self._search(limited=True)
        if answer.complete and not self._near.floating:
            if answer.plan is None:
                assert free.plan is not None
                raise ConstraintError(
                    f"no plan respects {self._limits_text()}; the best one without has "
                    f"{self._amounts(free.plan)}."
                )
            return self._finished(answer)
        plans = [plan for plan in (answer.plan, *self._baselines()) if plan is not None]
        plans += self._by_call_prices()
        if not plans:
            raise ConstraintError(
                f"no plan that respects {self._limits_text()} was found; there may be one, but not "
                "every plan was looked at. Loosen the limits."
            )
        best = min(plans, key=_by_cost)
        return self._finished(_Answer(best, complete=False, bound_ns=free.bound_ns))

    def _by_call_prices(self) -> list[Plan]:
        """Plans within the limit on partitions, from raising the price of a call until they are."""
        if self.constraints.max_partitions is None:
            return []
        dearest = (
            max((option.price.ns for option in options if option.price), default=0.0)
            for options in self.allowed
        )
        plans = []
        low, high = 1.0, 2.0 + sum(dearest)
        for _ in range(_BISECTIONS):
            middle = math.sqrt(low * high)
            plan = self.best_if_calls_cost(middle)
            if plan is None:
                low = middle
            else:
                plans.append(plan)
                high = middle
        return plans

    def _within_limits(self, plan: Plan) -> bool:
        limits = self.constraints
        if limits.max_partitions is not None and len(plan.partitions) > limits.max_partitions:
            return False
        if limits.max_duplicated_bytes is None:
            return True
        copied = duplicated_bytes(self.graph, plan.assignment)
        return copied <= limits.max_duplicated_bytes

    def _amounts(self, plan: Plan) -> str:
        copied = duplicated_bytes(self.graph, plan.assignment)
        return f"{len(plan.partitions)} partitions and {copied} bytes of copied constants"

    def _limits_text(self) -> str:
        limits = self.constraints
        parts = []
        if limits.max_partitions is not None:
            parts.append(f"max_partitions={limits.max_partitions}")
        if limits.max_duplicated_bytes is not None:
            parts.append(f"max_duplicated_bytes={limits.max_duplicated_bytes}")
        return " and ".join(parts)


def _by_cost(plan: Plan) -> tuple[float, int]:
    return (plan.total_ns, len(plan.partitions))


def _unknown_notes(graph: CostGraph, allowed: Sequence[Sequence[Option]]) -> list[str]:
    skipped = [
        (atom.id, graph.backends[option.backend].name)
        for atom, options in zip(graph.atoms, allowed, strict=True)
        for option in options
        if option.price is None
    ]
    if not skipped:
        return []
    atom, backend = skipped[0]
    return [
        f"{len(skipped)} choices were left out because their cost is unknown, the first being atom "
        f"{atom!r} on {backend!r}."
    ]


def _is_tie(graph: CostGraph, best: Plan, other: Plan) -> bool:
    """Whether two plans differ by no more than the spread of what they do differently."""
    spreads = []
    for index, atom in enumerate(graph.atoms):
        choices = [(plan.assignment[atom.id], plan.flows[atom.id]) for plan in (best, other)]
        if choices[0] != choices[1]:
            spreads += [_spread(graph, graph.options[index], choice) for choice in choices]
    return other.total_ns - best.total_ns <= math.hypot(*spreads)


def _spread(graph: CostGraph, options: Sequence[Option], choice: object) -> float:
    for option in options:
        if (graph.backends[option.backend].name, option.flow) == choice and option.price:
            return option.price.spread_ns
    return 0.0
