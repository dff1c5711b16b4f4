"""`orchestrator::dequantize_groups`: weights whose groups have scales and minimums of floats.

It says what GGUF's block formats and torchao's float zero points have in common: an element stands
for scale * q + minimum. Exporting leaves the op as it is, so that a backend may pack the integers
and the numbers as they were made. It is made of ATen ops, for backends that do not take it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_library: Any = torch.library.Library("orchestrator", "DEF")  # type: ignore[no-untyped-call]
_library.define(
    "dequantize_groups(Tensor q, Tensor scales, Tensor? mins, int bits, int group,"
    " ScalarType dtype) -> Tensor"
)
_INTEGERS = (torch.int8, torch.uint8)


def _dequantize_groups(
    q: Tensor, scales: Tensor, mins: Tensor | None, bits: int, group: int, dtype: torch.dtype
) -> Tensor:
    """Expand the integers of a weight to floats [n, k]: scale * q + minimum, in float32.

    Args:
        q: [n, k] of int8 or uint8, an integer a byte. Of 4 bits they are -8 to 7 or, with minimums,
            0 to 15; of 8 bits they are int8.
        scales: [n, k / group], of float32, float16 or bfloat16.
        mins: likewise, or None: 0.
        bits: 4 or 8: how many an integer may be packed into.
        group: elements of a row that share a scale and a minimum; it divides k.
        dtype: of the result, which is rounded to it.

    Raises:
        ValueError: sizes, dtypes or bits are others.
    """
    _check(q, scales, mins, bits, group)
    n, k = q.shape
    weight = q.reshape(n, k // group, group).to(torch.float32)
    weight = weight * scales.to(torch.float32)[:, :, None]
    if mins is not None:
        weight = weight + mins.to(torch.float32)[:, :, None]
    return weight.reshape(n, k).to(dtype)


def _check(q: Tensor, scales: Tensor, mins: Tensor | None, bits: int, group: int) -> None:
    if q.dim() != 2 or q.dtype not in _INTEGERS:
        raise ValueError(f"q is {q.dtype} {list(q.shape)}, expected int8 or uint8 [n, k]")
    if bits not in (4, 8):
        raise ValueError(f"bits is {bits}, expected 4 or 8")
    if group < 1 or q.shape[1] % group != 0:
        raise ValueError(f"a group of {group} does not divide rows of {q.shape[1]}")
    expected = (q.shape[0], q.shape[1] // group)
    for name, numbers in (("scales", scales), ("mins", mins)):
        if numbers is not None and (
            tuple(numbers.shape) != expected or not numbers.dtype.is_floating_point
        ):
            raise ValueError(
                f"{name} is {numbers.dtype} {list(numbers.shape)}, expected floats {list(expected)}"
            )


_library.impl("dequantize_groups", _dequantize_groups, "CompositeImplicitAutograd")
dequantize_groups: torch._ops.OpOverload = torch.ops.orchestrator.dequantize_groups.default
"""The op; see `_dequantize_groups` for its arguments."""
