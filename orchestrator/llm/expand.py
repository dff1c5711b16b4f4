"""Expanding quantized weights to floats ahead of time, for backends that do not take integers."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.llm.blocks import GroupedWeight, Weight
from orchestrator.llm.source import Source


def expanding(file: Source) -> Callable[[str], Weight]:
    """Return what reads the tensors of a source as floats."""

    def read(name: str) -> Weight:
        weight = file.weight(name)
        return weight.floats() if isinstance(weight, GroupedWeight) else weight

    return read
