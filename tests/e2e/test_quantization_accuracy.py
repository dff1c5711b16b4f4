"""How far a quantized layer is from eager PyTorch, by scheme: what docs/quantization.md says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    PerAxis,
    PerGroup,
    quantize_,
)

from examples.quantization import pt2e
from orchestrator import lower
from orchestrator.graph.quantized import is_dequantize, quantization

_DOCS = Path(__file__).parents[2] / "docs" / "quantization.md"
_ROW = re.compile(r"^\| `(?P<scheme>[^`]+)` \|.*\| (?P<ggml>[^|]+) \| (?P<xnnpack>[^|]+) \|$", re.M)
SEEDS = range(4)


def _rows() -> Tensor:
    return torch.randn(8, 256)


def _image() -> Tensor:
    return torch.randn(1, 16, 12, 12)


def _torchao(config: Any) -> Callable[[], tuple[nn.Module, Tensor]]:
    def make() -> tuple[nn.Module, Tensor]:
        model = nn.Sequential(nn.Linear(256, 64)).eval()
        quantize_(model, config)
        return model, _rows()

    return make


def _weights(dtype: torch.dtype, granularity: Any) -> Callable[[], tuple[nn.Module, Tensor]]:
    return _torchao(IntxWeightOnlyConfig(dtype, granularity))


def _activations(
    dtype: torch.dtype, granularity: Any, scales: torch.dtype | None = None
) -> Callable[[], tuple[nn.Module, Tensor]]:
    return _torchao(
        Int8DynamicActivationIntxWeightConfig(
            weight_dtype=dtype, weight_granularity=granularity, weight_scale_dtype=scales
        )
    )


def _pt2e(
    make: Callable[[], nn.Module], given: Callable[[], Tensor], **how: Any
) -> Callable[[], tuple[nn.Module, Tensor]]:
    def quantized() -> tuple[nn.Module, Tensor]:
        x = given()
        return pt2e(make(), (x,), calibration=[(x,), (given(),)], **how), x

    return quantized


SCHEMES: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "8w": _weights(torch.int8, PerAxis(0)),
    "8w, groups": _weights(torch.int8, PerGroup(32)),
    "4w": _weights(torch.int4, PerGroup(32)),
    "8da8w": _activations(torch.int8, PerAxis(0)),
    "8da4w": _activations(torch.int4, PerGroup(32)),
    "8da4w, bfloat16 scales": _activations(torch.int4, PerGroup(32), torch.bfloat16),
    "dynamic": _pt2e(lambda: nn.Linear(256, 64), _rows, dynamic=True),
    "static": _pt2e(lambda: nn.Linear(256, 64), _rows),
    "static convolution": _pt2e(lambda: nn.Conv2d(16, 24, 3, padding=1), _image),
    "static depthwise": _pt2e(lambda: nn.Conv2d(16, 16, 3, groups=16), _image),
}


def _documented() -> dict[str, dict[str, str]]:
    return {
        found["scheme"]: {name: found[name].strip() for name in ("ggml", "xnnpack")}
        for found in _ROW.finditer(_DOCS.read_text())
    }


def _step(model: nn.Module, x: Tensor) -> float:
    """The scale of the result, of a model with activations of fixed scales."""
    nodes = torch.export.export(model, (x,)).graph.nodes
    scales = [
        found.scale for node in nodes if is_dequantize(node) and (found := quantization(node))
    ]
    assert isinstance(scales[-1], float)
    return scales[-1]


def _error(scheme: str, backend: str, seed: int) -> float:
    """Over the largest value; of fixed scales, in steps."""
    torch.manual_seed(seed)
    model, x = SCHEMES[scheme]()
    program = lower(model, (x,), backends=[backend])
    with torch.no_grad():
        want = model(x)
    off = float((program(x) - want).abs().max())
    if scheme.startswith("static"):
        return round(off / _step(model, x), 3)  # whole steps, but for the scale's own digits
    return off / float(want.abs().max())


def test_every_scheme_is_documented() -> None:
    assert _documented().keys() == SCHEMES.keys()


@pytest.mark.parametrize("backend", ["ggml", "xnnpack"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_is_as_exact_as_documented(scheme: str, backend: str) -> None:
    """And not ten times as exact: then the table is out of date."""
    text = _documented()[scheme][backend]
    found = max(_error(scheme, backend, seed) for seed in SEEDS)
    limit = float(text.split()[0])
    assert found <= limit, f"{scheme} on {backend}: {found:.2g}, documented is {text}"
    assert found > limit / 10 or limit <= 1e-6 or text.startswith("1 step"), (
        f"{scheme} on {backend}: {found:.2g}, documented is {text}"
    )
