"""Prices from a table that lacks some: conversions, and what estimates are scaled by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from orchestrator.backends import resolve_backends
from orchestrator.backends.candidates import Atom, Candidates, collect_candidates
from orchestrator.backends.portable import NAME as KERNELS
from orchestrator.cost.calibration import Calibration
from orchestrator.cost.environment import Environment
from orchestrator.cost.keys import AtomKeys
from orchestrator.cost.measured import MeasuredCosts
from orchestrator.cost.model import AnalyticCosts, estimates_of
from orchestrator.cost.table import CostTable, Measurement
from orchestrator.dry_run import edge_program
from orchestrator.frontend.export import as_programs
from orchestrator.graph.layouts import image_nodes, layouts_of
from orchestrator.options import PlanOptions
from orchestrator.planner import Flow, Layout, Price

HERE = Environment("host", "a cpu", 1, "1.0")
NAMES = ("ggml", "xnnpack")
TO_LAST = Flow(Layout.CONTIGUOUS, Layout.CHANNELS_LAST)
TO_CONTIGUOUS = Flow(Layout.CHANNELS_LAST, Layout.CONTIGUOUS)
CALLS = Calibration(dict.fromkeys(NAMES, 2_000.0))
ESTIMATED = AnalyticCosts(estimates_of(resolve_backends(NAMES)), 1)


class _Model(nn.Module):
    """Conversions of images around two convolutions, and tiny additions."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layers(x), y + y + 1.0


class _Program:
    """The model's atoms, and their prices given times of some, in ns, by atom and backend."""

    def __init__(self) -> None:
        model, inputs = _Model().eval(), (torch.ones(1, 3, 64, 64), torch.ones(4))
        (exported,) = as_programs(model, inputs).values()
        self._backends = resolve_backends(NAMES)
        self._ep = edge_program(exported, self._backends, PlanOptions())
        self._candidates: Candidates = collect_candidates(self._ep, self._backends)
        self.atoms: Mapping[str, Atom] = {atom.id: atom for atom in self._candidates.atoms}
        self.keys = AtomKeys(self._ep, self._candidates)

    def atom(self, part: str) -> Atom:
        """The first atom with this in its name."""
        return next(atom for name, atom in self.atoms.items() if part in name)

    def prices(self, folder: Path, times: Mapping[tuple[str, str], float]) -> MeasuredCosts:
        table = CostTable(folder / "costs.sqlite")
        for (name, backend), ns in times.items():
            atom = self.atoms[name]
            for layout in self.keys.layouts(atom):
                measured = Measurement(ns, 0.0, 5)
                table.put(HERE, backend, {self.keys.key(atom, layout): measured})
        environments = dict.fromkeys((*NAMES, KERNELS), HERE)
        return MeasuredCosts(self.keys, table, environments, CALLS, ESTIMATED)

    def price(self, costs: MeasuredCosts, atom: Atom, backend: str) -> float:
        """The cheapest price."""
        found = costs.atom(atom, backend, layouts_of(atom.nodes, image_nodes(self._ep)))
        prices = found.values() if isinstance(found, Mapping) else [found]
        return min(each.ns for each in prices if isinstance(each, Price))


@pytest.fixture(scope="module")
def program() -> _Program:
    return _Program()


@pytest.mark.parametrize(("ending", "flow"), [("_last", TO_LAST), ("_contiguous", TO_CONTIGUOUS)])
def test_a_conversion_is_measured_from_the_order_that_it_changes(
    program: _Program, ending: str, flow: Flow, tmp_path: Path
) -> None:
    atom = program.atom(ending)
    assert program.keys.layouts(atom) == (flow.reads,)
    costs = program.prices(tmp_path, {(atom.id, "ggml"): 30e3})
    measured = costs.atom(atom, "ggml", (flow.reads,))
    assert isinstance(measured, Mapping) and list(measured) == [flow]
    assert program.price(costs, atom, "ggml") == 30e3
    estimate = costs.atom(atom, "xnnpack", (flow.reads,))
    assert isinstance(estimate, Mapping) and list(estimate) == [flow]
    tasks = program.keys.tasks(resolve_backends(NAMES), 1)
    wanted = {task.backend_name for task in tasks if task.key == program.keys.key(atom, flow.reads)}
    assert wanted >= set(NAMES)


def test_kernels_that_were_ruled_out_by_estimates_stay_ruled_out(
    program: _Program, tmp_path: Path
) -> None:
    conversion = program.atom("_last")
    times = {(conversion.id, backend): 20e3 for backend in NAMES}
    # Ops that take next to nothing say nothing about those that do.
    small = [name for name in program.atoms if "add" in name]
    times |= {(name, backend): 0.0 for name in small for backend in NAMES}
    costs = program.prices(tmp_path, times)
    ratio = ESTIMATED.estimate_ns(conversion.nodes, "portable") / ESTIMATED.estimate_ns(
        conversion.nodes, "ggml"
    )
    assert ratio > 4
    kernel = program.price(costs, conversion, "portable")
    assert kernel == pytest.approx(ratio * 20e3, rel=0.02)


def test_large_ops_tell_more_of_a_backend_than_small_ones(
    program: _Program, tmp_path: Path
) -> None:
    conversion = program.atom("_last")
    small = {(name, "ggml"): 40e3 for name in program.atoms if "add" in name}
    costs = program.prices(tmp_path, {**small, (program.atom("_contiguous").id, "ggml"): 9e3})
    large = program.atom("_contiguous")
    scale = 9e3 / ESTIMATED.estimate_ns(large.nodes, "ggml")
    expected = scale * ESTIMATED.estimate_ns(conversion.nodes, "ggml")
    assert program.price(costs, conversion, "ggml") == pytest.approx(expected)
