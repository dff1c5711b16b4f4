"""ExecuTorch's `construct_transformer` as a source: tokens are those of the transformer itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from executorch.examples.models.llama.llama_transformer import construct_transformer
from executorch.examples.models.llama.model_args import ModelArgs
from torch import Tensor, nn

from orchestrator import LanguageModel, ModelError, lower_llm
from orchestrator.llm.open_source import open_tokenizer
from tests.llm import made_up

PROMPT = "the heath"
ROOM = 24


def transformer(size: int, **switches: Any) -> nn.Module:
    torch.manual_seed(5)
    sizes: dict[str, Any] = {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "hidden_dim": 64,
        "vocab_size": size,
        "max_seq_len": ROOM,
        "max_context_len": ROOM,
        "generate_full_logits": True,
    }
    model: nn.Module = construct_transformer(ModelArgs(**{**sizes, **switches})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if "norm" in name or name.endswith("bias") else 1.5 / len(parameter) ** 0.5
            parameter.add_(torch.randn_like(parameter) * spread)
    return model


def greedy(model: nn.Module, prompt: list[int], count: int) -> tuple[int, ...]:
    """The tokens that the transformer itself continues a prompt with, all of them run each time."""
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            found: Any = model(torch.tensor([tokens]))
            scores: Tensor = found[0] if isinstance(found, tuple) else found
            tokens.append(int(scores[0, -1].argmax()))
    return tuple(tokens[len(prompt) :])


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up.write(tmp_path_factory.mktemp("words") / "words.gguf", depth=1)


@pytest.fixture(scope="module")
def size(words: Path) -> int:
    return open_tokenizer(words).size


def lowered(model: nn.Module, words: Path) -> LanguageModel:
    return lower_llm(model, tokenizer=words, chunk=4, tune="off", backends=["ggml"])


KINDS: dict[str, dict[str, Any]] = {
    "rotation of neighbours": {},
    "rotation of halves": {"use_hf_rope": True, "head_dim": 16},
    "scaled rotation": {"use_scaled_rope": True, "rope_theta": 500000.0},
    "biases": {"use_hf_rope": True, "attention_qkv_bias": True},
    "norms of queries and keys": {
        "use_hf_rope": True,
        "use_qk_norm": True,
        "qk_norm_before_rope": True,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_transformer(kind: str, words: Path, size: int) -> None:
    model = transformer(size, **KINDS[kind])
    made = lowered(model, words)
    prompt = made.tokenizer.encode(PROMPT)
    expected = greedy(model, prompt, 12)
    assert len(set(expected)) > 3
    found = made.generate(PROMPT, 12).tokens
    ends = [index for index, token in enumerate(expected) if token in made.tokenizer.ends]
    assert found == expected[: ends[0] if ends else None]
    assert made.context == ROOM


def test_a_tied_head_is_stored_once(words: Path, size: int) -> None:
    apart, tied = transformer(size), transformer(size)
    tied.output.weight = tied.tok_embeddings.weight  # type: ignore[union-attr,assignment]
    files = [lowered(model, words).program.buffer for model in (apart, tied)]
    assert size * 32 * 4 <= len(files[0]) - len(files[1]) < size * 32 * 4 + 2500


def test_half_types_stay(words: Path, size: int) -> None:
    model = transformer(size)
    full = lowered(model, words)
    half = lowered(model.to(torch.bfloat16), words)
    count = sum(each.numel() for each in model.parameters() if each.dim() == 2)
    saved = len(full.program.buffer) - len(half.program.buffer)
    assert abs(saved - 2 * count) < 3000


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"moe": True}, "moe is True"),
        ({"rms_norm_add_unit_offset": True}, "rms_norm_add_unit_offset is True"),
        ({"partial_rotary_factor": 0.5, "use_hf_rope": True}, "partial_rotary_factor is 0.5"),
        ({"attention_qkv_bias": True}, "use_hf_rope with it"),
        ({"use_qk_norm": True, "use_hf_rope": True}, "qk_norm_before_rope with use_qk_norm"),
        ({"use_hf_rope": True, "use_scaled_rope": True}, "use_scaled_rope does nothing"),
        ({"act_fn": "gelu"}, "act_fn is"),
    ],
)
def test_other_switches_are_errors(
    switches: dict[str, Any], message: str, words: Path, size: int
) -> None:
    with pytest.raises(ModelError, match=message):
        lowered(transformer(size, **switches), words)


def test_what_is_no_source_or_lacks_a_tokenizer(words: Path, size: int) -> None:
    with pytest.raises(ModelError, match="class Linear is no source"):
        lowered(nn.Linear(3, 3), words)
    with pytest.raises(ModelError, match="Transformer has no tokenizer"):
        lower_llm(transformer(size))
    with pytest.raises(
        ModelError, match=f"scores {size + 1} tokens, and the tokenizer of .*{size}"
    ):
        lowered(transformer(size + 1), words)


def test_parameters_that_are_read_by_nothing_are_an_error(words: Path, size: int) -> None:
    model = transformer(size)
    model.layers[0].attention.wq.adapter = nn.Linear(2, 2)  # type: ignore[index,union-attr]
    with pytest.raises(ModelError, match=r"such as 'layers.0.attention.wq.adapter.bias'"):
        lowered(model, words)
