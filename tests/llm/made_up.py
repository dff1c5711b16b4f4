"""GGUF files of small decoders with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

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
    architecture: str, random: np.random.Generator, depth: int = DEPTH
) -> dict[str, np.ndarray]:
    """Weights in float32; the table is the head's as well."""
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
    depth: int = DEPTH,
) -> Path:
    """Write a file.

    kinds: of all matrices, or by the last part of their names. metadata: more of it, or other,
    under the name of the architecture. tokenizer: "model", "pre" and "template" that differ.
    more: other tensors. depth: how many layers.
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
    weights = {**tensors(architecture, np.random.default_rng(1), depth), **(more or {})}
    for name, value in weights.items():
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
