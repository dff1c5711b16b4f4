"""Pooling against eager PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.harness.ops import check_op


def image(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(3))


class BothPools(nn.Module):
    """The maximum and the average over the same windows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.maximum = nn.MaxPool2d(*args, **kwargs)
        self.average = nn.AvgPool2d(*args, **kwargs)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.maximum(x), self.average(x)


@pytest.mark.parametrize(
    ("sizes", "window"),
    [
        ((16, 9, 11), {"kernel_size": 3, "stride": 2, "padding": 1}),
        ((5, 8, 8), {"kernel_size": 2}),
        ((70, 7, 7), {"kernel_size": 3, "stride": 1, "padding": 1}),
        ((3, 10, 13), {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0)}),
        ((9, 12, 12), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
        ((9, 6, 7), {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}),
        ((4, 5, 5), {"kernel_size": 5}),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_pooling_equals_eager(batch: int, sizes: tuple[int, ...], window: dict[str, Any]) -> None:
    check_op(BothPools(**window), (image(batch, *sizes),))


@pytest.mark.parametrize(
    "window",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": True},
        {
            "kernel_size": 2,
            "stride": 3,
            "padding": 1,
            "ceil_mode": True,
            "count_include_pad": False,
        },
        {"kernel_size": 2, "divisor_override": 3},
    ],
)
def test_an_average_divides_as_torch_does(window: dict[str, Any]) -> None:
    check_op(nn.AvgPool2d(**window), (image(2, 6, 8, 10),))


@pytest.mark.parametrize(
    "window",
    [
        {"kernel_size": 3, "dilation": 2},
        {"kernel_size": 2, "dilation": (3, 1), "stride": 2, "padding": 1},
    ],
)
def test_a_dilated_maximum_equals_eager(window: dict[str, Any]) -> None:
    check_op(nn.MaxPool2d(**window), (image(2, 6, 8, 10),))


def test_an_image_without_a_batch_is_pooled() -> None:
    check_op(BothPools(3, 2, 1), (image(6, 8, 10),))


def test_a_channels_last_input_gives_the_same_result() -> None:
    check_op(BothPools(3, 2, 1), (image(2, 6, 8, 10).to(memory_format=torch.channels_last),))


@pytest.mark.parametrize("channels", [3, 19])
def test_a_nan_is_the_maximum_of_its_windows(channels: int) -> None:
    x = image(1, channels, 6, 6)
    x[:, :, 2, 3] = torch.nan
    x[:, 0, 0, 0] = -torch.inf
    check_op(nn.MaxPool2d(3, 2, 1), (x,), may_be_constant=True)


def test_padding_never_wins_over_negative_values() -> None:
    check_op(nn.MaxPool2d(3, 2, 1), (image(1, 8, 6, 6) - 100.0,))


@pytest.mark.parametrize("layer", [nn.MaxPool1d(3, 2, 1), nn.AvgPool1d(2)], ids=["max", "avg"])
def test_pooling_over_one_dimension_equals_eager(layer: nn.Module) -> None:
    check_op(layer, (image(2, 6, 11),))


@pytest.mark.parametrize(
    ("sizes", "output"),
    [((6, 8, 10), (2, 5)), ((6, 7, 9), (3, 4)), ((20, 3, 3), (7, 7)), ((5, 7, 7), (7, None))],
)
def test_adaptive_pooling_equals_eager(
    sizes: tuple[int, ...], output: tuple[int | None, ...]
) -> None:
    pools = (functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d)
    check_op(lambda x: tuple(pool(x, output) for pool in pools), (image(2, *sizes),))


def test_sizes_may_change_between_runs() -> None:
    dim = torch.export.Dim
    check_op(
        BothPools(3, 2, 1),
        (image(2, 6, 8, 10),),
        dynamic_shapes=({0: dim("n", min=1, max=4), 2: dim("h", min=4, max=32)},),
        more_inputs=[(image(1, 6, 32, 10),), (image(4, 6, 4, 10),)],
    )


def test_indices_of_a_maximum_are_left_to_others() -> None:
    check_op(
        nn.MaxPool2d(2, return_indices=True),
        (image(1, 4, 6, 6),),
        delegated=False,
        reason="result 1 of aten.max_pool2d_with_indices.default is not computed",
    )
