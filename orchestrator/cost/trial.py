"""Programs run once in a process of their own before they are timed.

A delegate of which nothing is known may crash or hang. Then it takes that process with it, and the
program that it is in counts as one that cannot run.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from orchestrator.backends import Backend, load_options
from orchestrator.cost import trial_process
from orchestrator.cost.trial_process import BEGIN, BUSY, END, INPUTS, TASK, outputs_file

_LIMIT_S = 60.0  # for a run
_START_S = 600.0  # for the process to start


@dataclass
class Trial:
    """What came of it, by method: what it returned, or why it may not be run in this process.

    busy: how many threads computed while it ran again and again.
    A method that raises an error as it should is in neither: it does so here as well.
    """

    outputs: dict[str, list[Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)


def try_out(
    file: Path, inputs: Mapping[str, Sequence[Any]], backends: Iterable[Backend], threads: int
) -> Trial:
    """Run methods of a program, each once, in another process.

    inputs: by method. backends: whose delegates it may have. threads: to run on.
    """
    used = list(backends)
    task = {
        "file": str(file),
        "threads": threads,
        "options": {key: dict(each) for key, each in load_options(used, threads).items()},
        "libraries": [str(path) for each in used for path in each.libraries()],
    }
    trial = Trial()
    left = list(inputs)
    with tempfile.TemporaryDirectory(prefix="orchestrator-") as name:
        folder = Path(name)
        torch.save({each: list(leaves) for each, leaves in inputs.items()}, folder / INPUTS)
        while left:
            (folder / TASK).write_text(json.dumps({**task, "methods": left}))
            ended, running, problem = _run(folder, trial.busy)
            for number, method in enumerate(inputs):
                if method in ended and outputs_file(folder, number).exists():
                    outputs = torch.load(outputs_file(folder, number), weights_only=True)
                    trial.outputs[method] = outputs
            left = [each for each in left if each not in ended]
            if problem is None:
                break
            blamed = left if running is None else [running]
            trial.failures |= dict.fromkeys(blamed, problem)
            left = [each for each in left if each not in blamed]
    return trial


def _run(folder: Path, busy: dict[str, float]) -> tuple[set[str], str | None, str | None]:
    """Return the methods that ended, the one that was running last, and what went wrong.

    busy: of the methods that ended, as of `Trial`; added to.
    """
    command = [sys.executable, "-m", trial_process.__name__, str(folder)]
    ended: set[str] = set()
    running: str | None = None
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        lines = _lines(process.stdout)
        try:
            while True:
                limit_s = _START_S if running is None else _LIMIT_S
                line = lines.get(timeout=limit_s)
                if line is None:
                    break
                if line.startswith(BEGIN):
                    running = line.removeprefix(BEGIN)
                elif line.startswith(BUSY) and running is not None:
                    busy[running] = float(line.removeprefix(BUSY))
                elif line.startswith(END):
                    ended.add(line.removeprefix(END))
                    running = None
        except queue.Empty:
            process.kill()
            return ended, running, f"it did not finish within {limit_s:g} s"
        code = process.wait()
        errors.seek(0)
        said = errors.read().strip().splitlines() or [""]
    if code < 0:
        return ended, running, f"the process that ran it died of {signal.Signals(-code).name}"
    if code > 0:
        return ended, running, f"the process that ran it ended with {code}: {said[-1]}"
    return ended, running, None


def _lines(stream: IO[str]) -> queue.Queue[str | None]:
    """Return a queue of the lines, as they come; None at the end."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line.rstrip("\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines
