"""Every example model through this project: what runs where, how exact, how large, how fast.

    python benchmarks/coverage.py [MODEL ...] [--batch 1 4] [--threads 2 1] [--dynamic] [--small]
                                  [--no-time] [--keep FOLDER] [--quick] [--json FILE] [--check]
                                  [--docs]

Each model is lowered for ggml and XNNPACK together and for XNNPACK alone, compared with eager
PyTorch on two inputs, and timed: ours, XNNPACK alone and eager in turn in one process; ratios are
medians over rounds. With --keep, programs are left in a folder and found there by the next run, so
that models can be lowered with --no-time on a busy machine, a few at a time, and timed together on
a quiet one. --docs writes the table into docs/coverage.md. --check exits with 1 when a model fails
or misses a target:

    error over output scale  within the model's tolerance (1e-4 for CNNs, else 1e-3)
    .pte                     at most 1.02 times the weights plus 1 MB
    ours / eager             at most 1.0 at every number of threads
    attention models         at most 5 % of the nodes on ExecuTorch's kernels
    vit_b_16                 at most 30 delegates
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.interleave import interleave, ratio
from benchmarks.running import native, timed
from examples.models import MODELS, ModelSpec
from orchestrator import LoweredProgram, lower
from tests.harness.compare import SENSITIVITY_FACTOR, compare
from tools.page import write_table

MAX_KERNEL_SHARE = 0.05
MAX_DELEGATES = {"vit_b_16": 30}
MAX_OVER_EAGER = 1.0
# Of one alternative in one comparison, so that slow models do not take all day.
SECONDS_PER_ALTERNATIVE, SECONDS_QUICK = 6.0, 1.5
MIN_ROUNDS, MAX_ROUNDS = 5, 60


def weight_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers; shared ones count once."""
    tensors = {t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}
    return sum(tensors.values())


def placement(program: LoweredProgram) -> dict[str, Any]:
    """How many nodes run where."""
    nodes: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    delegates = 0
    for method in program.report.methods:
        delegates += len(method.partitions)
        kernels.update(method.kernels)
        for partition in method.partitions:
            nodes[partition.backend] += len(partition.nodes)
    return {
        "nodes": sum(nodes.values()) + sum(kernels.values()),
        "ggml": nodes["ggml"],
        "xnnpack": nodes["xnnpack"],
        "kernels": sum(kernels.values()),
        "delegates": delegates,
        "kernel_ops": dict(kernels.most_common()),
    }


def latency(
    model: nn.Module, programs: dict[str, bytes], inputs: Any, threads: int, quick: bool
) -> dict[str, Any]:
    """Ours, XNNPACK alone and eager with one number of threads."""
    torch.set_num_threads(threads)
    alternatives = {name: native(buffer, inputs, threads) for name, buffer in programs.items()}
    with torch.no_grad():
        alternatives["eager"] = timed(lambda: model(*inputs))
        slowest = max(max(run() for _ in range(2)) for run in alternatives.values())
        seconds = SECONDS_QUICK if quick else SECONDS_PER_ALTERNATIVE
        rounds = min(max(int(seconds * 1e3 / slowest), MIN_ROUNDS), MAX_ROUNDS)
        timings = interleave(alternatives, rounds)
    result: dict[str, Any] = {"rounds": rounds}
    for name, timing in timings.items():
        result |= {f"{name}_ms": timing.median_ms, f"{name}_spread": timing.spread}
    for other in timings.keys() - {"ours"}:
        result[f"over_{other}"] = ratio(timings["ours"], timings[other])
    return result


def lowered(
    spec: ModelSpec, model: nn.Module, batch: int, options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What is known of a model's programs without timing them, and the programs by name."""
    inputs = spec.inputs(batch, 0)
    # Exported with another batch than the one that runs, so that the sizes really vary.
    examples = spec.inputs(batch + 1, 0) if options.dynamic else inputs
    shapes = spec.dynamic_shapes if options.dynamic else None
    start = time.perf_counter()
    program = lower(model, examples, dynamic_shapes=shapes)
    row: dict[str, Any] = {"lowering_s": time.perf_counter() - start, **placement(program)}
    row |= {"pte_bytes": len(program.buffer), "weight_bytes": weight_bytes(model)}
    comparison = compare(program, model, inputs, spec.inputs(batch, 1))
    row |= {"error": comparison.error, "tolerance": spec.tolerance}
    row["sensitivity"] = comparison.sensitivity
    programs = {"ours": program.buffer}
    if options.time or options.keep:
        try:
            alone = lower(model, examples, backends=["xnnpack"], dynamic_shapes=shapes)
            row["xnnpack_alone"] = placement(alone)
            alone(*inputs)
            programs["xnnpack"] = alone.buffer
        except Exception as error:  # not every model runs on XNNPACK and kernels alone
            row["xnnpack_failure"] = str(error).splitlines()[0]
    return row, programs


def kept(
    folder: Path, name: str, make: Callable[[], tuple[dict[str, Any], dict[str, bytes]]]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What an earlier run left in a folder under a name, or else is made and left there now."""
    file = folder / f"{name}.json"
    if file.exists():
        row = json.loads(file.read_text())
        return row, {each: (folder / f"{name}.{each}.pte").read_bytes() for each in row["programs"]}
    row, programs = make()
    folder.mkdir(parents=True, exist_ok=True)
    for each, buffer in programs.items():
        (folder / f"{name}.{each}.pte").write_bytes(buffer)
    row["programs"] = list(programs)
    file.write_text(json.dumps(row, indent=1))
    return row, programs


def measure(spec: ModelSpec, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    model = spec.build()

    def make() -> tuple[dict[str, Any], dict[str, bytes]]:
        return lowered(spec, model, batch, options)

    kinds = [kind for kind in ("small", "dynamic") if getattr(options, kind)]
    name = ".".join([spec.name, str(batch), *kinds])
    row, programs = make() if options.keep is None else kept(options.keep, name, make)
    if options.time:
        inputs = spec.inputs(batch, 0)
        row["latency"] = {
            threads: latency(model, programs, inputs, threads, options.quick)
            for threads in options.threads
        }
    return row


def missed(row: dict[str, Any]) -> list[str]:
    """The targets that a row misses."""
    if "failure" in row:
        return ["does not run"]
    found = []
    if row["error"] > row["tolerance"]:
        found.append(f"error {row['error']:.1e} > {row['tolerance']:.0e}")
    if row["sensitivity"] < SENSITIVITY_FACTOR * row["tolerance"]:
        found.append(f"another input changes the output by {row['sensitivity']:.1e} only")
    if row["pte_bytes"] > 1.02 * row["weight_bytes"] + 1e6:
        found.append(f".pte {row['pte_bytes'] / row['weight_bytes']:.2f}x its weights")
    if row["family"] == "attention" and row["kernels"] > MAX_KERNEL_SHARE * row["nodes"]:
        found.append(f"{row['kernels'] / row['nodes']:.0%} of the nodes on kernels")
    if row["delegates"] > MAX_DELEGATES.get(row["model"], row["delegates"]):
        found.append(f"{row['delegates']} delegates")
    for threads, times in row.get("latency", {}).items():
        if times["over_eager"] > MAX_OVER_EAGER:
            found.append(f"{times['over_eager']:.2f}x eager on {threads} threads")
    return found


_HEADER = (
    f"{'model':<22} {'batch':>5} {'nodes':>5} {'ggml':>5} {'xnn':>4} {'kern':>4} {'deleg':>5} "
    f"{'error':>7} {'lower':>6} {'MB':>6} {'/wts':>5}"
)
_TIMES = f" {'thr':>3} {'ours ms':>9} {'+-':>4} {'/eager':>6} {'/xnn':>6}"


def _ratio(value: float | None) -> str:
    return f"{'fails':>6}" if value is None else f"{value:>6.2f}"


def show(row: dict[str, Any]) -> str:
    """The lines of the table for one row."""
    start = f"{row['model']:<22} {row['batch']:>5} "
    if "failure" in row:
        return f"{start}FAILED: {row['failure']}"
    line = (
        f"{start}{row['nodes']:>5} {row['ggml']:>5} {row['xnnpack']:>4} {row['kernels']:>4} "
        f"{row['delegates']:>5} {row['error']:>7.0e} {row['lowering_s']:>5.1f}s "
        f"{row['pte_bytes'] / 1e6:>6.1f} {row['pte_bytes'] / row['weight_bytes']:>5.2f}"
    )
    lines = [
        f" {threads:>3} {times['ours_ms']:>9.2f} {times['ours_spread']:>4.0%} "
        f"{times['over_eager']:>6.2f} {_ratio(times.get('over_xnnpack'))}"
        for threads, times in row.get("latency", {}).items()
    ]
    if not lines:
        return line
    return "\n".join([line + lines[0], *(" " * len(line) + text for text in lines[1:])])


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown, one line per model and batch that runs."""
    threads = sorted({each for row in rows for each in row.get("latency", {})})
    times = "".join(
        f" ms, {each} thread{'s' * (each > 1)} | /eager | /XNNPACK |" for each in threads
    )
    columns = "nodes | ggml | XNNPACK | kernels | delegates | error | lowering | .pte / weights"
    lines = [
        f"| model | {columns} |{times}",
        "|---" * (9 + 3 * len(threads)) + "|",
    ]
    for row in rows:
        if "failure" in row:
            continue
        name = row["model"] + (f", batch {row['batch']}" if row["batch"] > 1 else "")
        cells = [name, *(row[key] for key in ("nodes", "ggml", "xnnpack", "kernels", "delegates"))]
        cells += [f"{row['error']:.0e}", f"{row['lowering_s']:.0f} s"]
        cells.append(f"{row['pte_bytes'] / row['weight_bytes']:.2f}")
        for each in threads:
            found = row["latency"][each]
            cells.append(f"{found['ours_ms']:.2f} ± {found['ours_spread']:.0%}")
            cells.append(f"{found['over_eager']:.2f}")
            cells.append(f"{found['over_xnnpack']:.2f}" if "over_xnnpack" in found else "fails")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="by default all")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument(
        "--dynamic", action="store_true", help="dynamic sizes; models that have any"
    )
    parser.add_argument("--small", action="store_true", help="the models' small variants")
    parser.add_argument("--no-time", dest="time", action="store_false", help="no latencies")
    parser.add_argument("--keep", type=Path, help="a folder for programs, made once")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--json", type=Path, help="write the rows to a file")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/coverage.md")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    options = parser.parse_args()
    unknown = set(options.models) - set(MODELS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(MODELS)}")
    print(_HEADER + (_TIMES if options.time else ""))
    rows: list[dict[str, Any]] = []
    for name in options.models or MODELS:
        spec = MODELS[name].for_tests() if options.small else MODELS[name]
        if options.dynamic and not spec.dynamic_shapes:
            continue
        for batch in options.batch:
            row: dict[str, Any] = {"model": name, "batch": batch, "family": spec.family}
            try:
                row |= measure(spec, batch, options)
            except Exception as error:
                traceback.print_exc()
                row["failure"] = f"{type(error).__name__}: {error}".splitlines()[0]
            rows.append(row)
            print(show(row), flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1))
    if options.docs:
        write_table("models", markdown(rows))
    problems = {(row["model"], row["batch"]): found for row in rows if (found := missed(row))}
    for (name, batch), found in problems.items():
        print(f"missed: {name}, batch {batch}: {'; '.join(found)}")
    return 1 if options.check and problems else 0


if __name__ == "__main__":
    sys.exit(main())
