"""`orchestrator lower-llm`: make a .pte that generates text."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestrator.cli.options import add_backends, backend_names
from orchestrator.cli.output import add_color
from orchestrator.cli.parsers import Commands
from orchestrator.cli.planned import add_shown, show, telling

_DESCRIPTION = """Make a .pte that generates text from a GGUF file or a Hugging Face folder;
`orchestrator generate` and `orchestrator-run --generate` run it. docs/llm.md names architectures
and types of weights."""
_EXAMPLES = """examples:
  orchestrator lower-llm model.gguf -o model.pte --context 2048
  orchestrator lower-llm folder/ -o model.pte --quantize 8da4w --report"""


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "lower-llm",
        help="make a .pte that generates text",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a GGUF file or a folder")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.pte")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="a GGUF file or a folder whose tokenizer and chat template to take instead",
    )
    parser.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="tokens that the caches hold (default: 2048, or as many as the model is made for)",
    )
    parser.add_argument(
        "--chunk",
        type=int,
        metavar="N",
        help="the most tokens of a prompt that are run at once (default: 128)",
    )
    parser.add_argument(
        "--methods",
        choices=("prefill+decode", "forward"),
        default="prefill+decode",
        help="a method for several tokens and one for a single one, or one for both, as "
        "ExecuTorch's TextLLMRunner runs it (default: %(default)s)",
    )
    parser.add_argument(
        "--quantize",
        choices=("8da8w", "8da4w", "8w", "4w"),
        help="quantize matrices of floats: weights of 8 or 4 bits with activations of 8, or "
        "weights alone",
    )
    parser.add_argument(
        "--activations",
        choices=("float32", "int8"),
        default="float32",
        help="int8: round what matrices of integers multiply to 8 bits, for faster prompts "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--separate-weights",
        action="store_true",
        help="plan the methods apart, each where it is fastest, though the file may have weights "
        "twice then",
    )
    add_backends(parser)
    parser.add_argument(
        "--tune",
        choices=("off", "cached", "measure"),
        default="cached",
        help="costs estimated from shapes; from the cost table where it has them; or measured, and "
        "the best plans timed whole (default: %(default)s)",
    )
    parser.add_argument(
        "--plan-threads",
        type=int,
        metavar="N",
        help="threads that the program will run on (default: as many as this process may use)",
    )
    add_shown(parser)
    add_color(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Lower the model, save the program."""
    with telling(str(options.source)) as tell:
        from orchestrator.llm.lower_llm import lower_llm

        model = lower_llm(
            options.source,
            tokenizer=options.tokenizer,
            backends=backend_names(options),
            context=options.context,
            chunk=options.chunk,
            methods=options.methods,
            quantize=options.quantize,
            activations=options.activations,
            share_weights=not options.separate_weights,
            tune=options.tune,
            threads=options.plan_threads,
            progress=tell,
        )
    model.program.save(options.output)
    show(model.program.report, options)
