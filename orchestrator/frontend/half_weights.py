"""`orchestrator::dequantize_half`: weights of half types that meet floats of float32.

Every number of float16 and of bfloat16 is one of float32. A layer of float32 whose weight has no
other numbers may so be stored in half the bytes, and computes the same. Exporting and ExecuTorch
leave the op as it is, so that a backend may store what it is given. For backends that do not take
it, `lower` stores the weight as floats.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_library: Any = torch.library.Library("orchestrator", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("dequantize_half(Tensor half) -> Tensor")
HALF_DTYPES = (torch.float16, torch.bfloat16)


def _dequantize_half(half: Tensor) -> Tensor:
    """Return a weight of float16 or bfloat16, of any sizes, in float32.

    Raises:
        ValueError: its dtype is another.
    """
    _check(half)
    return half.to(torch.float32)


def _check(half: Tensor) -> None:
    if half.dtype not in HALF_DTYPES:
        raise ValueError(f"half is {half.dtype}, expected float16 or bfloat16")


def _sizes_of_result(half: Tensor) -> Tensor:
    _check(half)
    return torch.empty(half.shape, dtype=torch.float32, device=half.device)


# Were it composite, exporting would write it as what it is made of.
_library.impl("dequantize_half", _dequantize_half, "CompositeExplicitAutograd")
torch.library.register_fake("orchestrator::dequantize_half", _sizes_of_result, lib=_library)
dequantize_half: torch._ops.OpOverload = torch.ops.orchestrator.dequantize_half.default
"""The op; see `_dequantize_half` for its argument."""
