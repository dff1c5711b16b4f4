"""Hugging Face folders of small decoders: the weights and tokens of `made_up`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import decoders, models, pre_tokenizers, processors
from torch import Tensor

from tests.llm import made_up

CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
PADDED = len(made_up.TOKENS) + 4  # the model scores more tokens than there are
BEGIN, END = len(made_up.TOKENS) - 2, len(made_up.TOKENS) - 1
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def tensors(
    architecture: str, dtype: torch.dtype = torch.float32, depth: int = made_up.DEPTH
) -> dict[str, Tensor]:
    """The weights of `made_up.tensors`, with rows of zeros for tokens that there are not."""
    found = {}
    made = made_up.tensors(architecture, np.random.default_rng(1), depth=depth)
    for name, value in made.items():
        stem, _, kind = name.rpartition(".")
        layer, _, part = stem.rpartition(".")
        theirs = f"{layer.replace('blk', 'model.layers')}.{_NAMES[part]}".strip(".")
        found[f"{theirs}.{kind}"] = torch.from_numpy(value).to(dtype)
    words = found["model.embed_tokens.weight"]
    rows = torch.zeros(PADDED - len(words), made_up.DIM, dtype=dtype)
    found["model.embed_tokens.weight"] = torch.cat((words, rows))
    return found


def config(architecture: str, depth: int = made_up.DEPTH) -> dict[str, Any]:
    """What config.json says."""
    return {
        "architectures": [CLASSES[architecture]],
        "hidden_act": "silu",
        "hidden_size": made_up.DIM,
        "intermediate_size": made_up.HIDDEN,
        "max_position_embeddings": made_up.CONTEXT,
        "num_attention_heads": made_up.HEADS,
        "num_hidden_layers": depth,
        "num_key_value_heads": made_up.GROUPS,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 10000,
        "sliding_window": None if architecture == "llama" else 8,
        "tie_word_embeddings": True,
        "vocab_size": PADDED,
    }


def tokenizer(begins: bool = False) -> tokenizers.Tokenizer:
    """The tokenizer of `made_up`; begins: its post-processor starts texts with a token."""
    ids = {token: index for index, token in enumerate(made_up.TOKENS[:-2])}
    made = tokenizers.Tokenizer(models.BPE(ids, [("Ġ", "t"), ("h", "e")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(made_up.TOKENS[-2:])
    if begins:
        made.post_processor = processors.TemplateProcessing(
            single="<|start|> $A", special_tokens=[("<|start|>", BEGIN)]
        )
    made.enable_truncation(3)  # as files of some models have it
    return made


def write(
    folder: Path,
    architecture: str = "llama",
    dtype: torch.dtype = torch.float32,
    *,
    said: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    more: Mapping[str, Tensor] | None = None,
    without: Sequence[str] = (),
    begins: bool = False,
    depth: int = made_up.DEPTH,
    shards: int = 1,
) -> Path:
    """Write a folder.

    said: keys of config.json that differ; without value where they are to be missing. settings: the
    same of tokenizer_config.json. more, without: tensors that differ, and names of those that are
    missing. begins: as for `tokenizer`. shards: how many files the weights are in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {**tensors(architecture, dtype, depth), **(more or {})}
    weights = {name: value for name, value in weights.items() if name not in without}
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
    else:
        places = {name: f"model-{index % shards}.safetensors" for index, name in enumerate(weights)}
        for file in set(places.values()):
            part = {name: value for name, value in weights.items() if places[name] == file}
            save_file(part, folder / file)
        put(folder / "model.safetensors.index.json", {"weight_map": places})
    put(folder / "config.json", {**config(architecture, depth), **(said or {})})
    tokenizer(begins).save(str(folder / "tokenizer.json"))
    defaults = {
        "bos_token": {"content": "<|start|>"},
        "eos_token": "<|end|>",
        "chat_template": made_up.TEMPLATE,
    }
    put(folder / "tokenizer_config.json", {**defaults, **(settings or {})})
    put(folder / "generation_config.json", {"eos_token_id": [END, 0]})
    return folder


def put(path: Path, said: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(said))
