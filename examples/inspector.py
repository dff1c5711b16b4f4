"""ExecuTorch's Inspector on a program of two backends: its table, and the model's lines behind it.

python examples/inspector.py [MODEL]

Both delegates log to ExecuTorch's ETDump: ggml every op under its node's name, XNNPACK its kernels.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from executorch.devtools import Inspector

from examples.models import MODELS
from orchestrator import lower
from orchestrator.native import NativeProgram
from orchestrator.report.sources import source_of_trace


def inspect(name: str, folder: Path) -> Inspector:
    """Lowers a model for both backends, profiles three runs, and gives Inspector what it needs."""
    spec = MODELS[name]
    inputs = spec.inputs(1, 0)
    # The greedy split, so that both backends are seen at work.
    program = lower(
        spec.build(),
        inputs,
        backends=["ggml", "xnnpack"],
        strategy="greedy",
        etrecord=folder / "model.etrecord",
    )
    native = NativeProgram(program.buffer, etdump=True)
    for _ in range(3):
        native(*inputs)
    (folder / "profile.etdump").write_bytes(native.etdump())
    return Inspector(
        etdump_path=str(folder / "profile.etdump"), etrecord=str(folder / "model.etrecord")
    )


def print_sources(inspector: Inspector, rows: int) -> None:
    """Prints the slowest ops of the delegates with the user's modules and lines behind them."""
    events = [
        event
        for block in inspector.event_blocks
        if block.name == "Execute"
        for event in block.events
        if event.is_delegated_op and event.stack_traces and event.perf_data is not None
    ]
    events.sort(key=lambda event: -event.perf_data.p50)
    print(f"{'median':>12}  {'delegate':14} {'op':28} {'module':28} source")
    for event in events[:rows]:
        # The first node of those that became this event.
        trace = next(iter(event.stack_traces.values()))
        module = _module(next(iter((event.module_hierarchy or {}).values()), {}))
        print(
            f"{event.perf_data.p50:9.4f} ms  {event.delegate_backend_name or '-':14} "
            f"{event.name:28} {module:28} {source_of_trace(trace)}"
        )


def _module(stack: Mapping[str, Any]) -> str:
    """The innermost module's path."""
    paths = [str(entry[0]) for entry in stack.values()]
    return paths[-1] if paths else "-"


def main() -> None:
    """Prints Inspector's table, then where the slowest ops come from."""
    name = sys.argv[1] if len(sys.argv) > 1 else "mobilenet_v2"
    with tempfile.TemporaryDirectory() as folder:
        inspector = inspect(name, Path(folder))
        inspector.print_data_tabular()
        print()
        print_sources(inspector, rows=12)


if __name__ == "__main__":
    main()
