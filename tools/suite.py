"""Runs ExecuTorch's own backend test suite (operators, float and int8) through this project.

    python tools/suite.py [--flows FLOW ...] [--filter EXPRESSION] [--jobs N] [--seed N] [--docs]

The suite is the one in the installed executorch wheel, which is left as it is; tests/suite says
how its tests are lowered. Each flow's results go to build/suite/FLOW.json and stay there until the
flow is run again. The table has a row for each flow that there are results of. It goes to the
screen and, unless only a part was run and --docs is not given, to docs/coverage.md. The exit code
is 1 when a test of this project's flows fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from page import write_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "suite"
_FLOAT = {
    "orchestrator": "ggml + xnnpack",
    "orchestrator_dynamic": "ggml + xnnpack, dynamic sizes",
    "orchestrator_plans": "ggml + xnnpack, by cost and at random",
    "xnnpack": "xnnpack alone",
    "xnnpack_dynamic": "xnnpack alone, dynamic sizes",
}
_QUANTIZED = {
    "static_int8_per_channel": "int8 per channel",
    "static_int8_per_tensor": "int8 per tensor",
    "dynamic_int8_per_channel": "int8 per channel, dynamic activations",
}
_TITLES = (
    _FLOAT
    | {
        f"orchestrator_{name}": f"ggml + xnnpack, {what}; greedily, by cost and at random"
        for name, what in _QUANTIZED.items()
    }
    | {f"xnnpack_{name}": f"xnnpack alone, {what}" for name, what in _QUANTIZED.items()}
)
FLOWS = tuple(_TITLES)
OWN = tuple(flow for flow in FLOWS if flow.startswith("orchestrator"))
# Their nodes are counted over several plans, which tells nothing.
_SEVERAL_PLANS = set(OWN) - {"orchestrator", "orchestrator_dynamic"}


def suite_folder() -> Path:
    """Where the installed suite is."""
    spec = importlib.util.find_spec("executorch.backends.test.suite")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("executorch.backends.test.suite is not installed; run `make build` first")
    return Path(next(iter(spec.submodule_search_locations)))


def run_flow(flow: str, jobs: int, seed: int, expression: str | None) -> None:
    """Runs the suite's operator tests, or some, through one flow and stores the results."""
    path = RESULTS / f"{flow}.json"
    path.unlink(missing_ok=True)
    suite = suite_folder()
    # Names end in "[flow]" or "[flow-parameter]".
    chosen = f"([{flow}] or [{flow}-)"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "tests.suite.plugin", "-c", "/dev/null"),
        *("-p", "no:cacheprovider", "-W", "ignore", "--import-mode=prepend"),
        *(
            f"--rootdir={suite}",
            "-n",
            str(jobs),
            *("--dist=load", "--maxschedchunk=1"),  # in sequence: what takes minutes is first
            "--max-worker-restart=1000",
            "--tb=short",
        ),
        *("--suite-results", str(path), "--suite-seed", str(seed)),
        *("-k", f"{chosen} and ({expression})" if expression else chosen),
        str(suite / "operators"),
    ]
    start = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=False)
    print(f"{flow}: {time.monotonic() - start:.0f} s", flush=True)
    if not path.exists():
        raise SystemExit(f"the suite did not run for {flow}; see the messages above")
    tests = json.loads(path.read_text())
    path.write_text(json.dumps({"filter": expression, "tests": tests}, indent=1) + "\n")


def stored_results() -> dict[str, dict[str, Any]]:
    """The last results of every flow, as {"filter": EXPRESSION or None, "tests": by name}."""
    paths = {flow: RESULTS / f"{flow}.json" for flow in FLOWS}
    return {flow: json.loads(path.read_text()) for flow, path in paths.items() if path.exists()}


def summary(tests: dict[str, Any]) -> Counter[str]:
    """Counts of tests by outcome, and of nodes."""
    counts: Counter[str] = Counter()
    for test in tests.values():
        counts[test["outcome"]] += 1
        counts["crashed"] += test["crashed"]
        for run in test["runs"]:
            counts["delegated"] += max(run["delegated"], 0)
            counts["undelegated"] += run["undelegated"]
            counts["wrong"] += run["result"] == "OUTPUT_MISMATCH_FAIL"
            counts["not lowered"] += run["result"] == "LOWER_FAIL"
    return counts


def table(results: dict[str, dict[str, Any]]) -> str:
    """The summary of all flows as Markdown."""
    lines = [
        "| flow | passed | failed | of these crashed | skipped | nodes delegated |",
        "|---|---|---|---|---|---|",
    ]
    for flow, found in results.items():
        counts = summary(found["tests"])
        part = f", tests `{found['filter']}`" if found["filter"] else ""
        nodes = counts["delegated"] + counts["undelegated"]
        share = (
            f"{counts['delegated'] / nodes:.0%} of {nodes}"
            if nodes and flow not in _SEVERAL_PLANS
            else "-"
        )
        lines.append(
            f"| {_TITLES[flow]}{part} | {counts['passed']} | {counts['failed']} "
            f"| {counts['crashed']} | {counts['skipped']} | {share} |"
        )
    return "\n".join(lines)


def failures(results: dict[str, dict[str, Any]]) -> str:
    """What failed and why, per flow."""
    lines = []
    for flow, found in results.items():
        failed = {
            name: test for name, test in found["tests"].items() if test["outcome"] == "failed"
        }
        for name, test in sorted(failed.items()):
            errors = [run["error"] for run in test["runs"] if run["error"]]
            reason = "the process died" if test["crashed"] else (errors or ["?"])[-1]
            lines.append(f"{flow}: {name}: {reason.splitlines()[0][:160]}")
    return "\n".join(lines)


def main() -> int:
    """Runs the suite."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flows", nargs="+", choices=FLOWS, default=list(FLOWS))
    parser.add_argument("--filter", help="as pytest's -k, e.g. 'add or conv2d'")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--seed", type=int, default=0, help="of inputs and weights")
    parser.add_argument(
        "--docs",
        action=argparse.BooleanOptionalAction,
        help="whether to write the table to docs/; by default unless --filter is given",
    )
    options = parser.parse_args()
    for flow in options.flows:
        run_flow(flow, options.jobs, options.seed, options.filter)
    results = stored_results()
    print(table(results))
    failed = failures(results)
    if failed:
        print(failed)
    if options.docs or (options.docs is None and not options.filter):
        write_table("suite", table(results))
    bad = sum(summary(results[flow]["tests"])["failed"] for flow in options.flows if flow in OWN)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
