"""Run by test_faults.py under failing_malloc: fails every allocation of the delegate in turn.

Usage: python allocation_faults.py MODEL.pte INPUTS.pt; prints a JSON object.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import torch

from orchestrator.native import ExecuTorchError, NativeProgram

_malloc = ctypes.CDLL(None)
_malloc.watch.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
_malloc.arm.argtypes = [ctypes.c_long]
_malloc.disarm.restype = ctypes.c_long
_malloc.held_blocks.restype = ctypes.c_long


def _library() -> tuple[int, int]:
    """Where the delegate's library is mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if "libggml_backend" in line]
    return min(int(low, 16) for low, _ in ranges), max(int(high, 16) for _, high in ranges)


def _run(buffer: bytes, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.as_tensor(out).clone() for out in NativeProgram(buffer).run("forward", inputs)]


def main() -> None:
    """Runs the script."""
    buffer = Path(sys.argv[1]).read_bytes()
    inputs = torch.load(sys.argv[2])
    expected = _run(buffer, inputs)
    _malloc.watch(*_library())
    _malloc.arm(0)
    _run(buffer, inputs)
    sites = _malloc.disarm()
    held = _malloc.held_blocks()
    errors: dict[str, int] = {}
    wrong = leaked = 0
    for site in range(1, sites + 1):
        _malloc.arm(site)
        try:
            _run(buffer, inputs)
            outcome = "none"
        except ExecuTorchError as error:
            outcome = error.code
        except MemoryError:
            outcome = "MemoryError"
        _malloc.disarm()
        errors[outcome] = errors.get(outcome, 0) + 1
        leaked = max(leaked, _malloc.held_blocks() - held)
        again = _run(buffer, inputs)
        wrong += not all(map(torch.equal, again, expected))
    print(json.dumps({"sites": sites, "errors": errors, "wrong": wrong, "leaked": leaked}))


if __name__ == "__main__":
    main()
