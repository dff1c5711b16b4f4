"""The block formats of GGUF, as integers whose groups have scales and perhaps minimums.

What the bytes of a block mean is laid down by ggml (ggml-common.h). No number is rounded here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.frontend.group_quantization import dequantize_groups

Blocks = NDArray[np.uint8]
"""[n, blocks of a row, bytes of a block]"""


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
    """Cut blocks along their bytes; the last part is what is left."""
    return np.split(blocks, np.cumsum(sizes), axis=2)


def _half(part: Blocks) -> NDArray[np.float16]:
    """Return two bytes of each block as a number: [n, blocks]."""
    return np.ascontiguousarray(part).view(np.float16)[..., 0]


def _nibbles(part: Blocks, run: int) -> NDArray[np.uint8]:
    """Return the low halves of each `run` bytes, then their high halves: [n, blocks, elements]."""
    n, blocks, _ = part.shape
    runs = part.reshape(n, blocks, -1, run)
    return np.concatenate((runs & 0xF, runs >> 4), axis=3).reshape(n, blocks, -1)


def _weight(
    integers: NDArray[Any],
    scales: NDArray[Any],
    mins: NDArray[Any] | None,
    bits: int,
    group: int,
) -> GroupedWeight:
    """Make a weight of arrays whose dimensions after the first make up a row."""

    def rows(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.array(array.reshape(len(array), -1)))

    return GroupedWeight(
        rows(integers), rows(scales), None if mins is None else rows(mins), bits, group
    )


def _q4_0(blocks: Blocks) -> GroupedWeight:
    scale, halves = _parts(blocks, 2)
    integers = _nibbles(halves, 16).astype(np.int8) - np.int8(8)
    return _weight(integers, _half(scale), None, 4, 32)


def _q4_1(blocks: Blocks) -> GroupedWeight:
    scale, minimum, halves = _parts(blocks, 2, 2)
    return _weight(_nibbles(halves, 16), _half(scale), _half(minimum), 4, 32)


def _fifth_bits(part: Blocks) -> NDArray[np.uint8]:
    """Return the high bits of 32 elements, of which four bytes hold the first one's lowest."""
    return np.unpackbits(part, axis=2, bitorder="little")


def _q5_0(blocks: Blocks) -> GroupedWeight:
    scale, high, halves = _parts(blocks, 2, 4)
    integers = _nibbles(halves, 16) | _fifth_bits(high) << 4
    return _weight(integers.astype(np.int8) - np.int8(16), _half(scale), None, 8, 32)


def _q5_1(blocks: Blocks) -> GroupedWeight:
    scale, minimum, high, halves = _parts(blocks, 2, 2, 4)
    integers = _nibbles(halves, 16) | _fifth_bits(high) << 4
    return _weight(integers.astype(np.int8), _half(scale), _half(minimum), 8, 32)


def _q8_0(blocks: Blocks) -> GroupedWeight:
    scale, integers = _parts(blocks, 2)
    return _weight(np.ascontiguousarray(integers).view(np.int8), _half(scale), None, 8, 32)


def _scales_and_mins(
    scale: Blocks, minimum: Blocks, packed: Blocks
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return those of a super-block's eight groups, which 6 bits each multiply: [n, blocks, 8].

    packed: 12 bytes. The first four hold the low bits of four scales, the next four those of four
    minimums, with two high bits of the other four above them; the last four hold the low halves of
    those.
    """
    first, second, third = _parts(packed, 4, 4)
    factors = np.concatenate((first & 0x3F, (third & 0xF) | (first >> 2 & 0x30)), axis=2)
    offsets = np.concatenate((second & 0x3F, (third >> 4) | (second >> 2 & 0x30)), axis=2)
    return (
        _half(scale).astype(np.float32)[..., None] * factors.astype(np.float32),
        -(_half(minimum).astype(np.float32)[..., None] * offsets.astype(np.float32)),
    )


def _q4_k(blocks: Blocks) -> GroupedWeight:
    scale, minimum, packed, halves = _parts(blocks, 2, 2, 12)
    scales, mins = _scales_and_mins(scale, minimum, packed)
    return _weight(_nibbles(halves, 32), scales, mins, 4, 32)


def _q5_k(blocks: Blocks) -> GroupedWeight:
    scale, minimum, packed, high, halves = _parts(blocks, 2, 2, 12, 32)
    scales, mins = _scales_and_mins(scale, minimum, packed)
    # Bit g of byte i is the fifth of element i of group g.
    fifth = np.stack([high >> group & 1 for group in range(8)], axis=2)
    integers = _nibbles(halves, 32) | fifth.reshape(*fifth.shape[:2], -1) << 4
    return _weight(integers.astype(np.int8), scales, mins, 8, 32)


def _q6_k(blocks: Blocks) -> GroupedWeight:
    halves, high, factors, scale = _parts(blocks, 128, 64, 16)
    # Each half of a super-block is four runs of 32 elements, whose high bits share 32 bytes.
    runs = high.reshape(*high.shape[:2], 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    upper = (runs & 3).reshape(*high.shape[:2], -1)
    integers = (_nibbles(halves, 64) | upper << 4).astype(np.int8) - np.int8(32)
    multiples = np.ascontiguousarray(factors).view(np.int8).astype(np.float32)
    scales = _half(scale).astype(np.float32)[..., None] * multiples
    return _weight(integers, scales, None, 8, 16)


# By type: the bytes of a block, and what reads blocks.
BLOCKS: Mapping[str, tuple[int, Callable[[Blocks], GroupedWeight]]] = {
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q5_0": (22, _q5_0),
    "Q5_1": (24, _q5_1),
    "Q8_0": (34, _q8_0),
    "Q4_K": (144, _q4_k),
    "Q5_K": (176, _q5_k),
    "Q6_K": (210, _q6_k),
}
