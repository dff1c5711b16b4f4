"""`verify` on quantized programs: passes what the scheme allows, finds what is off by more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_

from examples.quantization import pt2e
from orchestrator import lower
from orchestrator.verify import verify

X = torch.randn(1, 3, 16, 16)
ROWS = torch.randn(8, 64)
lists = pytest.mark.parametrize("backends", [["ggml"], ["xnnpack"], ["ggml", "xnnpack"]], ids=str)


def _static() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.Conv2d(16, 8, 1),
        nn.Flatten(),
        nn.Linear(8 * 256, 5),
    )
    return pt2e(net, (X,))


def _dynamic() -> nn.Module:
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)).eval()
    quantize_(
        net,
        Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4, weight_granularity=PerGroup(32)
        ),
    )
    return net


def _per_tensor() -> nn.Module:
    return pt2e(nn.Sequential(nn.Linear(64, 32), nn.ReLU()), (ROWS,), dynamic=True)


def _checks(model: nn.Module, x: torch.Tensor, path: Path, backends: list[str]) -> Any:
    lower(model, (x,), backends=backends).save(path)
    return verify(path, model, (x,))


@lists
def test_static_layers_pass_by_their_steps(backends: list[str], tmp_path: Path) -> None:
    found = _checks(_static(), X, tmp_path / "m.pte", backends)
    assert found.first_off is None, found.checks
    assert any("steps of" in check.rule for check in found.checks)
    assert "int8 activations (static)" in str(found.method.segments)


@lists
def test_dynamic_layers_pass_by_their_number(backends: list[str], tmp_path: Path) -> None:
    found = _checks(_dynamic(), ROWS, tmp_path / "m.pte", backends)
    assert found.first_off is None, found.checks
    assert any("2 layers of 0.002" in check.rule for check in found.checks)


def test_a_backend_with_scales_of_its_own_passes(tmp_path: Path) -> None:
    found = _checks(_per_tensor(), ROWS, tmp_path / "m.pte", ["xnnpack"])
    assert found.first_off is None, found.checks
    assert any("one scale for all rows" in check.rule for check in found.checks)
    exact = _checks(_per_tensor(), ROWS, tmp_path / "m.pte", ["ggml"])
    assert exact.first_off is None and max(check.error for check in exact.checks) <= 1e-5


def test_another_model_is_off(tmp_path: Path) -> None:
    path, model = tmp_path / "m.pte", _dynamic()
    lower(model, (ROWS,), backends=["ggml"]).save(path)
    with torch.no_grad():
        model[2].bias += 0.05
    assert verify(path, model, (ROWS,)).first_off is not None


def test_a_tolerance_that_is_given_holds_for_all(tmp_path: Path) -> None:
    path, model = tmp_path / "m.pte", _static()
    lower(model, (X,), backends=["xnnpack"]).save(path)
    found = verify(path, model, (X,), tolerance=1e-9)
    assert all(check.allowed == 1e-9 and not check.rule for check in found.checks)
