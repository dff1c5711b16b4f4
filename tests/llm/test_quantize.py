"""lower_llm(quantize=..., activations=...): what is quantized, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType as Type
from torch import nn

from orchestrator import LanguageModel, ModelError, OptionError
from orchestrator.llm.decoder import Decoder, Matrix
from orchestrator.llm.families import read_decoder
from orchestrator.llm.generate import generate, in_chunks
from orchestrator.llm.lower_llm import lower_llm
from orchestrator.llm.open_source import open_source
from orchestrator.llm.quantize import quantize_matrices, round_activations
from orchestrator.llm.sampling import Sampling
from tests.llm import made_up, made_up_folder
from tests.llm.test_decoder import TOKENS, score

PROMPT = "the heath"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of bfloat16 whose head is its table of words."""
    return made_up_folder.write(
        tmp_path_factory.mktemp("llm") / "model", "qwen3", torch.bfloat16, depth=1
    )


def quantized(path: Path, recipe: str) -> Decoder:
    decoder = read_decoder(open_source(path))
    quantize_matrices(decoder, recipe, path.name)
    return decoder


def notes(model: LanguageModel) -> set[str]:
    return {
        note for method in model.program.report.methods if method.plan for note in method.plan.notes
    }


@pytest.mark.parametrize("recipe", ["8da8w", "8da4w", "8w", "4w"])
def test_it_generates_as_the_quantized_decoder_does(folder: Path, recipe: str) -> None:
    model = lower_llm(folder, chunk=4, tune="off", quantize=recipe)  # type: ignore[arg-type]
    decoder = quantized(folder, recipe)
    with torch.no_grad():
        want = generate(
            in_chunks(decoder, decoder, 4),
            model.tokenizer,
            model.tokenizer.encode(PROMPT),
            context=decoder.context,
            max_new_tokens=12,
            sampling=Sampling(),
        )
    got = model.generate(PROMPT, 12)
    assert got.tokens == want.tokens
    assert len(set(got.tokens)) > 2
    assert f"Quantized ({recipe}): 8 of 8 layers." in notes(model)
    # Both methods read one copy of the integers: with two, the smallest would be 30 kB more.
    stored = sum(part.numel() for part in decoder.blocks.parameters() if part.ndim == 2)
    words = decoder.words.weight
    bits = 4 if "4w" in recipe else 8
    integers = (stored + words.numel()) * bits // 8
    assert len(model.program.buffer) < integers + words.nbytes + 0.25 * integers + 70_000


def test_the_table_stays_and_the_head_becomes_a_matrix_of_its_own(folder: Path) -> None:
    before, after = read_decoder(open_source(folder)), quantized(folder, "8w")
    assert before.head is before.words
    assert isinstance(after.words, Matrix)
    assert torch.equal(after.words.weight, before.words.weight)
    assert isinstance(after.head, nn.Linear)
    want, got = score(before, TOKENS), score(after, TOKENS)
    off = (want - got).abs().max() / want.abs().max()
    assert 0 < off < 0.05


def test_biases_stay(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "file.gguf", "qwen2", depth=1)
    want, got = score(read_decoder(open_source(path)), TOKENS), score(quantized(path, "8w"), TOKENS)
    assert (want - got).abs().max() / want.abs().max() < 0.05


def test_what_is_of_integers_stays_so(tmp_path: Path) -> None:
    mixed = made_up.write(tmp_path / "mixed.gguf", kinds={"ffn_up": Type.Q4_0}, depth=1)
    decoder = read_decoder(open_source(mixed))
    assert quantize_matrices(decoder, "8w", "mixed.gguf") == (
        "Quantized (8w): 7 of 8 layers; left in floats: 1 linear of integers, as the file has them."
    )
    whole = made_up.write(tmp_path / "whole.gguf", kinds=Type.Q4_0, depth=1)
    with pytest.raises(ModelError, match=r"whole\.gguf has no linear layer that it quantizes"):
        lower_llm(whole, tune="off", quantize="8w")


@pytest.mark.parametrize("recipe", ["static", "dynamic", "9w"])
def test_other_recipes_are_refused_before_anything_is_read(recipe: str) -> None:
    with pytest.raises(OptionError, match=f"quantize='{recipe}'; expected 8da8w, 8da4w, 8w or 4w"):
        lower_llm("no such file", quantize=recipe)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q4_1, Type.Q5_1], ids=lambda kind: kind.name)
def test_activations_of_integers(tmp_path: Path, kind: Type) -> None:
    """Tokens are those of the rounded decoder in eager PyTorch, scores near the file's own."""
    path = made_up.write(tmp_path / "file.gguf", kinds=kind, depth=1)
    model = lower_llm(path, chunk=4, tune="off", activations="int8")
    plain, decoder = (read_decoder(open_source(path)) for _ in range(2))
    note = round_activations(decoder, path.name)
    assert note.startswith("What 8 matrices of integers multiply is rounded to 8 bits (")
    assert note in notes(model)
    want, rounded = score(plain, TOKENS), score(decoder, TOKENS)
    off = (want - rounded).abs().max() / want.abs().max()
    assert 1e-4 < off < 0.05
    read = model.generate(PROMPT, 12)
    with torch.no_grad():
        expected = generate(
            in_chunks(decoder, decoder, 4),
            model.tokenizer,
            model.tokenizer.encode(PROMPT),
            context=decoder.context,
            max_new_tokens=12,
            sampling=Sampling(),
        )
    assert read.tokens == expected.tokens
    assert len(set(read.tokens)) > 2


def test_activations_need_a_matrix_of_integers(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "file.gguf", depth=1)
    with pytest.raises(ModelError, match=r"file\.gguf has no matrix of integers that activations"):
        lower_llm(path, tune="off", activations="int8")
    with pytest.raises(OptionError, match="activations is 'int4'; expected 'float32' or 'int8'"):
        lower_llm("no such file", activations="int4")  # type: ignore[arg-type]
