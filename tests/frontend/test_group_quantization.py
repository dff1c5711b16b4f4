"""`orchestrator::dequantize_groups` in eager PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.frontend.group_quantization import dequantize_groups

_F32 = torch.float32


def integers(*sizes: int) -> Tensor:
    return torch.randint(0, 16, sizes, generator=torch.Generator().manual_seed(5)).to(torch.uint8)


@pytest.mark.parametrize("of_groups", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_element_is_scale_times_integer_plus_minimum(
    of_groups: torch.dtype, dtype: torch.dtype
) -> None:
    """Computed in float32, then rounded."""
    q, scales, mins = integers(3, 8), torch.rand(3, 2).to(of_groups), torch.rand(3, 2).to(of_groups)
    weight = dequantize_groups(q, scales, mins, 4, 4, dtype)
    for i, row in enumerate(weight):
        for j, element in enumerate(row):
            exact = scales[i, j // 4].double() * int(q[i, j]) + mins[i, j // 4].double()
            assert abs(float(element) - float(exact)) <= torch.finfo(dtype).eps * abs(float(exact))
    assert weight.dtype == dtype


def test_minimums_may_be_left_out() -> None:
    q = torch.tensor([[-8, 7, 1, 0]], dtype=torch.int8)
    weight = dequantize_groups(q, torch.tensor([[0.5, 2.0]]), None, 4, 2, _F32)
    assert weight.tolist() == [[-4.0, 3.5, 2.0, 0.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 8)}, "expected int8 or uint8"),
        ({"bits": 5}, "expected 4 or 8"),
        ({"group": 3}, "does not divide rows of 8"),
        ({"group": 0}, "does not divide rows of 8"),
        ({"scales": torch.ones(2, 3)}, "scales is .* expected floats \\[2, 2\\]"),
        ({"mins": torch.ones(2, 2, dtype=torch.int8)}, "mins is .* expected floats"),
    ],
)
def test_other_arguments_are_errors(change: dict[str, Any], message: str) -> None:
    given = {"q": integers(2, 8), "scales": torch.ones(2, 2), "mins": None, "bits": 4, "group": 4}
    with pytest.raises(ValueError, match=message):
        dequantize_groups(**{**given, **change}, dtype=_F32)
