"""Plans that tuning found to be the fastest, in the cost table beside the costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch
from torch.export import ExportedProgram

from orchestrator.cost.environment import Environment
from orchestrator.cost.table import CostTable
from orchestrator.options import PlanOptions
from orchestrator.planning.choice import Choice
from orchestrator.tuning.timed_plans import TimedPlans


def program_digest(program: ExportedProgram, backends: Sequence[str], options: PlanOptions) -> str:
    """Return what a plan depends on, the environment apart: the graph, backends and constraints.

    Weights' values do not count, their sizes do.
    """
    lines = []
    for node in program.graph.nodes:
        value = node.meta.get("val")
        values = value if isinstance(value, (tuple, list)) else [value]
        sizes = [
            f"{item.dtype}{list(item.shape)}{item.dim_order()}"
            if isinstance(item, torch.Tensor)
            else type(item).__name__
            for item in values
        ]
        lines.append(f"{node.op} {node.name} {node.target} {node.args} {node.kwargs} {sizes}")
    asked = {
        "backends": list(backends),
        "pins": sorted(options.pins.items()),
        "exclude": sorted(options.excluded(backends).items()),
        "weight_error": options.weight_error,
        "tolerance": options.tolerance,
        "limits": [
            options.max_partitions,
            options.max_duplicated_bytes,
            options.max_private_bytes,
        ],
    }
    return hashlib.sha256("\n".join([*lines, json.dumps(asked)]).encode()).hexdigest()


def remember_choice(
    table: CostTable, environment: Environment, digest: str, choice: Choice, timed: TimedPlans
) -> None:
    """Store what was found to be the fastest for a program, and the times it was found by."""
    data = {
        "name": choice.name,
        "only": choice.only,
        "order": choice.order,
        "assignment": None if choice.assignment is None else dict(choice.assignment),
        "decomposed": sorted(choice.decomposed),
        "kind": choice.kind,
        "contiguous": choice.contiguous,
        "timed_plans": timed.to_data(),
    }
    table.put_plan(environment, digest, json.dumps(data))


def recall_choice(
    table: CostTable, environment: Environment, digest: str
) -> tuple[Choice, TimedPlans] | None:
    """Return what was stored, or None."""
    text = table.get_plan(environment, digest)
    if text is None:
        return None
    data = json.loads(text)
    choice = Choice(
        data["name"],
        None if data["only"] is None else tuple(data["only"]),
        None if data["order"] is None else tuple(data["order"]),
        data["assignment"],
        frozenset(data["decomposed"]),
        data.get("kind", "cost"),
        data.get("contiguous", False),
    )
    return choice, TimedPlans.from_data(data["timed_plans"])
