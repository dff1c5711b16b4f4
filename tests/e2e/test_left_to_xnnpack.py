"""Means over height and width and grouped convolutions: XNNPACK's part in a program with ggml."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import orchestrator
from examples.models.resnet import bottleneck
from examples.models.seeding import calibrate_batch_norm, images, seeded
from examples.models.shufflenet_v2 import Unit
from tests.harness.compare import assert_close_to_eager
from tests.harness.models import BOTH, backends_in


class Pooling(nn.Module):
    """Convolution, global average pooling, linear."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.linear, self.pool = nn.Conv2d(16, 24, 3), nn.Linear(24, 10), pool

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(torch.relu(self.conv(x))).flatten(1))


BLOCKS = {
    "mean": lambda: Pooling(lambda x: x.mean((2, 3))),
    "mean_keepdim": lambda: Pooling(lambda x: x.mean((2, 3), keepdim=True)),
    "adaptive_pool": lambda: Pooling(partial(nn.functional.adaptive_avg_pool2d, output_size=1)),
    "resnext": lambda: bottleneck(16, 64, 1, groups=32, group_width=4),
    "resnext_stride_2": lambda: bottleneck(16, 64, 2, groups=32, group_width=4),
    "shufflenet": lambda: Unit(16, 16, 1),
    "shufflenet_stride_2": lambda: Unit(16, 32, 2),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs_like_eager_on_both_backends(block: str) -> None:
    x, other = images(1, 14, 0, channels=16), images(1, 14, 1, channels=16)
    model = seeded(BLOCKS[block]())
    calibrate_batch_norm(model, [(images(4, 14, 2, channels=16),)])

    program = orchestrator.lower(model, (x,), backends=BOTH, strategy="greedy")

    assert_close_to_eager(program, model, (x,), other_inputs=(other,), tolerance=1e-4)
    if not block.startswith("shufflenet"):  # ggml can take all of it
        assert backends_in(program) == set(BOTH)
    (method,) = program.report.methods
    assert not {"aten.mean.dim", "aten.convolution.default"} & set(method.kernels)
