"""Small decoders, lowered from files, generate what eager PyTorch does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType as Type

from orchestrator import OptionError, TuneEvent
from orchestrator.llm.decoder import Decoder
from orchestrator.llm.families import read_decoder
from orchestrator.llm.generate import Generation, generate, in_chunks
from orchestrator.llm.gguf_file import GgufFile
from orchestrator.llm.lower_llm import LanguageModel, lower_llm
from orchestrator.llm.sampling import Sampling
from orchestrator.llm.tokenizer import Tokenizer
from tests.llm import made_up

PROMPT = "the heath"


def eager(path: Path, prompt: str, tokens: int, chunk: int) -> Generation:
    file = GgufFile(path)
    decoder: Decoder = read_decoder(file)
    with torch.no_grad():
        return generate(
            in_chunks(decoder, decoder, chunk),
            Tokenizer(file),
            Tokenizer(file).encode(prompt),
            context=decoder.context,
            max_new_tokens=tokens,
            sampling=Sampling(),
        )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up.write(tmp_path_factory.mktemp("llm") / "file.gguf", kinds=Type.Q4_1)


@pytest.fixture(scope="module")
def small(file: Path) -> LanguageModel:
    return lower_llm(file, chunk=4, tune="off")


def assert_generates_as_eager(model: LanguageModel, path: Path) -> None:
    got, want = model.generate(PROMPT, 12), eager(path, PROMPT, 12, 4)
    assert (got.tokens, got.text, got.ending) == (want.tokens, want.text, want.ending)
    assert len(set(got.tokens)) > 2


def test_greedy_tokens_are_those_of_eager(small: LanguageModel, file: Path) -> None:
    assert_generates_as_eager(small, file)
    # The caches of the text before do not matter.
    assert_generates_as_eager(small, file)


@pytest.mark.parametrize(("architecture", "kind"), [("qwen2", Type.Q8_0), ("qwen3", Type.F16)])
def test_other_families_generate_as_eager_does(
    tmp_path: Path, architecture: str, kind: Type
) -> None:
    """One layer has all that the families differ in."""
    path = made_up.write(tmp_path / "file.gguf", architecture, kind, depth=1)
    assert_generates_as_eager(lower_llm(path, chunk=4, tune="off"), path)


def test_methods_share_their_caches(small: LanguageModel) -> None:
    assert set(small.program.signatures) == {"prefill", "decode"}
    notes = {method.name: method.plan.notes for method in small.program.report.methods}
    assert "Buffer blocks.0.attention.keys is shared with decode." in notes["prefill"]


def test_the_context_is_the_models_own_where_that_is_shorter(small: LanguageModel) -> None:
    assert small.context == made_up.CONTEXT
    assert small.generate(PROMPT, 100).ending in ("context", "end")


def test_a_prompt_beyond_the_context_names_both_numbers(small: LanguageModel) -> None:
    with pytest.raises(OptionError, match="prompt has 33 tokens, and the context holds 32"):
        small.generate("a" * 33)


def test_conversations_are_prompts(small: LanguageModel) -> None:
    messages = [{"role": "user", "content": "hi"}]
    text = small.tokenizer.chat(messages)
    assert small.generate(messages, 4).tokens == small.generate(text, 4).tokens


def test_a_seed_repeats_a_text(small: LanguageModel) -> None:
    texts = [small.generate(PROMPT, 8, temperature=2.0, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("chunk", [1, 33])
def test_a_chunk_is_some_tokens_of_the_context(tmp_path: Path, chunk: int) -> None:
    path = made_up.write(tmp_path / "file.gguf")
    with pytest.raises(OptionError, match=f"chunk is {chunk}; expected 2 to the context, 32"):
        lower_llm(path, chunk=chunk)


def test_progress_names_the_stages(tmp_path: Path) -> None:
    events: list[TuneEvent] = []
    path = made_up.write(tmp_path / "file.gguf", depth=1)
    model = lower_llm(path, context=8, tune="off", progress=events.append)
    stages = ["reading the file", "exporting", "lowering", "done"]
    assert [(event.stage, event.done) for event in events] == list(
        zip(stages, range(4), strict=True)
    )
    assert model.chunk == 8
    assert model.generate("abc", 2).prompt_tokens == 3
