"""When a plan is warned about because kernels take most of its time."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from orchestrator import LoweringWarning, lower
from orchestrator.report.data import (
    AtomReport,
    MethodReport,
    PlanReport,
    RejectionReport,
    SegmentReport,
)
from orchestrator.report.slow_kernels import slow_kernels


def method(kernels_ns: float, costs: dict[str, float | None]) -> MethodReport:
    """A linear layer of 100 ns on a delegate, and two sorts that kernels run."""
    linear = AtomReport("a", ("a",), ("linear",), "fast", 0, costs_ns={"fast": 1}, predicted_ns=100)
    sort = AtomReport(
        "b", ("b",), ("sort",), "portable", 1, costs_ns=costs, predicted_ns=kernels_ns / 2
    )
    return MethodReport(
        "forward",
        segments=(
            SegmentReport("fast", ("a",), {}),
            SegmentReport("portable", ("b", "c"), {}, is_delegate=False),
        ),
        rejections=(RejectionReport("fast", "b", "sort", "no sorts"),),
        atoms=(linear, sort, replace(sort, id="c", nodes=("c",))),
        plan=PlanReport("exact", predicted_ns=100 + kernels_ns),
    )


def test_the_ops_are_named_with_their_share_and_the_reason() -> None:
    text = slow_kernels(method(300, {"portable": 150}), ["fast"])
    assert text is not None
    assert "'forward': ExecuTorch's kernels are predicted to take 75% of the time" in text
    assert "sort (2 times, 75%): fast: no sorts." in text


@pytest.mark.parametrize(
    ("kernels_ns", "costs", "backends"),
    [
        (99, {"portable": 1}, ["fast"]),  # less than half
        (300, {"portable": 150, "fast": 200}, ["fast"]),  # a delegate takes it
        (300, {"portable": 150}, []),  # kernels are what was asked for
    ],
)
def test_other_plans_are_not_warned_about(
    kernels_ns: float, costs: dict[str, float | None], backends: list[str]
) -> None:
    assert slow_kernels(method(kernels_ns, costs), backends) is None


class Unsupported(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fmod(x, 0.3).cumsum(0)


def test_lower_warns_once_and_only_if_delegates_were_asked_for() -> None:
    x = torch.randn(64, 64)
    with pytest.warns(LoweringWarning) as caught:
        lower(Unsupported(), (x,), backends=["xnnpack"])
    texts = [str(each.message) for each in caught if "kernels are predicted" in str(each.message)]
    assert len(texts) == 1
    assert "aten.fmod.Scalar" in texts[0]
    assert "xnnpack: no XNNPACK operator for" in texts[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", LoweringWarning)
        lower(Unsupported(), (x,), backends=[])
