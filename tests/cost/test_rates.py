"""Rates of a device from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.backends import resolve_backends
from orchestrator.cost.rates import read_rates
from orchestrator.cost.source import TargetError
from orchestrator.cost.table import CostTableError
from orchestrator.dry_run import plan
from orchestrator.options import OptionError, PlanOptions

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "phone.json"


def written(folder: Path, data: Any) -> Path:
    path = folder / "device.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def device(**xnnpack: Any) -> dict[str, Any]:
    return {"target": "board", "about": "Made up.", "backends": {"xnnpack": xnnpack}}


def test_what_a_file_leaves_out_is_as_here(tmp_path: Path) -> None:
    path = written(tmp_path, device(call_ns=7e6, rates={"product": [1, 2, 3, 0.5]}))
    backends = resolve_backends(["ggml", "xnnpack"])
    found = read_rates(path).estimates(backends)
    here = {each.name: each.estimates for each in backends}
    assert found["ggml"] == here["ggml"]
    assert found["xnnpack"].call_ns == 7e6
    assert found["xnnpack"].rates["product"].gflops == 1
    assert found["xnnpack"].rates["other"] == here["xnnpack"].rates["other"]
    assert found["xnnpack"].parallel == here["xnnpack"].parallel


def test_plans_go_by_the_rates(tmp_path: Path) -> None:
    model, inputs = nn.Linear(256, 256).eval(), (torch.randn(64, 256),)

    def chosen(gflops: float) -> str:
        path = written(tmp_path, device(rates={"product": [gflops, gflops, 100, 0.1]}))
        found = plan(model, inputs, cost_table=path, target="board").report.methods[0]
        assert found.plan is not None
        assert any("rates of 'board': device.json. Made up." in each for each in found.plan.notes)
        assert any("no rates of ggml" in each for each in found.plan.notes)
        (segment,) = found.segments
        return segment.backend

    assert chosen(1e5) == "xnnpack"
    assert chosen(1e-2) == "ggml"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "no JSON"),
        ([1], "the name of a device"),
        ({"target": "board"}, "expected an object of backends"),
        ({"target": "board", "backends": {"ggml": 3}}, r"backend 'ggml': expected an object"),
        (device(speed=3), r"'xnnpack': unknown 'speed'; known: rates, call_ns"),
        (device(call_ns=-1), "call_ns is -1; expected a number"),
        (device(call_ns="fast"), "call_ns is 'fast'"),
        (device(rates=[1]), "rates: expected an object"),
        (device(rates={"product": [1, 2]}), r"'product': found \[1, 2\]; expected the numbers"),
        (device(rates={"product": [1, 2, 0, 1]}), "all above 0"),
    ],
)
def test_a_file_that_is_wrong_is_an_error(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(CostTableError, match=message):
        read_rates(written(tmp_path, data))


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CostTableError, match="there is no file of rates"):
        read_rates(tmp_path / "none.json")


def test_rates_are_of_one_target(tmp_path: Path) -> None:
    path = written(tmp_path, device())
    with pytest.raises(TargetError, match=r"rates of target 'board', and .* 'phone'"):
        plan(nn.Linear(4, 4).eval(), (torch.randn(1, 4),), cost_table=path, target="phone")


def test_measuring_needs_a_table(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a file of rates"):
        PlanOptions(tune="measure", cost_table=tmp_path / "device.json")


def test_the_example_is_read() -> None:
    rates = read_rates(EXAMPLE)
    assert rates.target == "phone"
    assert rates.backends.keys() == {"xnnpack", "ggml", "vulkan", "portable"}
