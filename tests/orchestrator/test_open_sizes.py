"""Programs take every size that they were exported for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim, export

from orchestrator import lower
from orchestrator.open_sizes import open_sizes_kept


@pytest.mark.parametrize("backends", [("ggml", "xnnpack"), ("ggml",), ("xnnpack",), ()])
def test_a_batch_may_be_as_large_as_exported(backends: tuple[str, ...]) -> None:
    """PyTorch's fake convolution asks whether the batch is below 16; the example's is."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    shapes = ({0: Dim("n", min=1, max=64)},)
    program = lower(
        model,
        (torch.randn(2, 3, 8, 9),),
        backends=backends,
        strategy="greedy",
        dynamic_shapes=shapes,
    )
    for batch in (1, 2, 15, 16, 64):
        x = torch.randn(batch, 3, 8, 9)
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)


def test_ranges_stay_as_they_were() -> None:
    model = nn.Conv2d(3, 8, 3).eval()
    shapes = ({0: Dim("n", min=1, max=64)},)
    program = export(model, (torch.randn(2, 3, 8, 9),), dynamic_shapes=shapes)
    image = next(node.meta["val"] for node in program.graph.nodes if node.name == "input")
    env = image.fake_mode.shape_env
    before = dict(env.var_to_range)
    with open_sizes_kept([program]), image.fake_mode:
        assert image.shape[0] < 16
    assert env.var_to_range == before
    assert image.shape[0] < 16  # asked outside, it is a condition
    assert env.var_to_range != before
