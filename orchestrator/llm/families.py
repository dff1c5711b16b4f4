"""Which decoder a source is about: the architectures that are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.blocks import GroupedWeight, Weight
from orchestrator.llm.decoder import Config, Decoder
from orchestrator.llm.source import Source


@dataclass(frozen=True)
class Family:
    """What the files of an architecture have in common.

    interleaved: whether llama.cpp's converter stores queries and keys for a rotation of neighbours.
    """

    biases: bool = False
    query_key_norms: bool = False
    interleaved: bool = False


FAMILIES: Mapping[str, Family] = {
    "llama": Family(interleaved=True),
    "qwen2": Family(biases=True),
    "qwen3": Family(query_key_norms=True),
}
_DIM_AND_HEADS = ("embedding_length", "attention.head_count")


def read_config(file: Source, context: int | None, most: int | None = None) -> Config:
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
        raise ModelError(f"{file.name} is of architecture {name!r}; known: {', '.join(FAMILIES)}")
    _refuse_variants(file, name)
    longest = file.get(f"{name}.context_length", int)
    if context is None:
        context = longest if most is None else min(most, longest)
    if not 2 <= context <= longest:
        raise ModelError(f"a context of {context} tokens; {file.name} is made for 2 to {longest}")
    dim, heads = (file.get_size(f"{name}.{key}") for key in _DIM_AND_HEADS)
    width = file.get_size(f"{name}.attention.key_length", dim // heads)
    groups = file.get_size(f"{name}.attention.head_count_kv", heads)
    if width % 2 or heads % groups:
        raise ModelError(
            f"{file.name}: {heads} heads of {width} for {groups} of keys; expected an even "
            "width, and as many heads for each of keys"
        )
    return Config(
        dim=dim,
        depth=file.get_size(f"{name}.block_count"),
        heads=heads,
        groups=groups,
        width=width,
        hidden=file.get_size(f"{name}.feed_forward_length"),
        vocabulary=file.vocabulary,
        eps=file.get(f"{name}.attention.layer_norm_rms_epsilon", float),
        base=file.metadata.get(f"{name}.rope.freq_base", 10000.0),
        context=context,
        biases=family.biases,
        query_key_norms=family.query_key_norms,
        tied="output.weight" not in file.names,
        frequency_factors="rope_freqs.weight" in file.names,
    )


def _refuse_variants(file: Source, name: str) -> None:
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
            raise ModelError(f"{file.name}: {name}.{key} is {value!r}, which is not done here")


def _head_width(file: Source, name: str) -> int:
    dim, heads = (file.get_size(f"{name}.{key}") for key in _DIM_AND_HEADS)
    return dim // heads


def read_decoder(
    file: Source,
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
        kind = name.split(".", 2)[-1] if name.startswith("blk.") else name
        _check_sizes(file, name, value, _sizes(config)[kind])
        if file.pairs_neighbours and family.interleaved and kind in heads:
            return _in_halves(value, heads[kind])
        return value

    decoder = Decoder(config, weight).eval()
    file.refuse_others(used)
    return decoder


def _sizes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the sizes of tensors, by what follows the layer in their names."""
    queries, keys = config.heads * config.width, config.groups * config.width
    return {
        "token_embd.weight": (config.vocabulary, config.dim),
        "output.weight": (config.vocabulary, config.dim),
        "output_norm.weight": (config.dim,),
        "rope_freqs.weight": (config.width // 2,),
        "attn_norm.weight": (config.dim,),
        "attn_q.weight": (queries, config.dim),
        "attn_q.bias": (queries,),
        "attn_q_norm.weight": (config.width,),
        "attn_k.weight": (keys, config.dim),
        "attn_k.bias": (keys,),
        "attn_k_norm.weight": (config.width,),
        "attn_v.weight": (keys, config.dim),
        "attn_v.bias": (keys,),
        "attn_output.weight": (config.dim, queries),
        "ffn_norm.weight": (config.dim,),
        "ffn_gate.weight": (config.hidden, config.dim),
        "ffn_up.weight": (config.hidden, config.dim),
        "ffn_down.weight": (config.dim, config.hidden),
    }


def _check_sizes(file: Source, name: str, weight: Weight, sizes: tuple[int, ...]) -> None:
    found = weight.integers if isinstance(weight, GroupedWeight) else weight
    if tuple(found.shape) != sizes:
        raise ModelError(
            f"{file.called(name)} has sizes {list(found.shape)}; expected {list(sizes)}"
        )


def _in_halves(weight: Weight, heads: int) -> Weight:
    """Put the rows of each head in the order of `rotate`: firsts of all pairs, then the seconds.

    llama.cpp's converter pairs neighbours.
    """
    rows = len(weight.integers if isinstance(weight, GroupedWeight) else weight)
    order = torch.arange(rows).reshape(heads, -1, 2).transpose(1, 2).reshape(-1)
    return weight.rows(order) if isinstance(weight, GroupedWeight) else weight[order]
