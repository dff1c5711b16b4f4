"""What is stored of times: what an atom takes beyond what is around it, at one speed."""

from __future__ import annotations

import math

import pytest

from orchestrator.backends import Backend, resolve_backends
from orchestrator.backends.portable import NAME as KERNELS
from orchestrator.cost.calibration import BASELINE, REFERENCE, calibration_tasks
from orchestrator.cost.measure import Outcome, at_one_speed, batches, without_baselines
from orchestrator.cost.table import Measurement
from orchestrator.cost.task import Place

GGML, XNNPACK = resolve_backends(["ggml", "xnnpack"])


def _ns(median: float, spread: float = 0.0) -> Measurement:
    return Measurement(median, spread, 5)


def test_each_backend_has_its_own_baseline() -> None:
    places = {
        "a": Place("ggml", "conv"),
        "b": Place("xnnpack", "conv"),
        "c": Place(KERNELS, "conv"),
        "around a": Place("ggml", BASELINE),
        "around c": Place(KERNELS, BASELINE),
    }
    measured = {
        "a": _ns(900, 30),
        "b": _ns(900),
        "c": _ns(900),
        "around a": _ns(200, 40),
        "around c": _ns(50),
    }
    found = without_baselines(places, measured)
    assert found == {"a": _ns(700, math.hypot(30, 40)), "b": _ns(850), "c": _ns(850)}


def test_no_time_is_negative_and_a_failure_stays_one() -> None:
    failed = Measurement(0.0, 0.0, 0, "no memory")
    places = {
        "a": Place(KERNELS, "view"),
        "b": Place(KERNELS, "conv"),
        "c": Place(KERNELS, BASELINE),
    }
    found = without_baselines(places, {"a": _ns(20), "b": failed, "c": _ns(50)})
    assert found == {"a": _ns(0), "b": failed}
    assert without_baselines(places, {"a": _ns(20), "b": _ns(9), "c": failed})["a"] == _ns(20)


def test_times_are_kept_as_at_the_speed_of_the_first_batch() -> None:
    places = {
        "a": Place("ggml", "conv"),
        "b": Place("xnnpack", "conv"),
        "c": Place(KERNELS, "view"),
        "speed of a": Place("ggml", REFERENCE),
        "speed of b": Place("xnnpack", REFERENCE),
    }
    levels: dict[str, float] = {}
    first = {"a": _ns(900, 30), "b": _ns(800), "c": _ns(70)}
    first |= {"speed of a": _ns(100), "speed of b": _ns(60)}
    assert at_one_speed(places, first, levels) == first
    assert levels == {"ggml": 100, "xnnpack": 60}
    slower = {"a": _ns(1800, 60), "b": _ns(1600), "c": _ns(140)}
    slower |= {"speed of a": _ns(200), "speed of b": _ns(120)}
    again = at_one_speed(places, slower, levels)
    assert again == {"a": _ns(900, 30), "b": _ns(800), "c": _ns(70)}
    assert levels == {"ggml": 100, "xnnpack": 60}


def test_what_has_no_reference_goes_by_the_others_or_stays() -> None:
    places = {
        "a": Place("ggml", "conv"),
        "b": Place("xnnpack", "conv"),
        "speed of a": Place("ggml", REFERENCE),
        "speed of b": Place("xnnpack", REFERENCE),
    }
    failed = Measurement(0.0, 0.0, 0, "no memory")
    measured = {"a": failed, "b": _ns(900), "speed of a": _ns(50), "speed of b": failed}
    found = at_one_speed(places, measured, {"ggml": 100.0})
    assert found == {"a": failed, "b": _ns(1800)}
    alone = {"a": _ns(7), "speed of a": failed}
    assert at_one_speed(places, alone, {"ggml": 100.0}) == {"a": _ns(7)}


@pytest.mark.parametrize("backends", [[GGML], [GGML, XNNPACK]])
def test_every_batch_has_what_is_timed_beside_it(
    backends: list[Backend],
) -> None:
    made = list(batches(list(calibration_tasks(backends)), Outcome()))
    assert made
    for batch in made:
        tasks = [task for task, _ in batch.values()]
        used = {task.backend_name for task in tasks}
        names = [task.backend_name for task in tasks if task.key == BASELINE]
        assert sorted(names) == sorted({KERNELS, *used})
        names = [task.backend_name for task in tasks if task.key == REFERENCE]
        assert sorted(names) == sorted(used - {KERNELS})
