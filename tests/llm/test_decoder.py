"""Decoders of GGUF files, in eager PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor

from examples.models.llama import Config, Llama
from orchestrator.llm.decoder import Decoder
from orchestrator.llm.expand import expanding
from orchestrator.llm.families import read_decoder
from orchestrator.llm.gguf_file import GgufFile
from tests.llm import made_up

TOKENS = torch.tensor([[5, 77, 3, 258, 5, 100, 41]])
NAMES = {
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "out": "attn_output",
    "query_norm": "attn_q_norm",
    "key_norm": "attn_k_norm",
}


def score(decoder: Decoder, tokens: Tensor, first: int = 0) -> Tensor:
    with torch.no_grad():
        return decoder(tokens, torch.arange(first, first + tokens.shape[1]))


def example(architecture: str) -> Llama:
    """The example model with the weights of `made_up.tensors`."""
    config = Config(
        made_up.DIM,
        made_up.DEPTH,
        made_up.HEADS,
        made_up.GROUPS,
        made_up.HIDDEN,
        len(made_up.TOKENS),
        query_key_norm=architecture == "qwen3",
    )
    weights = made_up.tensors(architecture, np.random.default_rng(1))
    found = {
        "words.weight": weights["token_embd.weight"],
        "head.weight": weights["token_embd.weight"],
        "norm.weight": weights["output_norm.weight"],
    }
    names = {f"attention.{ours}": theirs for ours, theirs in NAMES.items()}
    names |= {"norm1": "attn_norm", "norm2": "ffn_norm"}
    names |= {each: f"ffn_{each}" for each in ("gate", "up", "down")}
    for index in range(made_up.DEPTH):
        for ours, theirs in names.items():
            value = weights.get(f"blk.{index}.{theirs}.weight")
            if value is not None:
                found[f"blocks.{index}.{ours}.weight"] = value
    model = Llama(config).eval()
    missing = model.load_state_dict({k: torch.tensor(v) for k, v in found.items()}, strict=False)
    assert missing == ([], [])
    return model


def neighbours(value: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp's converter writes them for Llama: a pair's rows side by side."""
    n, k = value.shape
    return value.reshape(heads, 2, n // heads // 2, k).swapaxes(1, 2).reshape(n, k)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_scores_are_those_of_the_example_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    model = example(architecture)
    weights = made_up.tensors(architecture, np.random.default_rng(1))
    if architecture == "llama":
        for index in range(made_up.DEPTH):
            for name, heads in (("attn_q", made_up.HEADS), ("attn_k", made_up.GROUPS)):
                key = f"blk.{index}.{name}.weight"
                weights[key] = neighbours(weights[key], heads)
    monkeypatch.setattr(made_up, "tensors", lambda *_, **__: weights)
    path = made_up.write(tmp_path / "file.gguf", architecture)
    with torch.no_grad():
        expected = model(TOKENS)[:, -1]
    got = score(read_decoder(GgufFile(path)), TOKENS)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


def test_biases_of_qwen2_are_added(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "file.gguf", "qwen2")
    scores = []
    for scale in (1.0, 0.0):
        decoder = read_decoder(GgufFile(path))
        for block in decoder.blocks:
            for layer in (block.attention.query, block.attention.key, block.attention.value):
                layer.bias *= scale
        scores.append(score(decoder, TOKENS))
    assert (scores[0] - scores[1]).abs().max() > 0.1


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_prompt_in_parts_scores_as_a_whole_one(tmp_path: Path, architecture: str) -> None:
    file = GgufFile(made_up.write(tmp_path / "file.gguf", architecture))
    whole = score(read_decoder(file), TOKENS)
    parts = read_decoder(file)
    score(parts, TOKENS[:, :4])
    score(parts, TOKENS[:, 4:6], 4)
    torch.testing.assert_close(score(parts, TOKENS[:, 6:], 6), whole, rtol=1e-4, atol=1e-5)


KINDS = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.F16, Type.BF16]


@pytest.mark.parametrize("kind", KINDS)
def test_integers_score_as_the_floats_that_they_stand_for(tmp_path: Path, kind: Type) -> None:
    file = GgufFile(made_up.write(tmp_path / "file.gguf", kinds=kind))
    integers = score(read_decoder(file), TOKENS)
    floats = score(read_decoder(file, read=expanding(file)), TOKENS)
    torch.testing.assert_close(integers, floats, rtol=1e-5, atol=1e-5)
