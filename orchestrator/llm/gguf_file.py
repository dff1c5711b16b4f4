"""GGUF files: their metadata, and their tensors with the integers of quantized ones as they are."""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.blocks import BLOCKS, Weight
from orchestrator.llm.extra import needs
from orchestrator.llm.source import Source

# By type, of numbers that are no blocks.
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class GgufFile(Source):
    """A GGUF file, mapped into memory."""

    pairs_neighbours = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Map a file.

        Raises:
            ModelError: it is not there, or is no GGUF file.
            ImportError: the package gguf is not installed.
        """
        reader_class = quick_reader()
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelError(f"{self.path} is not a file; expected a GGUF file")
        try:
            reader = reader_class(self.path)
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise ModelError(f"{self.path} cannot be read as GGUF: {error}") from error
        super().__init__(
            self.path.name, {key: field.contents() for key, field in reader.fields.items()}
        )
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}

    @property
    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self._tensors)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model scores: those of its tokenizer."""
        return len(self.get("tokenizer.ggml.tokens", list))

    def weight(self, name: str) -> Weight:
        """Return a tensor, rows first; blocks of integers as groups.

        Raises:
            ModelError: there is no such tensor, or its type is not known here.
        """
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self.name} has no tensor {name!r}")
        kind = tensor.tensor_type.name
        data = np.asarray(tensor.data)
        if kind in _PLAIN:
            sizes = [int(size) for size in reversed(tensor.shape)]
            if data.nbytes == 0:
                return torch.empty(sizes, dtype=_PLAIN[kind])
            # Copied where it is written to, and a map of its own: of a part of a storage,
            # ExecuTorch would take the whole.
            flat = np.memmap(
                self.path, np.uint8, mode="c", offset=int(tensor.data_offset), shape=(data.nbytes,)
            )
            return torch.from_numpy(flat).view(_PLAIN[kind]).reshape(sizes)
        if kind not in BLOCKS:
            raise ModelError(
                f"{self.name}: tensor {name!r} is of type {kind}; known types: "
                f"{', '.join((*_PLAIN, *BLOCKS))}"
            )
        if data.ndim != 2:
            raise ModelError(
                f"{self.name}: tensor {name!r} of type {kind} has {data.ndim} dimensions; "
                "expected 2"
            )
        size, read = BLOCKS[kind]
        return read(data.reshape(len(data), -1, size))

    def refuse_others(self, used: Iterable[str]) -> None:
        """Refuse tensors that no part of the model has read.

        Raises:
            ModelError: there are some.
        """
        left = sorted(self.names - set(used))
        if left:
            raise ModelError(
                f"{self.name} has {len(left)} tensors that the architecture here does not "
                f"use, such as {left[0]!r}"
            )


@functools.cache
def quick_reader() -> Any:
    """Return the package's GGUFReader, but one that reads the arrays of the metadata at once.

    The package makes an array of NumPy's for each element and the length of each string: for a
    tokenizer of 50,000 tokens that takes seconds.

    Raises:
        ImportError: the package gguf is not installed.
    """
    gguf = needs("gguf")
    kinds = gguf.GGUFValueType

    class Reader(gguf.GGUFReader):  # type: ignore[misc, name-defined]  # gguf is untyped
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != kinds.ARRAY or self.byte_order == "S":
                return super()._get_field_parts(orig_offs, raw_type)
            head = [self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)]
            kind, count = kinds(head[0][0]), int(head[1][0])
            start = orig_offs + 12
            if kind == kinds.STRING:
                strings, end = _strings(self.data, start, count)
                parts, data = [*head, *strings], list(range(2, 2 + count))
            elif kind in self.gguf_scalar_to_np:
                end = start + count * np.dtype(self.gguf_scalar_to_np[kind]).itemsize
                if end > len(self.data):
                    raise _ends_early(start, count)
                parts, data = [*head, self._get(start, self.gguf_scalar_to_np[kind], count)], [2]
            else:
                return super()._get_field_parts(orig_offs, raw_type)
            return end - orig_offs, parts, data, [kinds.ARRAY, kind]

    return Reader


def _strings(data: Any, start: int, count: int) -> tuple[list[memoryview], int]:
    """Return the bytes of strings that follow each other, and where the last one ends."""
    view, length = memoryview(data), struct.Struct("=Q")
    found = []
    try:
        for _ in range(count):
            (size,) = length.unpack_from(view, start)
            start += length.size
            found.append(view[start : start + size])
            start += size
    except (struct.error, OverflowError):
        raise _ends_early(start, count) from None
    if start > len(view):
        raise _ends_early(start, count)
    return found, start


def _ends_early(start: int, count: int) -> ValueError:
    return ValueError(f"it ends inside an array of {count} elements, at byte {start}")
