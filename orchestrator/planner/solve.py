"""One entry to all solvers."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from .bounds import lower_bound
from .calls import CallLedger, Calls
from .constraints import (
    Constraints,
    LimitLedger,
    allowed_options,
    duplicated_bytes,
    private_bytes,
)
from .cost_graph import CostGraph, Option
from .errors import ConstraintError
from .exact import Found, find_plan
from .floating import NearOrder, near_order
from .greedy import greedy
from .plan import Plan
from .pricing import price_plan
from .problem import Problem
from .ties import has_spreads, is_tie, levelled

Method = Literal["auto", "exact", "beam", "greedy"]

# "auto" is exact for as many states as this (seconds for a model; less for large graphs, which
# rather need a beam soon), and then a beam of the width.
_ROOM = 20_000
_ROOM_OF_LARGE = 8_000
_LARGE = 400
_WIDTH = 16
# In larger graphs, atoms that can run at almost any time are tried next to their users only.
_MOST_ATOMS_UNRESTRICTED = 64
# The parts of the costs' spreads within which they are taken as equal, one after the other.
_TIES = (1.0, 0.3)
# The states that may be looked at for each; a beam finds plans with few calls as well.
_ROOM_FOR_TIES = 4_000
# Of plans that cannot be told apart, one is lighter if it holds less memory by this part of it, and
# by so many bytes; and it is taken if it costs at most so much more. Estimates have wide spreads:
# memory is not worth the third of the speed that they leave open.
_LIGHTER = 0.1
_LEAST_BYTES = 1 << 20
_MOST_MORE = 0.03
_BISECTIONS = 8
# Searches that may meet calls that a backend refuses, before the best of what they found, taken
# apart, is the plan; "exact" has no such end.
_MOST_ROUNDS = 8
# How many times the states of a restricted search its relaxed one is expected to look at; it proves
# nothing if it finds no room for them.
_RELAXED = 1.5
# How much more than a lower bound a greedy plan may cost for no search to follow.
_CLOSE = 0.003
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

    Among equally cheap plans the one with the fewest partitions is taken. Among plans whose costs
    differ by less than the spread of what they do differently, it is one whose delegates hold less
    memory of their own (`private_bytes`), if it costs hardly more, or else the one with the fewest
    partitions. No call of the plan is one that a backend refuses (`Constraints.calls`).

    Raises InfeasibleAtomError or UnknownCostError naming an atom that nothing can run or price,
    ConstraintError naming constraints that contradict each other or leave no plan.
    """
    if method not in ("auto", "exact", "beam", "greedy"):
        raise ValueError(f"unknown method {method!r}; known: 'auto', 'exact', 'beam', 'greedy'.")
    asked = constraints or Constraints()
    if asked.calls is None:
        solver = Solver(graph, asked, method, room)
        return replace(solver.solve(), states=solver.states)
    return _with_allowed_calls(graph, asked, asked.calls, method, room)


def _with_allowed_calls(
    graph: CostGraph, constraints: Constraints, calls: Calls, method: Method, room: int | None
) -> Plan:
    """Solve until no call of the best plan is refused, or one taken apart is as good.

    A plan in which refused calls are left costs no more than the best one without: its bound holds.
    Every search keeps apart what those before it have met, so that there is an end to them.
    """
    states = 0
    best: Plan | None = None
    for number in itertools.count(1):
        solver = Solver(graph, constraints, method, room)
        found = solver.solve()
        states += solver.states
        apart = calls.taken_apart(graph, found)
        if solver.within_limits(apart) and (best is None or apart.total_ns < best.total_ns):
            best = apart
        if apart is found:
            if best is None or best.total_ns >= found.total_ns or is_tie(graph, best, found):
                best = found
            break
        bound = found.lower_bound_ns
        if best is not None and bound is not None and best.total_ns <= bound:
            break
        if method != "exact" and (number == _MOST_ROUNDS or states > _ROOM):
            break
        calls.learn(found)
    if best is None:
        raise ConstraintError(
            f"no plan that respects {solver.limits_text()} was found among those whose calls their "
            f"backends take: {next(iter(calls.apart.values()))}. Loosen the limits."
        )
    bound = found.lower_bound_ns
    if bound is not None:
        best = replace(best, lower_bound_ns=min(bound, best.total_ns))
    return replace(best.noting(*_reasons(graph, calls)), states=states)


class Solver:
    """Solves one graph under constraints, perhaps several times with other prices of calls."""

    def __init__(
        self, graph: CostGraph, constraints: Constraints, method: Method, room: int | None
    ) -> None:
        self.graph = graph
        self.constraints = constraints
        self.allowed = allowed_options(graph, constraints)
        self._apart = () if constraints.calls is None else tuple(constraints.calls.apart)
        self._method = method
        if method in ("exact", "greedy"):
            self._room = None
        elif method == "beam":
            self._room = 0
        else:
            default = _ROOM if len(graph.atoms) <= _LARGE else _ROOM_OF_LARGE
            self._room = default if room is None else room
        self._near = self._restriction()
        self.states = 0

    def solve(self) -> Plan:
        """The plan, with its bound and notes."""
        if self._method == "greedy":
            plan = self.greedy()
            self._check_limits(plan)
            return self._bounded(plan) if plan.cost.is_complete else plan
        close = self._close_baseline()
        if close is not None:
            return close
        problem = self._problem(near=self._near)
        found = self._find(problem)
        plan = self.plan(found)
        if not self.within_limits(plan):
            return self._limited(plan)
        plan = plan.noting(*_unknown_notes(problem))
        if found.dropped:
            return self._bounded(min((plan, *self._baselines), key=_by_cost))
        if self._near is not None:
            return self._best_tie(self._proved_by_relaxing(plan, found.states))
        return self._best_tie(_proved(plan))

    def _close_baseline(self) -> Plan | None:
        """Of a large graph, a greedy plan that a bound shows to be as good as the best, or nearly.

        Where one delegate takes all (an unrolled GRU), there is nothing to find, and many ways to
        look for it.
        """
        if self._method != "auto" or not _LARGE < len(self.graph.atoms) <= _MOST_ATOMS_TO_CUT:
            return None
        plan = min(self._baselines, key=_by_cost, default=None)
        if plan is None:
            return None
        bound = min(plan.total_ns, lower_bound(self.graph, self.allowed, use_cut=False))
        plan = replace(plan, lower_bound_ns=bound)
        if plan.gap is None or plan.gap > _CLOSE:
            return None
        return plan.noting(
            "No better plan was looked for: this one costs at most "
            f"{plan.gap:.2%} more than the best."
        )

    def _proved_by_relaxing(self, plan: Plan, states: int) -> Plan:
        """The best plan of the restricted search, with the bound that the relaxed one gives.

        states: that the restricted search looked at.
        """
        if self._room is not None and _RELAXED * states > self._room:
            return self._bounded(plan)
        relaxed = self._find(self._problem(near=self._near, relaxed=True))
        if relaxed.dropped:
            return self._bounded(plan)
        bound = min(plan.total_ns, relaxed.cost_ns)
        plan = replace(plan, lower_bound_ns=bound)
        if bound >= plan.total_ns:
            return plan
        return replace(plan, solver="restricted").noting(
            "Atoms that could run at almost any time were only tried next to their users or "
            f"makers; this plan costs at most {plan.gap or 0.0:.2%} more than the best."
        )

    def _restriction(self) -> NearOrder | None:
        """The order for a restricted search, None if the graph is small or has no use for one."""
        if self._method != "auto" or len(self.graph.atoms) <= _MOST_ATOMS_UNRESTRICTED:
            return None
        near = near_order(self.graph.order, self.graph.preds, self.graph.succs)
        return near if near.early or near.late else None

    def greedy(self, order: Sequence[str] | None = None) -> Plan:
        """The baseline under the constraints' pins and excludes, refused calls taken apart."""
        names = [backend.name for backend in self.graph.backends]
        allowed = {
            atom.id: {names[option.backend] for option in options}
            for atom, options in zip(self.graph.atoms, self.allowed, strict=True)
        }
        plan = greedy(self.graph, order, allowed=allowed)
        calls = self.constraints.calls
        return plan if calls is None else calls.taken_apart(self.graph, plan)

    def within_limits(self, plan: Plan) -> bool:
        """Whether a plan respects the limits on the whole."""
        limits = self.constraints
        if limits.max_partitions is not None and len(plan.partitions) > limits.max_partitions:
            return False
        return all(
            limit is None or count(self.graph, plan.assignment) <= limit
            for limit, count in (
                (limits.max_duplicated_bytes, duplicated_bytes),
                (limits.max_private_bytes, private_bytes),
            )
        )

    def plan(self, found: Found) -> Plan:
        """Price what a search has found."""
        assert found.segments is not None
        solver = "beam" if found.dropped else "exact"
        return price_plan(self.graph, found.segments, solver=solver, flows=found.flows)

    def with_call_price(self, extra_ns: float) -> Plan:
        """The best plan if every call cost more, at its true cost."""
        problem = self._problem(extra_call_ns=extra_ns, near=self._near)
        return self.plan(self._find(problem))

    def _problem(
        self,
        allowed: Sequence[Sequence[Option]] | None = None,
        *,
        extra_call_ns: float = 0.0,
        near: NearOrder | None = None,
        relaxed: bool = False,
        limited: bool = False,
    ) -> Problem:
        """A problem that keeps apart what is known to be refused, and heeds the limits if asked."""
        options = self.allowed if allowed is None else allowed
        problem = Problem(
            self.graph, options, extra_call_ns=extra_call_ns, near=near, relaxed=relaxed
        )
        if limited:
            problem.ledger = LimitLedger(self.graph, self.constraints, problem.atoms)
        if self._apart:
            problem.ledger = CallLedger(self.graph, self._apart, problem.atoms, problem.ledger)
        return problem

    def _find(self, problem: Problem) -> Found:
        return self._found(problem, self._room)

    def _found(self, problem: Problem, room: int | None) -> Found:
        found = find_plan(problem, room, _WIDTH)
        self.states += found.states
        return found

    @functools.cached_property
    def _baselines(self) -> list[Plan]:
        """Greedy plans, each delegate once as the first."""
        names = [backend.name for backend in self.graph.backends]
        delegates = [backend.name for backend in self.graph.backends if backend.is_delegate]
        plans = []
        for first in delegates or names[:1]:
            plan = self.greedy([first, *[name for name in names if name != first]])
            if plan.cost.is_complete and self.within_limits(plan):
                plans.append(plan)
        return plans

    def _bounded(self, plan: Plan) -> Plan:
        """The plan with a lower bound, and a note if it may not be the best one."""
        use_cut = len(self.graph.atoms) <= _MOST_ATOMS_TO_CUT
        bound = min(plan.total_ns, lower_bound(self.graph, self.allowed, use_cut=use_cut))
        plan = replace(plan, lower_bound_ns=bound)
        if self._method == "greedy":
            return plan
        return plan.noting(
            f"The graph was too large to look at every plan ({len(self.graph.atoms)} atoms); this "
            f"one costs at most {plan.gap or 0.0:.2%} more than the best."
        )

    def _best_tie(self, best: Plan) -> Plan:
        """Of the plans that cannot be told from the best one, one that is better otherwise."""
        if not has_spreads(self.allowed):
            return best
        return self._lightest(best) or self._fewest_calls(best)

    def _lightest(self, best: Plan) -> Plan | None:
        """A plan that holds less memory than the best one, if that cannot be told from it."""
        held = private_bytes(self.graph, best.assignment)
        bound = held - max(_LIGHTER * held, _LEAST_BYTES)
        sizes = [self._held(index) for index in range(len(self.graph.atoms))]
        if sum(min(row) for row in sizes) > bound:
            return None
        room = None if self._room is None else min(self._room, _ROOM_FOR_TIES)
        for part in _TIES:
            problem = self._problem(levelled(self.allowed, part, sizes), near=self._near)
            plan = self.plan(self._found(problem, room))
            is_light = private_bytes(self.graph, plan.assignment) <= bound
            if not is_light or plan.total_ns > (1 + _MOST_MORE) * best.total_ns:
                continue
            if self.within_limits(plan) and is_tie(self.graph, best, plan):
                return _lighter(self.graph, plan, best)
        return None

    def _held(self, index: int) -> list[int]:
        """What each option of an atom holds in private memory, for this atom alone."""
        atom, backends = self.graph.atoms[index], self.graph.backends
        return [backends[option.backend].held_for(atom) for option in self.allowed[index]]

    def _fewest_calls(self, best: Plan) -> Plan:
        """Of the plans that cannot be told from the best one, one with the fewest partitions."""
        if len(best.partitions) < 2:
            return best
        room = None if self._room is None else min(self._room, _ROOM_FOR_TIES)
        for part in _TIES:
            problem = self._problem(levelled(self.allowed, part), near=self._near)
            plan = self.plan(self._found(problem, room))
            if len(plan.partitions) >= len(best.partitions):
                break
            if self.within_limits(plan) and is_tie(self.graph, best, plan):
                return _instead(plan, best)
        return best

    def _check_limits(self, plan: Plan) -> None:
        if not self.within_limits(plan):
            raise ConstraintError(
                f"the greedy plan has {self._counts_text(plan)}, more than {self.limits_text()}; "
                "use another method."
            )

    def limits_text(self) -> str:
        """Name the limits on the whole and their values."""
        names = ("max_partitions", "max_duplicated_bytes", "max_private_bytes")
        limits = {name: getattr(self.constraints, name) for name in names}
        return " and ".join(
            f"{name}={value}" for name, value in limits.items() if value is not None
        )

    def _counts_text(self, plan: Plan) -> str:
        return (
            f"{len(plan.partitions)} partitions, copies "
            f"{duplicated_bytes(self.graph, plan.assignment)} bytes and holds "
            f"{private_bytes(self.graph, plan.assignment)} privately"
        )

    def _limited(self, free: Plan) -> Plan:
        """The best plan within the limits, which the best plan without them exceeds."""
        problem = self._problem(limited=True)
        found = self._find(problem)
        if found.segments is not None and not found.dropped:
            return _proved(self.plan(found).noting(*_unknown_notes(problem)))
        if found.segments is None and not found.dropped:
            raise ConstraintError(
                f"no plan respects {self.limits_text()}; the best one without has "
                f"{self._counts_text(free)}."
            )
        plans = [*self._baselines, *self._by_call_prices()]
        if found.segments is not None:
            plans.append(self.plan(found))
        if not plans:
            raise ConstraintError(
                f"no plan that respects {self.limits_text()} was found; there may be one, but the "
                "graph is too large to look at every plan. Loosen the limits."
            )
        return self._bounded(min(plans, key=_by_cost).noting(*_unknown_notes(problem)))

    def _by_call_prices(self) -> list[Plan]:
        """Plans within the limit on partitions, from raising the price of a call until they are."""
        if self.constraints.max_partitions is None:
            return []
        plans = []
        low, high = (
            0.0,
            sum(
                max((option.price.ns for option in options if option.price), default=0.0)
                for options in self.allowed
            ),
        )
        for _ in range(_BISECTIONS):
            middle = math.sqrt(max(low, 1.0) * high) if high > 1.0 else high / 2
            plan = self.with_call_price(middle)
            if self.within_limits(plan):
                plans.append(plan)
                if len(plan.partitions) == self.constraints.max_partitions:
                    break  # a lower price of calls would only bring more of them
                high = middle
            else:
                low = middle
        return plans


def _by_cost(plan: Plan) -> tuple[float, int]:
    return (plan.total_ns, len(plan.partitions))


def _instead(plan: Plan, best: Plan) -> Plan:
    more = plan.total_ns - best.total_ns
    found = replace(plan, solver=best.solver, lower_bound_ns=best.lower_bound_ns, notes=best.notes)
    count = len(plan.partitions)
    partitions = "partition" if count == 1 else "partitions"
    return found.noting(
        f"{count} {partitions} instead of {len(best.partitions)}: the difference of "
        f"{more / 1e6:.2g} ms is within the spread of the costs."
    )


def _lighter(graph: CostGraph, plan: Plan, best: Plan) -> Plan:
    more = plan.total_ns - best.total_ns
    found = replace(plan, solver=best.solver, lower_bound_ns=best.lower_bound_ns, notes=best.notes)
    sizes = (private_bytes(graph, each.assignment) / 1e6 for each in (plan, best))
    return found.noting(
        "{:.1f} MB of private memory instead of {:.1f}: the difference of {:.2g} ms is within the "
        "spread of the costs.".format(*sizes, more / 1e6)
    )


def _proved(plan: Plan) -> Plan:
    return replace(plan, lower_bound_ns=plan.total_ns)


def _unknown_notes(problem: Problem) -> list[str]:
    if not problem.skipped_unknown:
        return []
    (atom, backend), *others = problem.skipped_unknown
    more = f", and {len(others)} more" if others else ""
    return [f"Left out because its cost is unknown: {atom!r} on {backend!r}{more}."]


def _reasons(graph: CostGraph, calls: Calls) -> list[str]:
    """Say what is kept apart, and why: of each backend and reason one example."""
    examples: dict[tuple[str, str], list[str]] = {}
    for (backend, atoms), reason in calls.apart.items():
        names = sorted(atoms, key=lambda atom: graph.order.index(graph.atom_index[atom]))
        examples.setdefault((backend, reason), names)
    return [
        f"Not in one call of {backend}: {', '.join(names)} ({reason})."
        for (backend, reason), names in examples.items()
    ]
