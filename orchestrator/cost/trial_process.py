"""The process in which `trial` runs a program: a delegate that crashes ends it."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import torch

from orchestrator.cost.busy_threads import busy_threads
from orchestrator.native import ExecuTorchError, NativeProgram, load_libraries

BEGIN, END, BUSY = "begin ", "end ", "busy "
INPUTS, TASK = "inputs.pt", "task.json"
_BUSY_S = 0.2


def outputs_file(folder: Path, number: int) -> Path:
    """Return where the results of a method are, by its place among all."""
    return folder / f"{number}.pt"


def main(folder: Path) -> None:
    """Run the methods that the task names, and tell on standard output how far it got."""
    task = json.loads((folder / TASK).read_text())
    inputs = torch.load(folder / INPUTS, weights_only=True)
    load_libraries(task["libraries"])
    program = NativeProgram(
        task["file"], num_threads=task["threads"], backend_options=task["options"]
    )
    for number, (method, leaves) in enumerate(inputs.items()):
        if method not in task["methods"]:
            continue
        print(BEGIN + method, flush=True)
        with contextlib.suppress(ExecuTorchError, ValueError, TypeError):
            outputs = program.run(method, leaves, relayout=True)
            torch.save(outputs, outputs_file(folder, number))
            busy = busy_threads(lambda: program.run(method, leaves, relayout=True), _BUSY_S)  # noqa: B023
            print(f"{BUSY}{busy or 0.0}", flush=True)
        print(END + method, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
