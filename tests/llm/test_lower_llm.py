"""Small decoders, lowered from files, generate what eager PyTorch does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
from gguf import GGMLQuantizationType as Type

from orchestrator import LanguageModel, ModelError, OptionError, TuneEvent
from orchestrator.llm.decoder import Decoder
from orchestrator.llm.families import read_decoder
from orchestrator.llm.generate import Generation, generate, in_chunks
from orchestrator.llm.lower_llm import lower_llm
from orchestrator.llm.open_source import open_source
from orchestrator.llm.sampling import Sampling
from orchestrator.llm.tokenizer import Tokenizer
from tests.llm import made_up, made_up_folder

PROMPT = "the heath"


def eager(path: Path, prompt: str, tokens: int, chunk: int) -> Generation:
    file = open_source(path)
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
    model = lower_llm(path, tune="off")
    assert model.chunk == model.context == made_up.CONTEXT
    assert_generates_as_eager(model, path)


def test_a_folder_generates_as_eager_does(tmp_path: Path) -> None:
    """Also once it is saved, with the tokenizer in the file."""
    folder = made_up_folder.write(tmp_path / "model", "qwen3", torch.bfloat16, depth=1, begins=True)
    model = lower_llm(folder, chunk=4, tune="off")
    assert_generates_as_eager(model, folder)
    # The source's matrices, which take half of what floats would; and 50 kB for all else.
    source = (folder / "model.safetensors").stat().st_size
    assert len(model.program.buffer) < source + 60_000
    model.save(tmp_path / "model.pte")
    for tokenizer in (None, folder):
        loaded = LanguageModel.load(tmp_path / "model.pte", tokenizer=tokenizer, threads=1)
        assert loaded.generate(PROMPT, 12).tokens == model.generate(PROMPT, 12).tokens
        assert loaded.tokenizer.encode("a")[0] == made_up_folder.BEGIN


def test_a_saved_file_generates_the_same(small: LanguageModel, tmp_path: Path) -> None:
    small.save(tmp_path / "small.pte")
    loaded = LanguageModel.load(tmp_path / "small.pte", threads=1)
    assert (loaded.context, loaded.chunk) == (small.context, small.chunk)
    assert loaded.generate(PROMPT, 12).tokens == small.generate(PROMPT, 12).tokens


def test_sessions_generate_as_if_each_was_alone(small: LanguageModel) -> None:
    prompts = [PROMPT, PROMPT + " tea", "the tea", PROMPT + " tea and more"]
    expected = [small.generate(prompt, 6).tokens for prompt in prompts]
    one, other = small.session(), small.session()
    held = []
    for prompt, want in zip(prompts, expected, strict=True):
        first, second = one.generate(prompt, 6), other.generate("another", 3)
        assert first.tokens == want
        held.append((first.held_tokens, second.held_tokens))
    whole, another = (len(small.tokenizer.encode(text)) for text in (PROMPT, "another"))
    assert held == [(0, 0), (whole, another - 1), (2, another - 1), (2, another - 1)]
    one.reset()
    again = one.generate(prompts[0], 6)
    assert (again.tokens, again.held_tokens) == (expected[0], 0)


def test_a_session_goes_on_from_a_file(small: LanguageModel, tmp_path: Path) -> None:
    prompts = [PROMPT, PROMPT + " tea", PROMPT + " tea and more"]
    session, expected = small.session(), [small.generate(prompt, 6).tokens for prompt in prompts]
    session.generate(prompts[0], 6)
    session.save(tmp_path / "session.npz")
    small.save(tmp_path / "small.pte")
    for model in (small, LanguageModel.load(tmp_path / "small.pte", threads=1)):
        other = model.session()
        other.restore(tmp_path / "session.npz")
        assert other.tokens == session.tokens
        found = [other.generate(prompt, 6) for prompt in prompts]
        assert [each.tokens for each in found] == expected
        assert all(each.held_tokens > 0 for each in found)


def test_files_that_are_no_sessions_are_errors(small: LanguageModel, tmp_path: Path) -> None:
    session, path = small.session(), tmp_path / "session.npz"
    expected = session.generate(PROMPT, 6).tokens
    session.save(path)
    whole, held = path.read_bytes(), session.tokens
    with np.load(path) as arrays:
        parts = dict(arrays)

    def refused(message: str) -> None:
        with pytest.raises(ModelError, match=message):
            session.restore(path)
        assert session.tokens == held

    for damaged in (whole[:-9], whole[: len(whole) // 2], whole[:1000] + b"?" + whole[1001:], b""):
        path.write_bytes(damaged)
        refused(r"session\.npz is no session, or a damaged one")
    np.save(path.with_suffix(".npy"), np.ones(3))
    path.with_suffix(".npy").rename(path)
    refused("is no session, or a damaged one")
    for change, message in (
        ({"program": np.array("other")}, "of another program: .* other, expected [0-9a-f]{64}"),
        ({"tokens": np.int64(2)}, r"the tokens are int64 \[\]; expected"),
        ({"tokens": np.ones(2, np.uint8)}, r"the tokens are uint8 \[2\]; expected"),
        ({"tokens": np.array([3, -1])}, r"the tokens are from -1 to 3; expected 0 to \d+"),
        ({"tokens": np.array([3, 10**9])}, r"the tokens are from 3 to 1000000000; expected"),
        ({"tokens": np.ones(small.context + 1, np.int64)}, "expected int64, at most 32"),
        ({"shared": np.ones(5, np.uint8)}, "damaged session: .*has 5 bytes, expected"),
        ({"method.other": np.ones(5, np.uint8)}, "damaged session: .*no method 'other'"),
        ({"prefill": np.ones(5, np.uint8)}, "is no session: it has 'prefill'"),
    ):
        np.savez(path, **{**parts, **change})
        refused(message)
    np.savez(path, tokens=parts["tokens"])
    refused("is no session: it has no 'program'")
    assert session.generate(PROMPT, 6).tokens == expected


def test_methods_share_their_caches(small: LanguageModel) -> None:
    assert set(small.program.signatures) == {"prefill", "decode"}
    notes = {method.name: method.plan.notes for method in small.program.report.methods}
    (shared,) = (note for note in notes["prefill"] if "shared with decode" in note)
    assert "blocks.0.attention.keys, blocks.0.attention.values" in shared


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


def test_methods_are_one_or_two(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "file.gguf")
    with pytest.raises(OptionError, match="methods is 'both'; expected 'prefill\\+decode' or 'f"):
        lower_llm(path, methods="both")  # type: ignore[arg-type]


class TestOneMethod:
    """As ExecuTorch's runner of language models runs it."""

    @pytest.fixture(scope="class")
    def events(self) -> list[TuneEvent]:
        """Of the lowering of `single`."""
        return []

    @pytest.fixture(scope="class")
    def plain(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The runner's Python module fails on pieces that are not UTF-8."""
        path = tmp_path_factory.mktemp("llm") / "plain.gguf"
        return made_up.write(path, kinds=Type.Q4_1, plain=True)

    @pytest.fixture(scope="class")
    def single(self, plain: Path, events: list[TuneEvent]) -> LanguageModel:
        return lower_llm(
            plain, context=24, chunk=4, methods="forward", tune="off", progress=events.append
        )

    def test_greedy_tokens_are_those_of_eager(self, single: LanguageModel, plain: Path) -> None:
        assert (set(single.program.signatures), single.context, single.chunk) == (
            {"forward"},
            24,
            4,
        )
        assert_generates_as_eager(single, plain)

    def test_executorchs_runner_generates_the_same(
        self, single: LanguageModel, tmp_path: Path
    ) -> None:
        """In this process: it has the delegates once `orchestrator.native` is imported."""
        # One more than its context holds: the last is of a token without a place of its own.
        expected = [single.tokenizer.decode([x]) for x in single.generate(PROMPT, 40).tokens]
        assert len(expected) == 24 - 7 + 1
        runner = executorch_runner(single, tmp_path)
        for count in (12, len(expected)):
            pieces: list[str] = []
            config = GenerationConfig(echo=False, max_new_tokens=count, temperature=0.0)
            runner.generate(PROMPT, config, pieces.append)
            runner.reset()
            assert pieces == expected[:count]

    def test_executorchs_runner_refuses_two(self, small: LanguageModel, tmp_path: Path) -> None:
        """Each would have caches of its own there."""
        with pytest.raises(RuntimeError, match="Failed to create"):
            executorch_runner(small, tmp_path)

    @pytest.mark.usefixtures("single")
    def test_progress_names_the_stages(self, events: list[TuneEvent]) -> None:
        stages = ["reading the file", "exporting", "lowering", "done"]
        assert [(event.stage, event.done) for event in events] == list(
            zip(stages, range(4), strict=True)
        )


def executorch_runner(model: LanguageModel, folder: Path) -> TextLLMRunner:
    model.save(folder / "model.pte")
    model.tokenizer.save(folder / "tokenizer.json")
    return TextLLMRunner(str(folder / "model.pte"), str(folder / "tokenizer.json"))
