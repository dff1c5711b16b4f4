"""Expanding quantized weights to floats ahead of time, for backends that do not take integers."""

from __future__ import annotations

from collections.abc import Callable

from ggml_delegate.registry import rules
from orchestrator.backends import Backend
from orchestrator.llm.blocks import GroupedWeight, Weight
from orchestrator.llm.gguf_file import GgufFile

_OP = "orchestrator.dequantize_groups.default"


def takes_groups(backend: Backend) -> bool:
    """Whether a backend multiplies by integers whose groups have scales of half floats.

    Others would expand the weights in each call.
    """
    return backend.name == "ggml" and _OP in rules()


def expanding(file: GgufFile) -> Callable[[str], Weight]:
    """Return what reads the tensors of a file as floats."""

    def read(name: str) -> Weight:
        weight = file.weight(name)
        return weight.floats() if isinstance(weight, GroupedWeight) else weight

    return read
