"""How well a plan does at other sizes than those it was made for.

A program with dynamic sizes has one plan, for the sizes of its example inputs. At its smallest and
largest sizes another plan may be better; by how much is what this tells. Times there are those of
the expected sizes, scaled as the analytic model scales.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.export import ExportedProgram

from orchestrator.backends.candidates import Candidates
from orchestrator.cost.model import AnalyticCosts
from orchestrator.graph.queries import ImpossibleSizesError, nbytes, sizes_expected_at
from orchestrator.planner import (
    Constraints,
    CostGraph,
    Flow,
    Plan,
    Price,
    Transfer,
    price_plan,
    solve,
)

# Where the user gave no upper bound, or a very large one: times the expected size.
_MOST_TIMES = 8


@dataclass(frozen=True)
class Regret:
    """At some sizes, what the plan costs, and what the best plan there does, in ns.

    sizes: by symbol, as the exported program names them.
    """

    sizes: Mapping[str, int]
    plan_ns: float
    best_ns: float

    @property
    def part(self) -> float:
        """How much more the plan costs, as a part of the best one."""
        return self.plan_ns / self.best_ns - 1 if self.best_ns > 0 else 0.0

    def __str__(self) -> str:
        """Say it in a sentence."""
        sizes = ", ".join(f"{name}={value}" for name, value in self.sizes.items())
        return (
            f"At {sizes} the plan is predicted to take {self.plan_ns / 1e3:.1f} us, "
            f"{self.part:.1%} more than the best one there."
        )


def find_regrets(
    ep: ExportedProgram,
    candidates: Candidates,
    graph: CostGraph,
    constraints: Constraints,
    plan: Plan,
    estimated: AnalyticCosts,
) -> list[Regret]:
    """Compare a plan with the best ones at the smallest and at the largest sizes.

    Empty for programs with static sizes, and where costs are unknown. Left out are sizes that the
    model cannot have, such as a number of elements that no whole number of rows has.
    """
    if not plan.cost.is_complete:
        return []
    found = []
    for point in _points(ep):
        with contextlib.suppress(ImpossibleSizesError):
            found.append(_regret(candidates, graph, constraints, plan, estimated, ep, point))
    return found


def _points(ep: ExportedProgram) -> Iterator[dict[Any, int]]:
    """Yield values by symbol: all at their least, and all at their most."""
    expected = _expected_values(ep)
    if not expected:
        return
    least, most = {}, {}
    for symbol, value in expected.items():
        bounds = ep.range_constraints.get(symbol)
        low = 1 if bounds is None else _bound(bounds.lower, 1)
        high = _MOST_TIMES * value
        if bounds is not None:
            high = min(_bound(bounds.upper, high), high)
        least[symbol], most[symbol] = max(low, 1), high
    for point in (least, most):
        if point != expected:
            yield point


def _bound(value: Any, otherwise: int) -> int:
    try:
        return int(value)
    except (OverflowError, TypeError, AttributeError):  # one of torch's or sympy's infinities
        return otherwise


def _expected_values(ep: ExportedProgram) -> dict[Any, int]:
    """The values of the symbols in the example inputs."""
    found: dict[Any, int] = {}
    for node in ep.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, torch.Tensor):
            for size in value.shape:
                if isinstance(size, torch.SymInt) and size.node.expr.is_symbol:
                    hint = size.node.hint
                    if hint is not None:
                        found[size.node.expr] = int(hint)
    return found


def _regret(
    candidates: Candidates,
    graph: CostGraph,
    constraints: Constraints,
    plan: Plan,
    estimated: AnalyticCosts,
    ep: ExportedProgram,
    point: Mapping[Any, int],
) -> Regret:
    there = _scaled(candidates, graph, estimated, ep, point)
    ours = price_plan(there, plan.segments, solver=plan.solver, flows=plan.flows)
    best = solve(there, constraints)
    sizes = {str(symbol): value for symbol, value in point.items()}
    return Regret(sizes, ours.total_ns, min(best.total_ns, ours.total_ns))


def _scaled(
    candidates: Candidates,
    graph: CostGraph,
    estimated: AnalyticCosts,
    ep: ExportedProgram,
    point: Mapping[Any, int],
) -> CostGraph:
    """The graph at other sizes."""
    nodes = {atom.id: atom.nodes for atom in candidates.atoms}
    atoms = []
    for index, atom in enumerate(graph.atoms):
        costs: dict[str, dict[Flow, Price]] = {}
        for option in graph.options[index]:
            if option.price is not None:
                name = graph.backends[option.backend].name
                here = estimated.estimate_ns(nodes[atom.id], name)
                with sizes_expected_at(point):
                    there = estimated.estimate_ns(nodes[atom.id], name)
                factor = there / here if here else 1.0
                price = option.price.times(factor)
                costs.setdefault(name, {})[option.flow] = price
        atoms.append(replace(atom, costs=costs))
    values = {node.name: node for node in ep.graph.nodes}
    tensors = []
    for tensor in graph.tensors:
        with sizes_expected_at(point):
            size = nbytes(values[tensor.id])
        factor = size / tensor.nbytes if tensor.nbytes else 1.0
        transfers = {
            name: Transfer(convert_ns=factor * transfer.convert_ns)
            for name, transfer in tensor.transfers.items()
        }
        tensors.append(replace(tensor, nbytes=size, transfers=transfers))
    return CostGraph(graph.backends, atoms, tensors, graph.constants)
