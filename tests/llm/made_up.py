"""GGUF files of small decoders with random weights, and a program that knows the alphabet."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor, nn

from orchestrator import lower
from orchestrator.llm.gguf_file import GgufFile
from orchestrator.llm.lower_llm import exported
from orchestrator.llm.stored_tokenizer import KEY, pack_tokenizer
from orchestrator.llm.tokenizer import Tokenizer

DIM, HEADS, GROUPS, HIDDEN, DEPTH, CONTEXT = 64, 4, 2, 96, 2, 32
# Bytes, two merges and two control tokens.
BYTES = [
    *(chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))),
    *(chr(256 + index) for index in range(68)),
]
TOKENS = [*BYTES, "Ġt", "he", "<|start|>", "<|end|>"]
TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}: {{ message['content'] }}<|end|>"
    "{% endfor %}<|start|>"
)


def tensors(
    architecture: str,
    random: np.random.Generator,
    *,
    plain: bool = False,
    depth: int = DEPTH,
) -> dict[str, np.ndarray]:
    """Weights in float32; the table is the head's as well.

    plain: other tokens than printable ones of ASCII score 0.
    """
    width = DIM // HEADS
    sizes: dict[str, tuple[int, ...]] = {"token_embd": (len(TOKENS), DIM), "output_norm": (DIM,)}
    for index in range(depth):
        layer = {
            "attn_norm": (DIM,),
            "attn_q": (DIM, DIM),
            "attn_k": (GROUPS * width, DIM),
            "attn_v": (GROUPS * width, DIM),
            "attn_output": (DIM, DIM),
            "ffn_norm": (DIM,),
            "ffn_gate": (HIDDEN, DIM),
            "ffn_up": (HIDDEN, DIM),
            "ffn_down": (DIM, HIDDEN),
        }
        if architecture == "qwen3":
            layer |= {"attn_q_norm": (width,), "attn_k_norm": (width,)}
        sizes |= {f"blk.{index}.{name}": each for name, each in layer.items()}
    made = {}
    for name, size in sizes.items():
        values = random.standard_normal(size).astype(np.float32) / 4
        if plain and name == "token_embd":
            values[
                [index for index, token in enumerate(TOKENS) if len(token) > 1 or token > "~"]
            ] = 0
        made[f"{name}.weight"] = values + (1 if name.endswith("norm") else 0)
        if architecture == "qwen2" and name.endswith(("attn_q", "attn_k", "attn_v")):
            made[f"{name}.bias"] = random.standard_normal(size[0]).astype(np.float32)
    return made


def write(
    path: Path,
    architecture: str = "llama",
    kinds: Mapping[str, Type] | Type = Type.F32,
    *,
    metadata: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, str] | None = None,
    more: Mapping[str, np.ndarray] | None = None,
    plain: bool = False,
    depth: int = DEPTH,
) -> Path:
    """Write a file.

    kinds: of all matrices, or by the last part of their names. metadata: more of it, or other,
    under the name of the architecture. tokenizer: "model", "pre" and "template" that differ.
    more: other tensors. plain: it generates ASCII. depth: how many layers.
    """
    writer = gguf.GGUFWriter(path, architecture)
    sizes: dict[str, Any] = {
        "context_length": CONTEXT,
        "embedding_length": DIM,
        "block_count": depth,
        "feed_forward_length": HIDDEN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": GROUPS,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }
    adds = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in (sizes | dict(metadata or {})).items():
        adds[type(value)](f"{architecture}.{key}", value)
    said = {"model": "gpt2", "pre": "smollm", "template": TEMPLATE, **(tokenizer or {})}
    writer.add_tokenizer_model(said["model"])
    writer.add_tokenizer_pre(said["pre"])
    writer.add_chat_template(said["template"])
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["Ġ t", "h e"])
    writer.add_token_types([1] * (len(TOKENS) - 2) + [3, 3])
    writer.add_eos_token_id(len(TOKENS) - 1)
    weights = tensors(architecture, np.random.default_rng(1), plain=plain, depth=depth)
    for name, value in {**weights, **(more or {})}.items():
        last = name.rpartition(".weight")[0].rpartition(".")[2]
        kind = kinds.get(last, Type.F32) if isinstance(kinds, Mapping) else kinds
        if value.ndim < 2 or kind == Type.F32:
            writer.add_tensor(name, value)
        else:
            writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tokenizer(folder: Path, **said: str) -> Tokenizer:
    """The tokenizer of a file in a folder; said: what differs, as for `write`."""
    return Tokenizer(GgufFile(write(folder / "file.gguf", tokenizer=said)))


class Alphabet(nn.Module):
    """Goes on with the letter after the last one; ends after z, and answers a template with q."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        following = torch.zeros(len(TOKENS), dtype=torch.int64)
        letters = [TOKENS.index(letter) for letter in string.ascii_lowercase]
        following[letters] = torch.tensor([*letters[1:], len(TOKENS) - 1])
        following[len(TOKENS) - 2] = TOKENS.index("q")
        self.register_buffer("table", nn.functional.one_hot(following).to(torch.float32))

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """int64 [1, tokens] and int64 [tokens] to float32 [1, vocabulary]."""
        return nn.functional.embedding(tokens[:, -1], self.table) * (positions[-1:, None] >= 0)


def alphabet(path: Path, *, chunk: int = 4, named_data: Mapping[str, bytes] | None = None) -> Path:
    """Write a .pte as `lower_llm` makes them, of a model that is lowered in no time.

    named_data: in place of its tokenizer.
    """
    if named_data is None:
        made = Tokenizer(GgufFile(write(path.with_suffix(".gguf"))))
        named_data = {KEY: pack_tokenizer(made)}
    lower(
        exported(Alphabet(), chunk),
        backends=[],
        constant_methods={"get_max_context_len": CONTEXT},
        named_data=named_data,
    ).save(path)
    return path
