"""What is stored of times: what an atom takes beyond what is around it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import pytest

from orchestrator.backends import Backend, resolve_backends
from orchestrator.backends.portable import NAME as KERNELS
from orchestrator.cost.calibration import BASELINE, calibration_tasks
from orchestrator.cost.extract import AtomProgram
from orchestrator.cost.measure import Outcome, batches, without_baselines
from orchestrator.cost.table import Measurement
from orchestrator.cost.task import Task

GGML, XNNPACK = resolve_backends(["ggml", "xnnpack"])
UNUSED = cast("Callable[[], AtomProgram]", None)


def _task(key: str, backend: Backend | None) -> Task:
    return Task(key, key, backend, UNUSED)


def _ns(median: float, spread: float = 0.0) -> Measurement:
    return Measurement(median, spread, 5)


def test_each_backend_has_its_own_baseline() -> None:
    tasks = {
        "a": _task("conv", GGML),
        "b": _task("conv", XNNPACK),
        "c": _task("conv", None),
        "around a": _task(BASELINE, GGML),
        "around c": _task(BASELINE, None),
    }
    measured = {
        "a": _ns(900, 30),
        "b": _ns(900),
        "c": _ns(900),
        "around a": _ns(200, 40),
        "around c": _ns(50),
    }
    found = without_baselines(tasks, measured)
    assert found == {"a": _ns(700, math.hypot(30, 40)), "b": _ns(850), "c": _ns(850)}


def test_no_time_is_negative_and_a_failure_stays_one() -> None:
    failed = Measurement(0.0, 0.0, 0, "no memory")
    tasks = {"a": _task("view", None), "b": _task("conv", None), "c": _task(BASELINE, None)}
    found = without_baselines(tasks, {"a": _ns(20), "b": failed, "c": _ns(50)})
    assert found == {"a": _ns(0), "b": failed}
    assert without_baselines(tasks, {"a": _ns(20), "b": _ns(9), "c": failed})["a"] == _ns(20)


@pytest.mark.parametrize("backends", [[GGML], [GGML, XNNPACK]])
def test_every_batch_has_the_baselines_of_its_backends(backends: list[Backend]) -> None:
    made = list(batches(list(calibration_tasks(backends)), Outcome()))
    assert made
    for batch in made:
        tasks = [task for task, _ in batch.values()]
        names = [task.backend_name for task in tasks if task.key == BASELINE]
        assert sorted(names) == sorted({KERNELS, *(task.backend_name for task in tasks)})
