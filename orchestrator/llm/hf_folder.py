"""Hugging Face folders: a config.json, weights as safetensors, and a tokenizer.json."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.extra import needs
from orchestrator.llm.hf_config import (
    CONFIG,
    config_metadata,
    frequency_factors,
    is_tied,
    read_json,
)
from orchestrator.llm.hf_tokenizer import tokenizer_metadata
from orchestrator.llm.source import Source

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TYPES = ("F32", "F16", "BF16")
_FACTORS, _HEAD, _WORDS = "rope_freqs.weight", "output.weight", "token_embd.weight"
# By the decoder's names, without the layer and what follows the last dot.
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


class HfFolder(Source):
    """A folder as `save_pretrained` of the package transformers writes it; weights are mapped."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read all but the weights.

        Raises:
            ModelError: a file is missing or damaged, or says what is not known here.
            ImportError: the package safetensors or tokenizers is not installed.
        """
        self.path = Path(path).absolute()
        config = read_json(self.path, CONFIG)
        sizes = config_metadata(config)
        super().__init__(self.path.name, {**sizes, **tokenizer_metadata(self.path).metadata})
        self._vocabulary = config.get_size("vocab_size")
        self._tied = is_tied(config)
        self._factors = frequency_factors(config)
        self._files, self._places = _open_weights(self.path)

    @property
    def names(self) -> frozenset[str]:
        """The names of the tensors that the config asks for beside those of all decoders."""
        head = set() if self._tied else {_HEAD}
        return frozenset(head if self._factors is None else head | {_FACTORS})

    @property
    def vocabulary(self) -> int:
        """How many tokens the model scores; more than the tokenizer has where it is padded."""
        return self._vocabulary

    def weight(self, name: str) -> Tensor:
        """Return a tensor in its own type, by the decoder's name for it.

        Raises:
            ModelError: there is no such tensor, or its type is not known here.
        """
        if name == _FACTORS and self._factors is not None:
            return self._factors
        theirs = _their_name(name)
        if theirs not in self._places:
            raise ModelError(f"{self.name} has no tensor {theirs!r}")
        file = self._files[self._places[theirs]]
        try:
            kind = file.get_slice(theirs).get_dtype()
            if kind not in _TYPES:
                raise ModelError(
                    f"{self.called(name)} is of type {kind}; known types: {', '.join(_TYPES)}"
                )
            # A copy of its own, where the tensor that is read is a part of the mapped file.
            return torch.clone(file.get_tensor(theirs))
        except needs("safetensors").SafetensorError as error:
            raise ModelError(f"{self.called(name)} cannot be read: {error}") from error

    def called(self, name: str) -> str:
        """Return what errors call a tensor, with its file."""
        theirs = _their_name(name)
        return f"{self.name}/{self._places.get(theirs, CONFIG)}: tensor {theirs!r}"

    def refuse_others(self, used: Iterable[str]) -> None:
        """Refuse tensors that no part of the model has read.

        Rotary frequencies, which old files carry, follow from the config. A tied head may be stored
        as well, with the numbers of the table.

        Raises:
            ModelError: there are some.
        """
        known = {_their_name(name) for name in used if name != _FACTORS}
        left = sorted(
            name
            for name in set(self._places) - known
            if not name.endswith(".self_attn.rotary_emb.inv_freq")
        )
        head = _their_name(_HEAD)
        if self._tied and head in left:
            if not torch.equal(self.weight(_HEAD), self.weight(_WORDS)):
                raise ModelError(
                    f"{self.called(_HEAD)} differs from {_their_name(_WORDS)!r}, and {CONFIG} says "
                    "that they are one (tie_word_embeddings)"
                )
            left.remove(head)
        if left:
            raise ModelError(
                f"{self.name}/{self._places[left[0]]} has {len(left)} tensors that the "
                f"architecture here does not use, such as {left[0]!r}"
            )


def _their_name(name: str) -> str:
    """Return a Hugging Face name for a decoder's."""
    stem, _, kind = name.rpartition(".")
    if not stem.startswith("blk."):
        return f"{_NAMES.get(stem, stem)}.{kind}"
    _, index, part = stem.split(".", 2)
    return f"model.layers.{index}.{_NAMES.get(part, part)}.{kind}"


def _open_weights(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the open files by name, and the file's name by tensor.

    Raises:
        ModelError: a file is missing or damaged, or is not what the index says.
    """
    if (folder / _WEIGHTS).is_file():
        file = _open(folder, _WEIGHTS)
        return {_WEIGHTS: file}, dict.fromkeys(file.keys(), _WEIGHTS)
    if not (folder / _INDEX).is_file():
        raise ModelError(f"{folder} has neither {_WEIGHTS} nor {_INDEX}")
    index = read_json(folder, _INDEX)
    places = index.get("weight_map", dict)
    for tensor, name in places.items():
        # It may come from anywhere, and is to stay in the folder.
        if not isinstance(name, str) or not name or Path(name).name != name:
            raise ModelError(f"{index.name}: {tensor!r} is in {name!r}; expected a file's name")
    files = {name: _open(folder, name) for name in sorted(set(places.values()))}
    found = {tensor: name for name, file in files.items() for tensor in file.keys()}  # noqa: SIM118
    for tensor in sorted({*places, *found}):
        if places.get(tensor) != found.get(tensor):
            raise ModelError(
                f"{index.name} has tensor {tensor!r} in {places.get(tensor)}, and it is in "
                f"{found.get(tensor)}"
            )
    return files, found


def _open(folder: Path, name: str) -> Any:
    library = needs("safetensors")
    try:
        return library.safe_open(folder / name, framework="pt")
    except (library.SafetensorError, OSError) as error:
        raise ModelError(f"{folder.name}/{name} cannot be read as safetensors: {error}") from error
