"""Makes a table of how exact ggml's ops are, from their own tests.

    python tools/accuracy.py [--jobs N] [--no-docs]

Runs tests/ggml_delegate/ops, where every op is compared with eager PyTorch, and prints the largest
error of each. Unless a test fails, in which case it exits with 1, the table goes to
docs/coverage.md as well.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from page import write_table

ROOT = Path(__file__).resolve().parent.parent


def run_tests(jobs: int) -> tuple[int, dict[str, list[tuple[float, float]]]]:
    """The tests' exit code, and by op every error with what was allowed."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "errors.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(jobs), "--accuracy", str(path)]
        done = subprocess.run(
            [*command, str(ROOT / "tests" / "ggml_delegate" / "ops")], cwd=ROOT, check=False
        )
        for line in path.read_text().splitlines() if path.exists() else ():
            entry = json.loads(line)
            found[entry["op"]].append((entry["error"], entry["allowed"]))
    return done.returncode, found


def table(found: dict[str, list[tuple[float, float]]]) -> str:
    """Ops that are ever off, the least exact first; then those that never are."""
    worst = {op: max(error for error, _ in each) for op, each in found.items()}
    lines = ["| op | comparisons | largest error | allowed |", "|---|---|---|---|"]
    for op in sorted(worst, key=lambda each: (-worst[each], each)):
        if worst[op] > 0:
            allowed = max(each for _, each in found[op])
            lines.append(f"| `{op}` | {len(found[op])} | {worst[op]:.0e} | {allowed:.0e} |")
    exact = ", ".join(f"`{op}`" for op in sorted(worst) if worst[op] == 0)
    return "\n".join([*lines, "", f"Never off: {exact}."])


def main() -> int:
    """Runs the tests and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--no-docs", dest="docs", action="store_false", help="leave docs/ alone")
    options = parser.parse_args()
    code, found = run_tests(options.jobs)
    print(table(found))
    if options.docs and not code:
        write_table("accuracy", table(found))
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main())
