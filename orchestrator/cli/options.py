"""Options that several commands share: backends, and how to plan."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from orchestrator.cli.errors import CommandError
from orchestrator.options import DEFAULT_BACKENDS


def add_backends(parser: argparse.ArgumentParser) -> None:
    """Add --backends; `backend_names` reads it."""
    parser.add_argument(
        "--backends",
        default=",".join(DEFAULT_BACKENDS),
        metavar="NAMES",
        help="comma-separated, the preferred one first; '' for ExecuTorch's kernels alone "
        "(default: %(default)s)",
    )


def backend_names(options: argparse.Namespace) -> list[str]:
    """Return the names given by --backends."""
    return [name.strip() for name in options.backends.split(",") if name.strip()]


def add_planning(
    parser: argparse.ArgumentParser, *, measure: bool, title: str = "how to plan"
) -> None:
    """Add the options of `PlanOptions`; `planning_options` reads them.

    measure: whether plans can be timed. title: of the group.
    """
    group = parser.add_argument_group(title)
    group.add_argument(
        "--strategy",
        choices=("cost", "greedy"),
        default="cost",
        help="the cheapest split, or the first backend that takes a node (default: %(default)s)",
    )
    group.add_argument(
        "--tune",
        choices=("off", "cached", *(["measure"] if measure else [])),
        default="cached",
        help="costs estimated from shapes; from the cost table where it has them"
        + ("; or measured, and the best plans timed whole" if measure else "")
        + " (default: %(default)s)",
    )
    group.add_argument(
        "--pin",
        action="append",
        default=[],
        metavar="PATTERN=BACKEND",
        help="run what matches on a backend; PATTERN is about modules ('layers.3', 'layers.*'), "
        "ops ('linear') or nodes; may be repeated",
    )
    group.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN[=BACKENDS]",
        help="keep what matches off these (comma-separated) or all delegates; may be repeated",
    )
    group.add_argument(
        "--quantize",
        choices=("dynamic", "8da8w", "8da4w", "8w", "4w"),
        help="quantize the model first: int8 layers whose activations are quantized in every run; "
        "linear layers with weights of 8 or 4 bits and activations of 8; weights alone ('static' "
        "needs calibration inputs: lower(quantize='static', calibration=...))",
    )
    group.add_argument(
        "--weight-error",
        type=float,
        default=0.0,
        metavar="E",
        help="store weights in half types where they are off by E at most, of a row's largest "
        "element (default: 0; float16 needs 5e-4, bfloat16 4e-3)",
    )
    group.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="E",
        help="let backends compute in less than float32 where results are off by E of the largest "
        "value at most (default: 0)",
    )
    group.add_argument("--max-partitions", type=int, metavar="N", help="at most N delegate calls")
    group.add_argument(
        "--max-duplicated-bytes", type=int, metavar="N", help="of weights that two backends hold"
    )
    group.add_argument(
        "--max-private-bytes", type=int, metavar="N", help="that delegates hold beside the file"
    )
    group.add_argument(
        "--plan-threads",
        type=int,
        metavar="N",
        help="threads that the program will run on (default: as many as this process may use)",
    )
    group.add_argument("--target", default="host", metavar="NAME", help="whose costs to plan by")
    group.add_argument("--cost-table", type=Path, metavar="FILE", help="measured costs")
    if measure:
        group.add_argument(
            "--budget", type=float, metavar="SECONDS", help="for --tune measure: how long"
        )


def planning_is_asked_for(options: argparse.Namespace) -> bool:
    """Whether any option of `add_backends` or `add_planning` differs from its default."""
    parser = argparse.ArgumentParser()
    add_backends(parser)
    add_planning(parser, measure=False)
    defaults = vars(parser.parse_args([]))
    return any(getattr(options, name) != value for name, value in defaults.items())


def planning_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments for `lower` and `plan`.

    Raises:
        CommandError: a --pin without a backend.
    """
    found = {
        "strategy": options.strategy,
        "tune": options.tune,
        "threads": options.plan_threads,
        "target": options.target,
        "pins": dict(map(_pin, options.pin)),
        "exclude": _excludes(options.exclude),
        "max_partitions": options.max_partitions,
        "max_duplicated_bytes": options.max_duplicated_bytes,
        "max_private_bytes": options.max_private_bytes,
        "cost_table": options.cost_table,
        "weight_error": options.weight_error,
        "tolerance": options.tolerance,
        "quantize": options.quantize,
    }
    if getattr(options, "budget", None) is not None:
        found["budget_s"] = options.budget
    return found


def _pin(text: str) -> tuple[str, str]:
    pattern, equals, backend = text.rpartition("=")
    if not equals or not pattern or not backend:
        raise CommandError(f"--pin {text}: expected PATTERN=BACKEND, such as layers.3=ggml")
    return pattern, backend


def _excludes(texts: list[str]) -> list[str] | dict[str, list[str]]:
    if not any("=" in text for text in texts):
        return texts
    from orchestrator.backends import backend_names as all_names

    found: dict[str, list[str]] = {}
    for text in texts:
        pattern, equals, names = text.rpartition("=")
        where = names.split(",") if equals else list(all_names())
        found.setdefault(pattern if equals else text, []).extend(where)
    return found
