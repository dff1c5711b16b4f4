"""Costs of another device: programs to measure there, and reading what was measured.

`export_tasks` writes a folder of small programs with a manifest. On the device,
`orchestrator-run --calibrate FOLDER --results FILE` times them with no Python at all. Back here,
`import_results` puts the times into a cost table under the device's name.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cost.compile import compile_what_can_be
from orchestrator.cost.environment import Environment, Machine, versions_of
from orchestrator.cost.measure import (
    BESIDE,
    Outcome,
    at_one_speed,
    batches,
    without_baselines,
)
from orchestrator.cost.table import CostTable, Measurement
from orchestrator.cost.task import Place, Task
from orchestrator.versions import executorch_version

MANIFEST = "manifest.json"
_MANIFEST_FORMAT = 3
_RESULTS_HEAD = "# orchestrator calibration 1"


class DeviceError(ValueError):
    """A folder or a results file is not what calibration needs; says what to do."""


@dataclass(frozen=True)
class Exported:
    """programs, methods: how many were written. failures: reason by atom label and backend."""

    programs: int
    methods: int
    failures: dict[tuple[str, str], str]


@dataclass(frozen=True)
class Imported:
    """machine: under which the times are stored. measured, failed: how many methods."""

    machine: Machine
    measured: int
    failed: int


def export_tasks(
    tasks: Iterable[Task], folder: Path, progress: Callable[[int], None] | None = None
) -> Exported:
    """Write programs that hold the tasks as methods, and a manifest of them.

    progress: called with the number of methods written so far.

    Raises:
        DeviceError: the folder holds something already.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DeviceError(f"{folder} is not empty; name a new folder")
    tasks = list(tasks)
    outcome = Outcome()
    files: dict[str, dict[str, dict[str, str]]] = {}
    count = 0
    for number, batch in enumerate(batches(tasks, outcome)):
        programs, failures = compile_what_can_be({name: each[1] for name, each in batch.items()})
        for name, reason in failures.items():
            outcome.failures[batch[name][0].label, batch[name][0].backend_name] = reason
        for buffer, names in programs:
            file = f"ops_{len(files):04}.pte"
            (folder / file).write_bytes(buffer)
            files[file] = {name: _entry(batch[name][0], number) for name in names}
            count += len(names)
        if progress is not None:
            progress(count)
    backends = {each.backend_name: each.backend for each in tasks if each.backend is not None}
    versions = versions_of(backends.values())
    manifest = {"format": _MANIFEST_FORMAT, "versions": versions, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return Exported(len(files), count, outcome.failures)


def _entry(task: Task, batch: int) -> dict[str, str]:
    """Describe a method; those of one batch go by what is timed beside that batch."""
    return {
        "key": task.key,
        "backend": task.backend_name,
        "label": task.label,
        "batch": str(batch),
    }


def import_results(folder: Path, results: Path, target: str, table: CostTable) -> Imported:
    """Store what was measured on a device.

    folder: as `export_tasks` wrote it; only its manifest is read. results: what
    `orchestrator-run --calibrate` wrote. target: the device's name from now on.

    Raises:
        DeviceError: a file that is not what it should be, or results of other programs.
        OSError: a file cannot be read.
    """
    files, versions = _read_manifest(folder / MANIFEST)
    lines = results.read_text(errors="replace").splitlines()
    if not lines or lines[0] != _RESULTS_HEAD:
        raise DeviceError(
            f"{results} does not begin with {_RESULTS_HEAD!r}; expected what "
            "`orchestrator-run --calibrate` writes"
        )
    about = dict(
        line[2:].split("\t", 1) for line in lines if line.startswith("# ") and "\t" in line
    )
    threads = about.get("threads", "")
    if not threads.isdigit() or int(threads) < 1:
        raise DeviceError(f"{results} does not say how many threads were used")
    machine = Machine(target, about.get("cpu", "unknown"), int(threads))
    read = [
        _read_line(line, files, f"{results}, line {number}")
        for number, line in enumerate(lines, 1)
        if line and not line.startswith("#")
    ]
    environments = {
        entry["backend"]: machine.running(versions.get(entry["backend"], executorch_version()))
        for entry, _ in read
    }
    found: dict[str, dict[str, Measurement]] = {backend: {} for backend in environments}
    levels: dict[str, float] = {}
    read.sort(key=_batch_of)
    for _, batch in itertools.groupby(read, key=_batch_of):
        rows = {str(number): row for number, row in enumerate(batch)}
        places = {name: Place(entry["backend"], entry["key"]) for name, (entry, _) in rows.items()}
        alone = without_baselines(places, {name: each for name, (_, each) in rows.items()})
        for name, measured in at_one_speed(places, alone, levels).items():
            backend, key = places[name]
            found[backend][key] = measured
    for backend, measurements in found.items():
        table.put(environments[backend], backend, measurements)
    everything = [each for row in found.values() for key, each in row.items() if key not in BESIDE]
    failed = sum(each.failed for each in everything)
    return Imported(machine, len(everything) - failed, failed)


def _batch_of(row: tuple[dict[str, str], Measurement]) -> str:
    return row[0]["batch"]


def _read_manifest(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        data = json.loads(path.read_text())
        if data["format"] != _MANIFEST_FORMAT:
            raise DeviceError(
                f"{path} has format {data['format']!r}; this version reads {_MANIFEST_FORMAT}"
            )
        return dict(data["files"]), dict(data["versions"])
    except FileNotFoundError:
        raise DeviceError(
            f"there is no {path}; expected a folder from `orchestrator calibrate export`"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DeviceError):
            raise
        raise DeviceError(f"{path} is no manifest of calibration: {error!r}") from error


def _read_line(line: str, files: dict[str, Any], where: str) -> tuple[dict[str, str], Measurement]:
    fields = line.split("\t")
    try:
        file, method = fields[:2]
        median, spread, runs = float(fields[2]), float(fields[3]), int(fields[4])
        if not (0 <= median < float("inf") and 0 <= spread < float("inf") and runs >= 0):
            raise ValueError(line)
    except (ValueError, IndexError):
        raise DeviceError(
            f"{where}: expected file, method, median, spread and runs, found {line[:200]!r}"
        ) from None
    entry = files.get(file, {}).get(method)
    if entry is None:
        raise DeviceError(f"{where}: {file}, method {method!r}, is not in the manifest")
    label = entry["label"] if runs else " ".join(fields[5:])
    return entry, Measurement(median, spread, runs, label)


def measured_targets(environments: Sequence[Environment]) -> list[str]:
    """Return one line per device and thread count that costs are known of."""
    return sorted({f"{each.target}, {each.threads} threads, {each.cpu}" for each in environments})
