"""Closing the loop: times of ops do not add up exactly, so the best few plans are timed.

The cheapest plans by the cost model, every backend alone and every greedy plan are lowered and
timed in turn; the fastest is kept, and remembered in the cost table, so that lowering the same
model again with tune="cached" takes it at once. A program is therefore never slower than the best
single backend, as far as this machine can tell.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch.export import ExportedProgram

from orchestrator.backends import Backend
from orchestrator.cost.environment import host, versions_for_plans
from orchestrator.cost.source import is_rates, open_table
from orchestrator.cost.table import CostTableError
from orchestrator.dim_orders.as_given import choose_orders
from orchestrator.options import HOST, PlanOptions
from orchestrator.planning.choice import Choice
from orchestrator.planning.make_plan import Planned
from orchestrator.program import LoweredProgram
from orchestrator.tuning.program_factors import ProgramFactors
from orchestrator.tuning.remembered import program_digest, recall_choice
from orchestrator.tuning.timed_plans import TimedPlans


@dataclass(frozen=True)
class Made:
    """A lowered program with the planning behind each of its methods.

    manager: ExecuTorch's own result, an ExecutorchProgramManager.
    """

    program: LoweredProgram
    planned: Mapping[str, Planned]
    manager: Any


class Maker(Protocol):
    """Lowers the same programs again and again."""

    def make(
        self,
        choices: Mapping[str, Choice],
        timed: Mapping[str, TimedPlans],
        factors: Mapping[str, ProgramFactors] | None = None,
    ) -> Made:
        """Lower, given what was decided about each method, and the times for the report.

        factors: by method, what the timed programs have shown, for the report's advice.
        """

    def plan(self, choices: Mapping[str, Choice]) -> Mapping[str, Planned]:
        """Plan only."""


def make_tuned(
    programs: Mapping[str, ExportedProgram],
    backends: Sequence[Backend],
    options: PlanOptions,
    maker: Maker,
) -> Made:
    """Lower with the plan that is known to be fastest, or find it out if the options say so.

    programs: by method name.
    """
    if options.strategy == "greedy" or options.tune == "off" or not backends:
        return maker.make(choose_orders(programs, backends, options), {})
    choices, timed = _recalled(programs, backends, options)
    if options.tune == "measure" and not choices.keys() >= programs.keys():
        from orchestrator.tuning.search import Search

        with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
            return Search(programs, backends, options, maker, Path(folder)).run()
    orders = choose_orders(
        {name: each for name, each in programs.items() if name not in choices}, backends, options
    )
    return maker.make({**orders, **choices}, timed)


def _recalled(
    programs: Mapping[str, ExportedProgram], backends: Sequence[Backend], options: PlanOptions
) -> tuple[dict[str, Choice], dict[str, TimedPlans]]:
    """Return what earlier tuning on this machine found for these very programs."""
    choices: dict[str, Choice] = {}
    timed: dict[str, TimedPlans] = {}
    try:
        table = open_table(options) if options.target == HOST and not is_rates(options) else None
    except CostTableError:  # reported where costs are looked up
        table = None
    if table is None:
        return choices, timed
    environment = host(options.thread_count).running(versions_for_plans(backends))
    for name, program in programs.items():
        digest = program_digest(program, [backend.name for backend in backends], options)
        recalled = recall_choice(table, environment, digest)
        if recalled is not None:
            choices[name], timed[name] = recalled
    return choices, timed
