"""The cost table on disk."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from orchestrator.cost.environment import Environment
from orchestrator.cost.table import CostTable, CostTableError, Measurement

HERE = Environment("host", "a cpu", 2, "1.0")


def test_what_was_stored_is_found_by_another_object(tmp_path: Path) -> None:
    path = tmp_path / "costs.sqlite"
    CostTable(path).put(HERE, "ggml", {"a": Measurement(10.0, 1.0, 5, "add")})
    found = CostTable(path).get(HERE, "ggml", ["a", "b"])
    assert found == {"a": Measurement(10.0, 1.0, 5, "add")}


@pytest.mark.parametrize(
    "other",
    [
        Environment("phone", "a cpu", 2, "1.0"),
        Environment("host", "another cpu", 2, "1.0"),
        Environment("host", "a cpu", 1, "1.0"),
        Environment("host", "a cpu", 2, "2.0"),
    ],
)
def test_costs_of_another_environment_are_not_mixed_in(tmp_path: Path, other: Environment) -> None:
    table = CostTable(tmp_path / "costs.sqlite")
    table.put(HERE, "ggml", {"a": Measurement(10.0, 1.0, 5)})
    assert table.get(other, "ggml", ["a"]) == {}
    assert table.get(HERE, "xnnpack", ["a"]) == {}
    assert table.environments() == [HERE]


def test_a_newer_measurement_replaces_the_older(tmp_path: Path) -> None:
    table = CostTable(tmp_path / "costs.sqlite")
    table.put(HERE, "ggml", {"a": Measurement(10.0, 1.0, 5)})
    table.put(HERE, "ggml", {"a": Measurement(7.0, 1.0, 9)})
    assert table.get(HERE, "ggml", ["a"])["a"].median_ns == 7.0


def test_a_negative_time_is_refused_and_nothing_of_its_batch_stays(tmp_path: Path) -> None:
    table = CostTable(tmp_path / "costs.sqlite")
    with pytest.raises(CostTableError, match="CHECK"):
        table.put(HERE, "ggml", {"a": Measurement(1.0, 0.0, 1), "b": Measurement(-1.0, 0.0, 1)})
    assert table.get(HERE, "ggml", ["a", "b"]) == {}


def test_a_file_that_is_no_table_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "costs.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(CostTableError, match="move the file away"):
        CostTable(path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_table_of_another_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "costs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(CostTableError, match="version 99"):
        CostTable(path)


def _write_many(path: Path, worker: int) -> None:
    table = CostTable(path)
    for number in range(30):
        table.put(HERE, "ggml", {f"{worker}-{number}": Measurement(1.0, 0.0, 1)})


def test_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "costs.sqlite"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_many, args=(path, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    keys = [f"{worker}-{number}" for worker in range(3) for number in range(30)]
    assert len(CostTable(path).get(HERE, "ggml", keys)) == 90


def _write_forever(path: Path) -> None:
    table = CostTable(path)
    number = 0
    while True:
        table.put(HERE, "ggml", {f"k{number}": Measurement(1.0, 0.0, 1)})
        number += 1


def test_a_killed_writer_leaves_a_whole_table(tmp_path: Path) -> None:
    path = tmp_path / "costs.sqlite"
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=_write_forever, args=(path,))
    CostTable(path)
    writer.start()
    table = CostTable(path)
    while not table.get(HERE, "ggml", ["k5"]):
        assert writer.is_alive()
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert len(table.get(HERE, "ggml", [f"k{number}" for number in range(6)])) == 6
    table.put(HERE, "ggml", {"after": Measurement(1.0, 0.0, 1)})
