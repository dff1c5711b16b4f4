"""Which decoder a GGUF file is about: the architectures that are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from orchestrator.frontend.export import ModelError
from orchestrator.llm.blocks import GroupedWeight, Weight
from orchestrator.llm.decoder import Config, Decoder
from orchestrator.llm.gguf_file import GgufFile


@dataclass(frozen=True)
class Family:
    """What the files of an architecture have in common.

    interleaved: whether queries and keys are stored for a rotation of neighbours.
    """

    biases: bool = False
    query_key_norms: bool = False
    interleaved: bool = False


FAMILIES: Mapping[str, Family] = {
    "llama": Family(interleaved=True),
    "qwen2": Family(biases=True),
    "qwen3": Family(query_key_norms=True),
}


def read_config(file: GgufFile, context: int | None, most: int | None = None) -> Config:
    """Return the sizes of the decoder of a file.

    context: rows of its caches; if None, `most` or as many as the model was made for, whichever is
        less.

    Raises:
        ModelError: its architecture or something about it is not known here, or the model was not
            made for so long a context.
    """
    name = file.get("general.architecture", str)
    family = FAMILIES.get(name)
    if family is None:
        raise ModelError(
            f"{file.path.name} is of architecture {name!r}; known: {', '.join(FAMILIES)}"
        )
    _refuse_variants(file, name)
    longest = file.get(f"{name}.context_length", int)
    if context is None:
        context = longest if most is None else min(most, longest)
    if not 2 <= context <= longest:
        raise ModelError(
            f"a context of {context} tokens; {file.path.name} is made for 2 to {longest}"
        )
    dim, heads = (
        file.get(f"{name}.{key}", int) for key in ("embedding_length", "attention.head_count")
    )
    width = file.metadata.get(f"{name}.attention.key_length", dim // heads)
    return Config(
        dim=dim,
        depth=file.get(f"{name}.block_count", int),
        heads=heads,
        groups=file.metadata.get(f"{name}.attention.head_count_kv", heads),
        width=width,
        hidden=file.get(f"{name}.feed_forward_length", int),
        vocabulary=len(file.get("tokenizer.ggml.tokens", list)),
        eps=file.get(f"{name}.attention.layer_norm_rms_epsilon", float),
        base=file.metadata.get(f"{name}.rope.freq_base", 10000.0),
        context=context,
        biases=family.biases,
        query_key_norms=family.query_key_norms,
        tied="output.weight" not in file.names,
        frequency_factors="rope_freqs.weight" in file.names,
    )


def _refuse_variants(file: GgufFile, name: str) -> None:
    """Refuse what changes the results and is not done here."""
    same = file.metadata.get(f"{name}.attention.key_length")
    for key, plain in (
        ("expert_count", (None, 0)),
        ("rope.scaling.type", (None, "none")),
        ("attention.sliding_window", (None, 0)),
        ("attention.value_length", (None, same)),
        ("rope.dimension_count", (None, same or _head_width(file, name))),
    ):
        value = file.metadata.get(f"{name}.{key}")
        if value not in plain:
            raise ModelError(f"{file.path.name}: {name}.{key} is {value!r}, which is not done here")


def _head_width(file: GgufFile, name: str) -> int:
    dim, heads = (
        file.get(f"{name}.{key}", int) for key in ("embedding_length", "attention.head_count")
    )
    return int(dim // heads)


def read_decoder(
    file: GgufFile,
    context: int | None = None,
    *,
    most: int | None = None,
    read: Callable[[str], Weight] | None = None,
) -> Decoder:
    """Return the decoder of a file, with integers in place of quantized weights.

    context, most: as for `read_config`. read: gives a tensor of the file by name; its own weights,
        as they are stored, if None.

    Raises:
        ModelError: an architecture, type or tensor that is not known here.
    """
    config = read_config(file, context, most)
    family = FAMILIES[file.get("general.architecture", str)]
    used: set[str] = set()

    def weight(name: str) -> Weight:
        used.add(name)
        value = (read or file.weight)(name)
        heads = {"attn_q.weight": config.heads, "attn_k.weight": config.groups}
        kind = name.split(".", 2)[-1]
        if family.interleaved and kind in heads:
            return _in_halves(value, heads[kind])
        return value

    decoder = Decoder(config, weight).eval()
    file.refuse_others(used)
    return decoder


def _in_halves(weight: Weight, heads: int) -> Weight:
    """Put the rows of each head in the order of `rotate`: firsts of all pairs, then the seconds.

    llama.cpp's converter pairs neighbours.
    """
    rows = len(weight.integers if isinstance(weight, GroupedWeight) else weight)
    order = torch.arange(rows).reshape(heads, -1, 2).transpose(1, 2).reshape(-1)
    return weight.rows(order) if isinstance(weight, GroupedWeight) else weight[order]
