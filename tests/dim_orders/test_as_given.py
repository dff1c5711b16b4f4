"""Images stay as they are where a backend that takes contiguous tensors alone is cheaper so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator import lower
from orchestrator.backends import Backend, Estimates, Rates, resolve_backends
from orchestrator.backends.xnnpack import XnnpackDelegate
from orchestrator.dim_orders.as_given import order_matters
from orchestrator.dry_run import plan
from orchestrator.planner import Layout
from orchestrator.report.data import MethodReport
from tests.harness.compare import relative_error


class Contiguous(XnnpackDelegate):
    """XNNPACK's delegate, which computes contiguous images too, as a stranger's."""

    name = "stranger"
    converts_dim_orders = False

    def __init__(self, speed: float) -> None:
        super().__init__()
        usual = Estimates().rates["product"]
        rates: Mapping[str, Rates] = {
            family: replace(usual, gflops=usual.gflops * speed, gbytes=usual.gbytes * speed)
            for family in ("product", "int8 product", "depthwise", "other")
        }
        self.estimates = Estimates(rates)

    def boundary_layouts(self, rank: int) -> tuple[Layout, ...]:
        return (Layout.CONTIGUOUS,)


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


def inputs() -> tuple[Tensor]:
    return (torch.randn(2, 3, 20, 24, generator=torch.Generator().manual_seed(3)),)


def backends(speed: float) -> list[Any]:
    return ["ggml", "xnnpack", Contiguous(speed)]


def planned(speed: float, **options: Any) -> MethodReport:
    return plan(
        Images().eval(), inputs(), backends=backends(speed), tune="off", **options
    ).report.methods[0]


def used(method: MethodReport) -> set[str]:
    return {segment.backend for segment in method.segments}


def test_it_matters_where_orders_differ() -> None:
    both = resolve_backends(["ggml", "xnnpack"])
    assert not order_matters(both)
    assert order_matters([*both, Contiguous(1)])
    alone: list[Backend] = [both[0], Contiguous(1)]
    assert not order_matters(alone)  # nothing is turned for one backend


def test_a_fast_backend_gets_images_as_they_are() -> None:
    method = planned(100)
    assert used(method) == {"stranger"}
    assert not method.converted


def test_a_slow_backend_does_not_keep_others_from_channels_last() -> None:
    method = planned(0.01)
    assert "stranger" not in used(method)
    assert method.converted


def test_the_chosen_plan_is_no_worse_than_any_single_backend() -> None:
    for speed in (0.3, 1.0, 3.0):
        method = planned(speed)
        assert method.plan is not None
        single = [each.predicted_ns for each in method.plan.alternatives if each.kind == "single"]
        assert len(single) == 4  # kernels alone among them
        best = min(each for each in single if each is not None)
        assert method.plan.predicted_ns is not None
        assert method.plan.predicted_ns <= best * (1 + 1e-9)


@pytest.mark.parametrize("speed", [0.01, 100.0])
@pytest.mark.parametrize("strategy", ["cost", "greedy"])
def test_either_way_results_are_right(speed: float, strategy: Any) -> None:
    torch.manual_seed(0)
    model = Images().eval()
    program = lower(model, inputs(), backends=backends(speed), tune="off", strategy=strategy)
    assert relative_error(program(*inputs()), model(*inputs())) < 1e-5
