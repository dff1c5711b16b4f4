"""Planning by cost through lower(): where costs come from, what is measured and remembered."""

from __future__ import annotations

import multiprocessing
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from orchestrator import LoweredProgram, lower
from orchestrator.cost import measure as measure_module
from orchestrator.cost.source import TargetError
from orchestrator.cost.table import CostTableError
from orchestrator.native import NativeProgram
from orchestrator.options import OptionError, PlanOptions, TuneEvent
from orchestrator.planner import ConstraintError, Plan
from orchestrator.planning.choice import Choice
from orchestrator.tuning.search import Search
from orchestrator.tuning.timing import LoweredPlan, fastest
from tests.harness.compare import assert_close_to_eager

X = torch.linspace(-1.0, 1.0, 3 * 12 * 12).reshape(1, 3, 12, 12)


class Net(nn.Module):
    """What both backends take, with a mean that ggml leaves to others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.GELU(), nn.Conv2d(8, 16, 1))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(torch.relu(self.stem(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("costs") / "costs.sqlite"


@pytest.fixture(scope="module")
def events() -> list[TuneEvent]:
    return []


@pytest.fixture(scope="module")
def tuned(net: nn.Module, table: Path, events: list[TuneEvent]) -> LoweredProgram:
    return lower(net, (X,), tune="measure", threads=1, cost_table=table, progress=events.append)


@pytest.fixture
def measured(table: Path, tuned: LoweredProgram, tmp_path: Path) -> Path:
    """A copy of a table with all costs of the net, in which no plan was timed."""
    path = tmp_path / "measured.sqlite"
    # Closed, it is one file: until then, what was deleted is so in the log beside it alone.
    with closing(sqlite3.connect(table)) as source, closing(sqlite3.connect(path)) as copy:
        source.backup(copy)
        copy.execute("DELETE FROM plans")
        copy.commit()
    return path


def _tune_and_run(path: Path) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    program = lower(net, (X,), tune="measure", threads=1, cost_table=path)
    assert_close_to_eager(program, net, (X,), other_inputs=(X.cos(),), tolerance=1e-5)


def test_two_processes_calibrate_and_lower_on_one_table(net: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "costs.sqlite"
    context = multiprocessing.get_context("forkserver")  # which imports what both need once
    context.set_forkserver_preload([__name__])
    workers = [context.Process(target=_tune_and_run, args=(path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    # What both have stored is enough to lower without measuring again.
    seen: list[TuneEvent] = []
    lower(net, (X,), tune="measure", threads=1, cost_table=path, progress=seen.append)
    assert not [event for event in seen if event.total > 0]


def _candidate(calls: int, repeats_ns: list[list[int]]) -> Any:
    plan = SimpleNamespace(partitions=[None] * calls)
    return LoweredPlan(Choice(f"{calls}"), cast("Plan", plan), Path(), 1, {}, [], repeats_ns)


class TestChoosing:
    """What is kept of plans that were run next to each other."""

    RUNS = 10
    NOISE = (97, 100, 104, 101, 99)

    def _repeats(self, *scales: float) -> list[list[int]]:
        return [
            [round(1e4 * scale * self.NOISE[run % 5]) for run in range(self.RUNS)]
            for scale in scales
        ]

    def test_a_difference_within_chance_goes_to_fewer_calls(self) -> None:
        few = _candidate(1, self._repeats(1.03, 0.99, 1.03, 0.99, 1.03, 0.99, 1.03, 1.01))
        many = _candidate(9, self._repeats(*[1] * 8))
        assert fastest([many, few]) is few

    def test_what_one_repeat_shows_may_be_chance(self) -> None:
        few, many = _candidate(1, self._repeats(1.025)), _candidate(9, self._repeats(1.0))
        assert fastest([many, few]) is few

    def test_a_small_difference_in_every_repeat_goes_to_the_faster(self) -> None:
        few = _candidate(1, self._repeats(1.010, 1.011, 1.009, 1.010, 1.012, 1.008, 1.011, 1.010))
        many = _candidate(9, self._repeats(*[1] * 8))
        assert fastest([few, many]) is many

    def test_a_large_difference_is_never_chance(self) -> None:
        few = _candidate(1, self._repeats(1.3, 0.8, 1.3, 0.8, 1.3, 0.8, 1.3, 1.3))
        many = _candidate(9, self._repeats(1.0, 0.7, 1.0, 0.7, 1.0, 0.7, 1.0, 1.0))
        assert fastest([few, many]) is many

    def test_repeats_that_something_slowed_down_do_not_count(self) -> None:
        """When the processor is shared, the one that is slower by itself wins."""
        few = _candidate(1, self._repeats(1.06, 1.5, 1.5, 1.06, 1.05, 1.5, 1.06, 1.5))
        many = _candidate(9, self._repeats(1.0, 1.7, 1.7, 1.0, 1.0, 1.7, 1.0, 1.7))
        assert fastest([few, many]) is many

    def test_what_was_not_close_is_out(self) -> None:
        far, near = _candidate(1, self._repeats(0.9)), _candidate(9, self._repeats(*[1] * 8))
        assert fastest([far, near]) is near


def _assignment(program: LoweredProgram) -> Mapping[str, str]:
    return program.plan["forward"].assignment


class TestMeasuring:
    def test_the_tuned_program_equals_eager(self, net: nn.Module, tuned: LoweredProgram) -> None:
        assert_close_to_eager(tuned, net, (X,), other_inputs=(X.cos(),), tolerance=1e-5)

    def test_every_backend_alone_was_timed(self, tuned: LoweredProgram) -> None:
        assert {"ggml alone", "xnnpack alone"} <= _timed_names(tuned)

    def test_the_fastest_is_kept(
        self, net: nn.Module, measured: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def time(self: NativeProgram, *arguments: Any, runs: int, **options: Any) -> list[int]:
            """By the number of the plan's file, so that the third one is the fastest."""
            plan = re.search(r"(\d+)\.pte$", repr(self).split(",")[0].rstrip("'\""))
            return [1_000_000 * (1 + abs(int(plan[1]) - 3)) if plan else 10_000] * runs

        monkeypatch.setattr(NativeProgram, "time", time)
        program = lower(net, (X,), tune="measure", threads=1, cost_table=measured)
        plan = program.report.methods[0].plan
        assert plan is not None
        assert plan.measured_ns == 1_000_000
        times = [each.measured_ns for each in plan.alternatives if each.measured_ns is not None]
        assert len(times) > 1
        assert all(plan.measured_ns <= 1.005 * ns for ns in times)

    def test_progress_tells_the_stages_up_to_their_end(
        self, tuned: LoweredProgram, events: list[TuneEvent]
    ) -> None:
        assert {event.stage for event in events} == {"timing ops", "timing plans"}
        assert events[-1].done == events[-1].total

    def test_a_second_time_nothing_is_measured_and_the_same_plan_comes_out(
        self, net: nn.Module, table: Path, tuned: LoweredProgram, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: Any, **keywords: Any) -> None:
            raise AssertionError("something was timed")

        monkeypatch.setattr(NativeProgram, "time", refuse)
        again = lower(net, (X,), tune="cached", threads=1, cost_table=table)
        assert _assignment(again) == _assignment(tuned)

    def test_what_was_tuned_for_other_pins_or_threads_is_not_taken(
        self, net: nn.Module, table: Path, tuned: LoweredProgram
    ) -> None:
        pinned = lower(net, (X,), threads=1, cost_table=table, pins={"head": "ggml"})
        assert _assignment(pinned)["aten_linear_default"] == "ggml"
        other = lower(net, (X,), threads=2, cost_table=table)
        assert any("estimated" in note or "0 of" in note for note in other.plan["forward"].notes)

    def test_a_budget_that_is_too_small_is_said_and_the_program_runs(
        self, net: nn.Module, tmp_path: Path
    ) -> None:
        program = lower(
            net, (X,), tune="measure", threads=1, cost_table=tmp_path / "c.sqlite", budget_s=1e-9
        )
        assert any("budget of 1e-09 s is used up" in n for n in program.plan["forward"].notes)
        torch.testing.assert_close(program(X), net(X), atol=1e-4, rtol=1e-4)

    def test_an_interrupt_keeps_what_was_measured(
        self, net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(measure_module, "_BATCH", 4)

        def interrupt(event: TuneEvent) -> None:
            if event.stage == "timing ops" and event.done >= 4:
                raise KeyboardInterrupt

        path = tmp_path / "costs.sqlite"
        program = lower(net, (X,), tune="measure", threads=1, cost_table=path, progress=interrupt)
        assert any("interrupted" in note for note in program.plan["forward"].notes)
        with sqlite3.connect(path) as connection:
            (rows,) = connection.execute("SELECT count(*) FROM costs").fetchone()
        assert rows >= 4


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(1, 5, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        return nn.functional.scaled_dot_product_attention(q, k, v)


def _timed_names(program: LoweredProgram) -> set[str]:
    plan = program.report.methods[0].plan
    assert plan is not None
    chosen = next(note for note in plan.notes if "plans that were timed" in note)
    others = {each.name for each in plan.alternatives if each.measured_ns is not None}
    return {*others, chosen.rpartition(": ")[2].rstrip(".")}


def test_a_composite_op_that_is_slow_whole_is_tried_decomposed(
    measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XNNPACK is made slow, so that attention's time on ggml decides, whatever the clock says."""
    torch.manual_seed(0)
    model, x = Attention().eval(), torch.randn(1, 5, 16)
    path = measured  # with what is measured whatever the model is
    lower(model, (x,), tune="measure", threads=1, cost_table=path)
    decide, decided = Search._decomposed, list[Mapping[str, Choice]]()

    def remembered(*arguments: Any) -> dict[str, Choice]:
        found = decide(*arguments)
        decided.append(found)
        return found

    monkeypatch.setattr(Search, "_decomposed", remembered)

    def lowered_if_attention_takes(ns: float) -> LoweredProgram:
        with sqlite3.connect(path) as connection:
            connection.execute("DELETE FROM plans")
            connection.execute(
                "UPDATE costs SET median_ns = 1e9 WHERE backend = 'xnnpack' "
                "AND key NOT LIKE 'calibration/%'"
            )
            changed = connection.execute(
                "UPDATE costs SET median_ns = ? WHERE backend = 'ggml' "
                "AND label LIKE 'scaled_dot_product_attention%'",
                (ns,),
            )
            assert changed.rowcount > 0
        return lower(model, (x,), tune="measure", threads=1, cost_table=path)

    def attention_was_decomposed() -> bool:
        choices = decided.pop().values()
        return any("scaled_dot_product" in key for each in choices for key in each.decomposed)

    lowered_if_attention_takes(1.0)
    assert not attention_was_decomposed()
    second = lowered_if_attention_takes(1e9)
    assert attention_was_decomposed()
    assert "decomposed" in _timed_names(second)
    torch.testing.assert_close(second(x), model(x), atol=1e-5, rtol=1e-5)


class TestSources:
    def test_without_any_table_costs_are_estimated(self, net: nn.Module) -> None:
        for tune in ("off", "cached"):
            notes = lower(net, (X,), tune=tune).plan["forward"].notes  # type: ignore[arg-type]
            assert any("estimated from shapes" in note for note in notes)

    def test_a_table_that_was_named_must_be_there(self, net: nn.Module, tmp_path: Path) -> None:
        with pytest.raises(CostTableError, match="there is no cost table"):
            lower(net, (X,), cost_table=tmp_path / "none.sqlite")

    @pytest.mark.parametrize("tune", ["cached", "measure"])
    def test_a_damaged_table_is_an_error_with_a_way_out(
        self, net: nn.Module, tmp_path: Path, tune: Any
    ) -> None:
        path = tmp_path / "costs.sqlite"
        path.write_bytes(b"this is no database" * 100)
        with pytest.raises(CostTableError, match="move the file away"):
            lower(net, (X,), tune=tune, cost_table=path)
        assert path.read_bytes().startswith(b"this is no database")

    def test_an_unknown_target_is_an_error_that_lists_the_known_ones(
        self, net: nn.Module, table: Path, tuned: LoweredProgram
    ) -> None:
        with pytest.raises(TargetError, match=r"target 'phone'; known: host \(1 threads\)"):
            lower(net, (X,), cost_table=table, target="phone")

    def test_measured_costs_decide_over_estimates(
        self, net: nn.Module, measured: Path, tmp_path: Path
    ) -> None:
        """With one backend's times made a hundred times longer, the other gets the work."""
        for slow, fast in (("ggml", "xnnpack"), ("xnnpack", "ggml")):
            changed = tmp_path / f"{slow}.sqlite"
            changed.write_bytes(measured.read_bytes())
            with sqlite3.connect(changed) as connection:
                connection.execute(
                    "UPDATE costs SET median_ns = 100 * median_ns + 1e6 WHERE backend = ? "
                    "AND key NOT LIKE 'calibration/%'",
                    (slow,),
                )
            program = lower(net, (X,), threads=1, cost_table=changed)
            assert _assignment(program)["aten_convolution_default"] == fast


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"strategy": "best"}, "strategy is 'best'; known: 'cost', 'greedy'"),
            ({"tune": "always"}, "tune is 'always'; known: 'off', 'cached', 'measure'"),
            ({"threads": 0}, "threads is 0; expected 1 or more"),
            ({"budget_s": 0}, "budget_s is 0; expected more than 0"),
            ({"budget_s": float("nan")}, "budget_s is nan"),
            ({"max_partitions": -1}, "max_partitions is -1"),
            ({"exclude": "gelu"}, "exclude is the string 'gelu'"),
            ({"tune": "measure", "target": "phone"}, "cannot measure target 'phone' from here"),
        ],
    )
    def test_nonsense_is_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(OptionError, match=message):
            PlanOptions(**options)

    @pytest.mark.parametrize("pattern", ["body", "body.*", "body.0", "aten.convolution.default"])
    @pytest.mark.parametrize("backend", ["ggml", "xnnpack"])
    def test_pins_by_module_and_op(self, net: nn.Module, pattern: str, backend: str) -> None:
        program = lower(net, (X,), tune="off", pins={pattern: backend})
        nodes = {
            node: segment.backend
            for segment in program.report.methods[0].segments
            for node in segment.nodes
        }
        assert nodes["aten_convolution_default_1"] == backend
        assert_close_to_eager(program, net, (X,), other_inputs=(X.cos(),), tolerance=1e-5)

    def test_what_is_excluded_is_left_to_kernels(self, net: nn.Module) -> None:
        program = lower(net, (X,), tune="off", exclude=["gelu"])
        assert program.report.methods[0].kernels == {"aten.gelu.default": 1}
        assert_close_to_eager(program, net, (X,), other_inputs=(X.cos(),), tolerance=1e-5)

    @pytest.mark.parametrize(
        ("keywords", "error", "message"),
        [
            ({"pins": {"nothing": "ggml"}}, ConstraintError, "pin 'nothing' matches nothing"),
            ({"pins": {"head": "npu"}}, OptionError, "'npu'; known: ggml, xnnpack, portable"),
            (
                {"pins": {"head": "ggml", "linear": "xnnpack"}},
                ConstraintError,
                "pins 'head' -> 'ggml' and 'linear' -> 'xnnpack' contradict",
            ),
            (
                {"pins": {"mean": "ggml"}},
                ConstraintError,
                "pin 'mean' asks for 'ggml', which cannot run",
            ),
            ({"exclude": {"gelu": "npu"}}, OptionError, "exclude 'gelu' names the backend 'npu'"),
        ],
    )
    def test_constraints_that_cannot_be_met_are_named(
        self, net: nn.Module, keywords: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            lower(net, (X,), tune="off", **keywords)

    def test_a_limit_on_partitions(self, net: nn.Module) -> None:
        program = lower(net, (X,), tune="off", max_partitions=1)
        assert len(program.report.methods[0].partitions) == 1
        torch.testing.assert_close(program(X), net(X), atol=1e-5, rtol=1e-5)
