"""`orchestrator run`: run a method of a .pte natively."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from orchestrator.cli.inputs import add_input_files, add_method, add_threads
from orchestrator.cli.parsers import Commands

_DESCRIPTION = """Run a method of a .pte in the native runner, a program without Python, write its
outputs and print latencies. Exit codes: 0 done, 1 the method failed, 2 the command line is wrong,
3 the program cannot be loaded, 4 an input does not fit, 5 a result cannot be written."""


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "run", help="run a .pte natively", description=_DESCRIPTION, epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("file", type=Path, metavar="FILE.pte")
    add_input_files(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="makes up tensors without a file")
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="I:AxBxC",
        help="sizes of input I, for a made-up tensor of dynamic shape",
    )
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="write outputs as .npy")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="timed runs (default: 1)")
    parser.add_argument(
        "--warmup", type=int, default=0, metavar="N", help="runs before them (default: 0)"
    )
    parser.add_argument(
        "--etdump",
        type=Path,
        metavar="FILE",
        help="write a profile, for `orchestrator report --etdump` and ExecuTorch's Inspector",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    add_method(parser)
    add_threads(parser)
    parser.set_defaults(command=run)


_EXAMPLES = """examples:
  orchestrator run model.pte --runs 20 --warmup 3
  orchestrator run model.pte --input image.npy --output-dir results
  orchestrator run model.pte --runs 20 --etdump profile.etdump"""


def run(options: argparse.Namespace) -> int:
    """Hand the options to the runner; its exit code is the command's."""
    from _ggml_delegate import RUNNER

    arguments = [str(RUNNER), str(options.file), "--method", options.method]
    arguments += ["--runs", str(options.runs), "--warmup", str(options.warmup)]
    arguments += ["--threads", str(options.threads)]
    arguments += [part for file in options.input for part in ("--input", str(file))]
    arguments += [part for shape in options.shape for part in ("--shape", shape)]
    for name in ("seed", "output_dir", "etdump"):
        value = getattr(options, name)
        if value is not None:
            arguments += [f"--{name.replace('_', '-')}", str(value)]
    if options.json:
        arguments += ["--json", "-"]
    return subprocess.run(arguments, check=False).returncode
