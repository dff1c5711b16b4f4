"""The config.json of a Hugging Face folder, by the names that GGUF has for its keys.

What the keys mean is laid down by the classes that `architectures` names, in the package
transformers. Keys that these do not read change nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.metadata import Metadata

CONFIG = "config.json"
ARCHITECTURES: Mapping[str, str] = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""GGUF's names of architectures, by those of transformers' classes."""

_SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_OPTIONAL_SIZES = {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
}
# By key that changes the results: the values by which it does not.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": (None, "silu", "swish"),
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "use_sliding_window": (None, False),
    "partial_rotary_factor": (None, 1),
    "rope_interleaved": (None, False),
    "use_mrope": (None, False),
    "num_local_experts": (None, 0),
    "num_experts": (None, 0),
    "quantization_config": (None,),
}
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_ROPE_KEYS = ("rope_type", "type", "rope_theta", *_LLAMA3)


def read_json(folder: Path, name: str, *, optional: bool = False) -> Metadata:
    """Return what a JSON file of a folder holds, by key; nothing if it may be missing and is.

    Raises:
        ModelError: it is missing or damaged, or holds no keys.
    """
    called = f"{folder.name}/{name}"
    path = folder / name
    if not path.is_file():
        if optional:
            return Metadata(called, {})
        raise ModelError(f"{folder} has no {name}; expected a folder of a model of Hugging Face's")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{called} cannot be read as JSON: {error}") from error
    if not isinstance(said, dict):
        raise ModelError(f"{called} holds a {type(said).__name__}; expected keys and values")
    return Metadata(called, said)


def config_metadata(config: Metadata) -> dict[str, Any]:
    """Return the sizes of a config.json, as `families.read_config` asks for them.

    Raises:
        ModelError: an architecture or a key's value that is not known here, or a missing key.
    """
    names = config.get_list("architectures", str)
    if len(names) != 1 or names[0] not in ARCHITECTURES:
        raise ModelError(
            f"{config.name}: architectures is {names!r}; known: {', '.join(ARCHITECTURES)}"
        )
    name = ARCHITECTURES[names[0]]
    _refuse_variants(config, name)
    said: dict[str, Any] = {
        "general.architecture": name,
        f"{name}.attention.layer_norm_rms_epsilon": _number(config, "rms_norm_eps"),
        f"{name}.rope.freq_base": _base(config),
    }
    for theirs, ours in _SIZES.items():
        said[f"{name}.{theirs}"] = config.get_size(ours)
    for theirs, ours in _OPTIONAL_SIZES.items():
        if config.metadata.get(ours) is not None:
            said[f"{name}.{theirs}"] = config.get_size(ours)
    return said


def is_tied(config: Metadata) -> bool:
    """Return whether the table of words is the head's weight as well.

    Raises:
        ModelError: what the config says is no truth value.
    """
    key = "tie_word_embeddings"
    return bool(config.get(key, bool)) if key in config.metadata else False


def frequency_factors(config: Metadata) -> Tensor | None:
    """Return what Llama 3 divides its rotary frequencies by, float32 [width / 2]; None elsewhere.

    Low frequencies are divided by `factor`, high ones are kept, those between get a mean of both
    (Llama 3.1's model code, `apply_scaling`).

    Raises:
        ModelError: a kind of scaling, or a key of it, that is not known here.
    """
    rope = _rope(config)
    kind = rope.metadata.get("rope_type", rope.metadata.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ModelError(f"{rope.name}: rope_type is {kind!r}; known: default, llama3")
    if kind == "default":
        return None
    factor, low, high, trained = (_number(rope, key) for key in _LLAMA3)
    if min(factor, low, trained) <= 0 or high <= low:
        raise ModelError(
            f"{rope.name}: {', '.join(_LLAMA3)} are {factor}, {low}, {high}, {trained}; expected "
            "numbers above 0, and a high_freq_factor above low_freq_factor"
        )
    width = config.metadata.get("head_dim") or (
        config.get_size("hidden_size") // config.get_size("num_attention_heads")
    )
    exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
    turns = trained * _base(config) ** -exponents / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    factors: Tensor = 1 / (kept + (1 - kept) / factor)
    return factors


def _rope(config: Metadata) -> Metadata:
    """Return what is said about rotary positions besides the base; later versions say all there."""
    for key in ("rope_parameters", "rope_scaling"):
        if config.metadata.get(key) is None:
            continue
        said = config.get(key, dict)
        for each, value in said.items():
            if each not in _ROPE_KEYS and value not in _PLAIN.get(each, ()):
                raise ModelError(
                    f"{config.name}: {key}.{each} is {value!r}, which is not done here"
                )
        return Metadata(f"{config.name}: {key}", said)
    return Metadata(f"{config.name}: rope_scaling", {})


def _base(config: Metadata) -> float:
    for said in (_rope(config), config):
        if "rope_theta" in said.metadata:
            return _number(said, "rope_theta")
    return 10000.0


def _number(said: Metadata, key: str) -> float:
    number = float(said.get(key, (int, float)))
    if not (math.isfinite(number) and number > 0):
        raise ModelError(f"{said.name}: {key} is {number}; expected a number above 0")
    return number


def _refuse_variants(config: Metadata, name: str) -> None:
    """Refuse what changes the results and is not done here."""
    layers = config.metadata.get("layer_types") or []
    same = isinstance(layers, list) and all(each == "full_attention" for each in layers)
    # Those of Qwen have a size for windows, and use_sliding_window says whether they are on.
    windows = (None, 0) if name == "llama" else (config.metadata.get("sliding_window"),)
    plain = {**_PLAIN, "sliding_window": windows, **({} if same else {"layer_types": ()})}
    for key, values in plain.items():
        value = config.metadata.get(key)
        if value not in values:
            raise ModelError(f"{config.name}: {key} is {value!r}, which is not done here")
