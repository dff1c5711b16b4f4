"""From what backends offer to a plan: prices, constraints, solver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends import Backend
from orchestrator.backends.candidates import Candidates
from orchestrator.backends.patterns import plan_constraints
from orchestrator.backends.portable import NAME as KERNELS
from orchestrator.cost.model import AnalyticCosts, estimates_of
from orchestrator.cost.source import find_costs
from orchestrator.options import PlanOptions
from orchestrator.planner import (
    Calls,
    Constraints,
    CostGraph,
    Exclude,
    Plan,
    price_plan,
    solve,
    split_into_segments,
)
from orchestrator.planning.choice import Choice
from orchestrator.planning.greedy_split import split_by_capability
from orchestrator.planning.pricing_graph import cost_graph
from orchestrator.planning.regret import find_regrets

Solver = Callable[[CostGraph], Plan]


@dataclass(frozen=True)
class Planned:
    """A plan with the priced graph that it solves, and the user's constraints on it.

    interrupted: the user stopped the measuring that was to come before it. composites: the ops
        that were preserved, or would have been, each with the delegates that want it so.
    """

    plan: Plan
    graph: CostGraph
    constraints: Constraints
    interrupted: bool = False
    composites: Mapping[str, frozenset[str]] = field(default_factory=dict)


def make_plan(
    ep: ExportedProgram,
    candidates: Candidates,
    backends: Sequence[Backend],
    options: PlanOptions,
    choice: Choice,
    solver: Solver | None = None,
    known_ns: Mapping[Node, float] | None = None,
    more: Callable[[CostGraph, Constraints], tuple[Exclude, ...]] | None = None,
) -> Planned:
    """Plan one edge-dialect program.

    solver: makes the plan instead; neither the cheapest one nor its regrets are then looked for.
    known_ns: of nodes whose time is known: of conds, what their costlier branch takes.
    more: given the graph and the user's constraints, what else a plan by cost is to respect.

    Raises:
        ConstraintError, OptionError: constraints that contradict each other or match nothing.
        CostTableError: the cost table that was asked for cannot be used.
        TargetError: there are no costs of the target.
    """
    names = [backend.name for backend in backends]
    found = find_costs(ep, candidates, backends, options, choice.only, known_ns)
    graph = cost_graph(ep, candidates, backends, found.model)
    calls = _calls(candidates, backends)
    asked = replace(plan_constraints(candidates, options, names), calls=calls)
    if solver is not None:
        plan = calls.taken_apart(graph, solver(graph))
        return Planned(plan.noting(*found.notes()), graph, asked, found.interrupted)
    constraints = asked
    if more is not None and choice == Choice() and options.strategy == "cost":
        constraints = replace(asked, excludes=(*asked.excludes, *more(graph, asked)))
    if choice.only is not None:
        constraints = _restricted(graph, asked, choice.only)
    plan = _plan_within(graph, constraints, calls, options, choice)
    estimated = AnalyticCosts(estimates_of(backends), options.thread_count, known_ns or {})
    regrets = find_regrets(ep, candidates, graph, constraints, plan, estimated)
    plan = plan.noting(*found.notes(), *map(str, regrets))
    return Planned(plan, graph, asked, found.interrupted)


def _calls(candidates: Candidates, backends: Sequence[Backend]) -> Calls:
    """Ask the backends which atoms can be in one call."""
    by_name = {backend.name: backend for backend in backends}

    def refusal(backend: str, atoms: Sequence[str]) -> str | None:
        return by_name[backend].check_segment(list(candidates.nodes(atoms)))

    return Calls(refusal)


def _plan_within(
    graph: CostGraph, constraints: Constraints, calls: Calls, options: PlanOptions, choice: Choice
) -> Plan:
    """Make a plan within constraints, as the options and the choice say."""
    if choice.assignment is not None and set(choice.assignment) == set(graph.atom_index):
        segments = split_into_segments(graph, choice.assignment)
        return calls.taken_apart(graph, price_plan(graph, segments, solver=choice.name))
    if options.strategy == "greedy" or choice.order is not None:
        return split_by_capability(graph, constraints, choice.order)
    return solve(graph, constraints)


def _restricted(graph: CostGraph, constraints: Constraints, only: Sequence[str]) -> Constraints:
    """Keep atoms off other delegates than these, where something else can run them."""
    left_out = [
        backend.name
        for backend in graph.backends
        if backend.is_delegate and backend.name not in only
    ]
    usable = {*only, KERNELS}
    atoms = tuple(
        atom.id
        for atom in graph.atoms
        if any(graph.capable(atom.id, name) for name in usable & graph.backend_index.keys())
    )
    if not left_out or not atoms:
        return constraints
    exclude = Exclude(f"all but {', '.join(only)}", atoms, tuple(left_out))
    return replace(constraints, excludes=(*constraints.excludes, exclude))
