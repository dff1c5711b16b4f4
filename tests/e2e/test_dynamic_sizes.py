"""Models whose sizes are expressions of dynamic ones, at the smallest, the largest and others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.export import Dim

from orchestrator import lower
from tests.harness.compare import assert_close_to_eager

BOTH = ("ggml", "xnnpack")
HW = {2: Dim("h", min=16, max=64), 3: Dim("w", min=16, max=64)}
IMAGES = [(1, 3, 24, 24), (1, 3, 17, 33), (1, 3, 64, 16), (1, 3, 16, 64)]
LENGTH = {1: Dim("n", min=1, max=32)}
ROWS = [(2, 6, 8), (2, 1, 8), (2, 32, 8)]
# A batch of rows.
BATCH = {0: Dim("b", min=1, max=4), 1: Dim("n", min=1, max=32)}
BATCHES = [(2, 6, 8), (1, 1, 8), (4, 32, 8), (3, 7, 8)]


class Model(nn.Module):
    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.layers)


@dataclass(frozen=True)
class Case:
    """sizes: of the inputs to run, the example first."""

    model: nn.Module
    sizes: list[tuple[int, ...]]
    dims: Any


def _half(c: int) -> nn.Conv2d:
    return nn.Conv2d(c, 8, 3, 2, 1)


def _grouped() -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, 2, 1, groups=2)


def _to_multiple(x: Tensor, conv: nn.Module) -> Tensor:
    height, width = x.shape[2:]
    return conv(F.pad(x, (0, -width % 8, 0, -height % 8)))[:, :, :height, :width]


def _gate(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> tuple[Tensor, Tensor]:
    y = F.hardswish(b(F.relu6(a(x))))
    y = y * torch.sigmoid(c(y.mean((2, 3), keepdim=True)))
    return y.mean((2, 3)), y


def _resized(mode: str, factor: float) -> Case:
    model = Model(
        lambda x, a, b: b(F.interpolate(a(x), scale_factor=factor, mode=mode)).relu(),
        nn.Conv2d(3, 4, 3, 1, 1),
        nn.Conv2d(4, 4, 3, 1, 1),
    )
    return Case(model, IMAGES, HW)


def _attention(x: Tensor, qkv: nn.Module) -> Tensor:
    b, n, _ = x.shape
    q, k, v = qkv(x).reshape(b, n, 3, 2, 4).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return y.transpose(1, 2).reshape(b, n, 8)


CASES = {
    "grouped": Case(
        Model(lambda x, a, b: F.gelu(b(a(x).relu())).exp(), _half(3), _grouped()), IMAGES, HW
    ),
    "gate": Case(Model(_gate, _half(3), _grouped(), nn.Conv2d(8, 8, 1)), IMAGES, HW),
    "flatten": Case(Model(lambda x, a: F.softmax(a(x).flatten(2), 1), _half(3)), IMAGES, HW),
    "batch of images": Case(
        Model(
            lambda x, a, b, c: c(F.adaptive_avg_pool2d(b(a(x).relu()), 1).flatten(1)),
            _half(3),
            _grouped(),
            nn.Linear(8, 5),
        ),
        [(2, 3, 24, 24), (1, 3, 17, 33), (4, 3, 64, 16)],
        {0: Dim("b", min=1, max=4), **HW},
    ),
    "skip": Case(
        Model(
            lambda x, a, b: torch.cat(
                [a(x), F.interpolate(b(a(x)), size=a(x).shape[2:], mode="nearest")], 1
            ).relu(),
            _half(3),
            nn.Conv2d(8, 4, 3, 2, 1),
        ),
        IMAGES,
        HW,
    ),
    "padded": Case(
        Model(lambda x, a, b: b(F.pad(a(x), (0, 1, 2, 1)).relu()), _half(3), nn.Conv2d(8, 4, 3)),
        [(2, 3, 24, 24), (1, 3, 17, 33), (4, 3, 64, 16)],
        {0: Dim("b", min=1, max=4), **HW},
    ),
    # The example's height is a multiple, and its width is not.
    "padded to a multiple": Case(
        Model(_to_multiple, nn.Conv2d(3, 4, 3, padding=1)), [(1, 3, 24, 21), *IMAGES[1:]], HW
    ),
    "nearest by 2": _resized("nearest", 2),
    "bilinear by 1.5": _resized("bilinear", 1.5),
    "bicubic by 2": _resized("bicubic", 2),
    "tokens": Case(
        Model(lambda x, a: a(x.reshape(-1, 8)).exp().reshape(*x.shape[:2], 4), nn.Linear(8, 4)),
        BATCHES,
        BATCH,
    ),
    "the middle": Case(
        Model(lambda x, a: _attention(x.neg()[:, 2:-1], a), nn.Linear(8, 24)),
        [(2, 6, 8), (2, 4, 8), (2, 32, 8)],
        {1: 2 * Dim("k", min=2, max=16)},
    ),
    "windows": Case(
        Model(lambda x, a: a(x).unflatten(1, (-1, 2)).mean(2).exp(), nn.Linear(8, 8)),
        [(2, 6, 8), (2, 4, 8), (2, 32, 8)],
        {1: 2 * Dim("k", min=2, max=16)},
    ),
    "places": Case(
        Model(
            lambda x, a, b: a(x) + b(torch.arange(x.shape[1])), nn.Linear(8, 8), nn.Embedding(32, 8)
        ),
        ROWS,
        LENGTH,
    ),
    "attention": Case(Model(_attention, nn.Linear(8, 24)), BATCHES, BATCH),
}


# What the other one takes where both are asked.
ALONE = {
    "xnnpack": ("padded to a multiple", "grouped", "nearest by 2", "windows"),
    "ggml": ("gate", "flatten", "tokens", "attention"),
}
RUNS = [
    *((name, BOTH) for name in CASES),
    *((name, (backend,)) for backend, names in ALONE.items() for name in names),
]


@pytest.mark.parametrize(
    ("name", "backends"), RUNS, ids=lambda each: "+".join(each) if isinstance(each, tuple) else each
)
def test_expressions_of_dynamic_sizes(name: str, backends: tuple[str, ...]) -> None:
    case = CASES[name]
    model = case.model.eval()
    program = lower(
        model, (torch.randn(case.sizes[0]),), backends=backends, dynamic_shapes=(case.dims,)
    )
    for size in case.sizes:
        assert_close_to_eager(
            program,
            model,
            (torch.randn(size),),
            other_inputs=(torch.randn(size),),
            tolerance=1e-5,
        )
