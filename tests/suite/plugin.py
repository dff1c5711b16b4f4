"""A pytest plugin that runs ExecuTorch's backend test suite through the flows of this project.

Load it with `-p tests.suite.plugin`, before the suite's own conftest.py asks for its flows. With
`--suite-results FILE` it writes what became of every test as JSON.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import executorch.backends.test.suite.flow as suite_flow
import pytest

from orchestrator.frontend.torch_speed import repeated_work_spared
from tests.harness.patterns import exported_once
from tests.suite.flows import FLOWS

suite_flow.all_flows = lambda: dict(FLOWS)

_PROPERTY = "suite_results"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --suite-results and --suite-seed."""
    parser.addoption("--suite-results", type=Path, help="write one JSON record per test to a file")
    parser.addoption("--suite-seed", type=int, default=0, help="of the random inputs and weights")


def pytest_configure(config: pytest.Config) -> None:
    """Fixes the seed and collects the results where all workers' reports arrive."""
    from executorch.backends.test.suite.reporting import begin_test_session

    config.addinivalue_line("markers", "timeout: how long ExecuTorch gives a test, in seconds")
    begin_test_session(None, seed=config.getoption("--suite-seed"))
    path = config.getoption("--suite-results")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Collector(path))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts with what takes minutes, so that no process is left with it at the end."""
    items.sort(key=lambda item: not item.name.startswith("test_lstm"))


@pytest.fixture(scope="session", autouse=True)
def _patterns_exported_once() -> Iterator[None]:
    gc.freeze()
    with exported_once():
        yield


@pytest.fixture(autouse=True)
def _faster_export() -> Iterator[None]:
    """Lowering is most of the suite's time, and half of it is looking for garbage."""
    gc.disable()
    with repeated_work_spared():
        yield
    gc.enable()
    gc.collect()
    gc.freeze()  # what is left stays: torch's quantizer and Dynamo forget no program


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    """Attaches the suite's summaries to the report, which pytest-xdist carries to the collector."""
    outcome: Any = yield
    report = outcome.get_result()
    runner = getattr(item, "funcargs", {}).get("test_runner")
    if call.when == "call" and runner is not None:
        report.user_properties.append(
            (_PROPERTY, [_record(summary) for summary in runner._results])
        )


def _record(summary: Any) -> dict[str, Any]:
    """One run of a model as plain data."""

    def count(ops: Any) -> int:
        return sum(ops.values()) if ops else 0

    return {
        "result": summary.result.name,
        "error": f"{type(summary.error).__name__}: {summary.error}" if summary.error else None,
        "delegated": count(summary.delegated_op_counts),
        "undelegated": count(summary.undelegated_op_counts),
        "undelegated_ops": dict(summary.undelegated_op_counts or {}),
        "lowering_s": summary.lower_time.total_seconds() if summary.lower_time else None,
    }


class _Collector:
    """Gathers one entry per test in the process that the user started."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes a finished test; one whose process died has no call phase of its own."""
        crashed = report.when not in ("setup", "call", "teardown")
        if report.when == "call" or crashed or report.outcome != "passed":
            self.tests[report.nodeid.rpartition("/")[2]] = {
                "outcome": "failed" if crashed else report.outcome,
                "crashed": crashed,
                "message": str(report.longrepr)[-2000:] if report.failed or crashed else None,
                "runs": dict(report.user_properties).get(_PROPERTY, []),
            }

    def pytest_sessionfinish(self) -> None:
        """Writes the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.tests, indent=1, sort_keys=True) + "\n")
