"""Inputs for the programs that commands run: files, or made up."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli.errors import CommandError

if TYPE_CHECKING:
    from orchestrator.native import NativeProgram, TensorInfo


def add_input_files(parser: argparse.ArgumentParser) -> None:
    """Add --input."""
    parser.add_argument(
        "--input",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.npy",
        help="a numpy file; repeat for each tensor that the method takes, in order",
    )


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add --input, --seed, --method and --threads; `program_inputs` reads them."""
    add_input_files(parser)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="makes up the tensors that have no file: floats from a normal distribution, integers "
        "and bools 0 or 1 (default: %(default)s)",
    )
    add_method(parser)
    add_threads(parser)


def add_method(parser: argparse.ArgumentParser) -> None:
    """Add --method."""
    parser.add_argument(
        "--method", default="forward", metavar="NAME", help="the method (default: %(default)s)"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add --threads."""
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="threads to compute with (default: one for each processor)",
    )


def program_inputs(program: NativeProgram, options: argparse.Namespace) -> list[Any]:
    """Return what a program's method is to be run with.

    Raises:
        CommandError: more files than the method takes tensors.
    """
    import numpy as np

    from orchestrator.native import TensorInfo, in_dim_order

    files = list(options.input)
    random = np.random.default_rng(options.seed)
    values: list[Any] = []
    for info in program.method(options.method).inputs:
        if not isinstance(info, TensorInfo):
            values.append(info.value)
        else:
            found = np.load(files.pop(0)) if files else _made_up(info, random)
            # One of another rank is refused by the program, with what it expects.
            fits = found.ndim == len(info.dim_order)
            values.append(in_dim_order(found, info.dim_order) if fits else found)
    if files:
        raise CommandError(
            f"{len(options.input)} input files are given, method {options.method!r} takes "
            f"{len(options.input) - len(files)} tensors"
        )
    return values


def _made_up(info: TensorInfo, random: Any) -> Any:
    import numpy as np

    if info.dtype == "bfloat16":
        raise CommandError("an input is bfloat16, which numpy lacks; use orchestrator-run")
    dtype = np.dtype(info.dtype)
    if dtype.kind == "f":
        return random.standard_normal(info.sizes).astype(dtype)
    return random.integers(0, 2, info.sizes).astype(dtype)
