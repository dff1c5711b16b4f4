"""GGUF files: their metadata, and their tensors with the integers of quantized ones as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.frontend.export import ModelError
from orchestrator.frontend.group_quantization import dequantize_groups
from orchestrator.llm.extra import needs

Blocks = NDArray[np.uint8]


@dataclass(frozen=True)
class GroupedWeight:
    """A matrix [n, k] of integers whose groups have scales, as `dequantize_groups` takes it.

    integers: int8 or uint8 [n, k]. scales, mins: [n, k / group]; mins may be None. bits: 4 or 8.
    """

    integers: Tensor
    scales: Tensor
    mins: Tensor | None
    bits: int
    group: int

    def rows(self, order: Tensor) -> GroupedWeight:
        """Return the same weight with its rows in another order."""
        mins = None if self.mins is None else self.mins[order]
        return GroupedWeight(self.integers[order], self.scales[order], mins, self.bits, self.group)

    def floats(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the matrix that the integers stand for, [n, k]."""
        weight: Tensor = dequantize_groups(
            self.integers, self.scales, self.mins, self.bits, self.group, dtype
        )
        return weight


Weight = Tensor | GroupedWeight


def _parts(blocks: Blocks, *sizes: int) -> list[Blocks]:
    """Cut [n, blocks, bytes] along the bytes; the last part is what is left."""
    return np.split(blocks, np.cumsum(sizes), axis=2)


def _half(part: Blocks) -> Tensor:
    """Return two bytes of each block as float16 [n, blocks]."""
    return torch.from_numpy(np.ascontiguousarray(part).view(np.float16)[..., 0].copy())


def _nibbles(part: Blocks) -> NDArray[np.uint8]:
    """Return the low halves of all bytes of a block, then the high ones, as [n, k]."""
    both = np.concatenate((part & 0xF, part >> 4), axis=2)
    return both.reshape(len(both), -1)


def _q4_0(blocks: Blocks) -> GroupedWeight:
    scale, halves = _parts(blocks, 2)
    integers = _nibbles(halves).astype(np.int8) - np.int8(8)
    return GroupedWeight(torch.from_numpy(integers), _half(scale), None, 4, 32)


def _q4_1(blocks: Blocks) -> GroupedWeight:
    scale, minimum, halves = _parts(blocks, 2, 2)
    return GroupedWeight(torch.from_numpy(_nibbles(halves)), _half(scale), _half(minimum), 4, 32)


def _q8_0(blocks: Blocks) -> GroupedWeight:
    scale, integers = _parts(blocks, 2)
    flat = np.ascontiguousarray(integers).view(np.int8).reshape(len(integers), -1)
    return GroupedWeight(torch.from_numpy(flat.copy()), _half(scale), None, 8, 32)


# By type: the bytes of a block, and what reads blocks.
_BLOCKS: Mapping[str, tuple[int, Callable[[Blocks], GroupedWeight]]] = {
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q8_0": (34, _q8_0),
}
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class GgufFile:
    """A GGUF file, mapped into memory.

    metadata: values by key, as numbers, strings and lists.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Map a file.

        Raises:
            ModelError: it is not there, or is no GGUF file.
            ImportError: the package gguf is not installed.
        """
        gguf = needs("gguf")
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelError(f"{self.path} is not a file; expected a GGUF file")
        try:
            reader = gguf.GGUFReader(self.path)
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise ModelError(f"{self.path} cannot be read as GGUF: {error}") from error
        self.metadata: Mapping[str, Any] = {
            key: field.contents() for key, field in reader.fields.items()
        }
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}

    @property
    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self._tensors)

    def get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """Return a value that has to be there.

        Raises:
            ModelError: it is missing, or of another kind.
        """
        value = self.metadata.get(key)
        if not isinstance(value, kind):
            found = "is missing" if value is None else f"is {value!r}"
            kinds = kind if isinstance(kind, tuple) else (kind,)
            wanted = " or ".join(each.__name__ for each in kinds)
            raise ModelError(f"{self.path.name}: {key} {found}; expected {wanted}")
        return value

    def weight(self, name: str) -> Weight:
        """Return a tensor, rows first; blocks of integers as groups.

        Raises:
            ModelError: there is no such tensor, or its type is not known here.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self.path.name} has no tensor {name!r}")
        kind = tensor.tensor_type.name
        data = np.asarray(tensor.data)
        if kind in _PLAIN:
            sizes = [int(size) for size in reversed(tensor.shape)]
            flat = np.ascontiguousarray(data).view(np.uint8).reshape(-1).copy()
            return torch.from_numpy(flat).view(_PLAIN[kind]).reshape(sizes)
        if kind not in _BLOCKS:
            raise ModelError(
                f"{self.path.name}: tensor {name!r} is of type {kind}; known types: "
                f"{', '.join((*_PLAIN, *_BLOCKS))}"
            )
        if data.ndim != 2:
            raise ModelError(
                f"{self.path.name}: tensor {name!r} of type {kind} has {data.ndim} dimensions; "
                "expected 2"
            )
        size, read = _BLOCKS[kind]
        return read(data.reshape(len(data), -1, size))

    def refuse_others(self, used: Iterable[str]) -> None:
        """Refuse tensors that no part of the model has read.

        Raises:
            ModelError: there are some.
        """
        left = sorted(self.names - set(used))
        if left:
            raise ModelError(
                f"{self.path.name} has {len(left)} tensors that the architecture here does not "
                f"use, such as {left[0]!r}"
            )
