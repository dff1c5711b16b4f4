"""`orchestrator generate`: text from a language model in a .pte."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.errors import CommandError
from orchestrator.cli.inputs import add_threads
from orchestrator.cli.output import Progress
from orchestrator.cli.parsers import Commands
from orchestrator.quiet import quiet_imports
from orchestrator.report.words import plural

if TYPE_CHECKING:
    from orchestrator.llm.generate import Generation
    from orchestrator.llm.model import LanguageModel

_DESCRIPTION = """Have a language model answer, or go on with a text; `orchestrator.lower_llm` makes
such files. The text goes to standard output as it comes; at the end standard error tells how fast.
Ctrl-C ends the text, with exit code 130."""
_EXAMPLES = """examples:
  orchestrator generate model.pte --prompt "What is the capital of France?"
  orchestrator generate model.pte --raw --prompt "The capital of France is" --stop "."
  orchestrator generate model.pte --prompt - --temperature 0.8 --top-p 0.95 < question.txt"""


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "generate",
        help="text from a language model",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE.pte")
    parser.add_argument(
        "--prompt",
        required=True,
        metavar="TEXT",
        help="the question, or the text to continue; - reads standard input, without the last "
        "line's end",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--chat",
        action="store_true",
        default=None,
        help="the prompt is a user's message, in the model's chat template (default where it has "
        "one)",
    )
    kind.add_argument(
        "--raw", dest="chat", action="store_false", help="the prompt is text to be continued"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        default=256,
        metavar="N",
        help="tokens of the answer, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="X",
        help="what scores are divided by before a token is drawn; 0 takes the best one always "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="draw from the best tokens whose probabilities add up to P (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="repeats what is drawn")
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="ends the answer and is no part of it; may be repeated",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="a GGUF file or a Hugging Face folder whose tokenizer and chat template to take, in "
        "place of those in the .pte",
    )
    add_threads(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Print the text as it comes, and how fast it was."""
    prompt = _prompt(options.prompt)
    with Progress() as progress:
        progress(f"loading {options.file}")
        with quiet_imports():
            from orchestrator.llm.generate import GenerationInterrupted
            from orchestrator.llm.model import LanguageModel
        model = LanguageModel.load(
            options.file, tokenizer=options.tokenizer, threads=options.threads or None
        )
    try:
        found = _generate(model, prompt, options)
    except GenerationInterrupted as interrupt:
        _tell(interrupt.generation)
        raise
    _tell(found)


def _generate(model: LanguageModel, prompt: str, options: argparse.Namespace) -> Generation:
    chat = model.tokenizer.has_template if options.chat is None else options.chat
    return model.generate(
        [{"role": "user", "content": prompt}] if chat else prompt,
        options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
        stop=options.stop,
        stream=_printer(),
    )


def _prompt(given: str) -> str:
    """Return the text of --prompt.

    Raises:
        CommandError: standard input is not UTF-8.
    """
    if given != "-":
        return given
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise CommandError(f"standard input is not UTF-8: {error}") from None


def _printer() -> Callable[[str], None]:
    """Return what prints a piece; what would command a terminal is shown as U+FFFD there."""
    show = _harmless if sys.stdout.isatty() else str
    return lambda piece: print(show(piece), end="", flush=True)


def _harmless(text: str) -> str:
    return "".join("\N{REPLACEMENT CHARACTER}" if ord(each) in _CONTROLS else each for each in text)


_CONTROLS = {*range(32), *range(127, 160)} - set(map(ord, "\n\t"))


def _tell(found: Generation) -> None:
    """End the line, and tell how fast the text came."""
    if not found.text.endswith("\n"):
        print(flush=True)
    prompt = _speed(found.prompt_tokens, found.prompt_tokens_per_s)
    answer = _speed(len(found.tokens), found.tokens_per_s)
    print(f"prompt: {prompt}; answer: {answer}; ended by {_ENDINGS[found.ending]}", file=sys.stderr)


_ENDINGS = {
    "end": "the model",
    "stop": "a stop text",
    "length": "--max-new-tokens",
    "context": "the end of the context",
    "interrupted": "Ctrl-C",
}


def _speed(tokens: int, per_s: float) -> str:
    speed = f", {per_s:.1f} tokens/s" if per_s else ""
    return f"{plural(tokens, 'token')}{speed}"
