"""Convolutions against eager PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.harness.ops import check_op, lower_ggml


def image(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("sizes", "layer"),
    [
        ((16, 7, 9), {"out_channels": 16, "kernel_size": 1}),
        ((3, 15, 17), {"out_channels": 32, "kernel_size": 3, "stride": 2, "padding": 1}),
        ((5, 11, 8), {"out_channels": 7, "kernel_size": (3, 2), "padding": (0, 1), "bias": False}),
    ],
)
def test_a_convolution_equals_eager(
    batch: int, sizes: tuple[int, ...], layer: dict[str, Any]
) -> None:
    check_op(nn.Conv2d(sizes[0], **layer), (image(batch, *sizes),))


@pytest.mark.parametrize(
    ("sizes", "layer"),
    [
        # Inner sizes around the kernels' tiles: 6 or 12 rows, 16 columns, 768 deep, 132 rows.
        ((24, 1, 1), {"out_channels": 144, "kernel_size": 1}),
        ((1, 5, 5), {"out_channels": 1, "kernel_size": 3}),
        ((17, 13, 1), {"out_channels": 15, "kernel_size": 1, "bias": False}),
        ((64, 9, 9), {"out_channels": 33, "kernel_size": 3, "padding": 1}),
        ((130, 12, 12), {"out_channels": 40, "kernel_size": (5, 1), "padding": (2, 0)}),
        ((8, 31, 33), {"out_channels": 48, "kernel_size": 1}),
        # Strides, dilations and paddings.
        ((16, 14, 14), {"out_channels": 32, "kernel_size": 1, "stride": 2}),
        ((16, 14, 15), {"out_channels": 20, "kernel_size": 1, "padding": 1}),
        ((4, 20, 21), {"out_channels": 8, "kernel_size": 3, "dilation": 2, "padding": 2}),
        ((4, 20, 21), {"out_channels": 8, "kernel_size": 3, "dilation": (1, 3), "stride": (3, 2)}),
        ((6, 4, 4), {"out_channels": 8, "kernel_size": 3, "padding": 3, "stride": 4}),
        ((3, 32, 32), {"out_channels": 16, "kernel_size": 7, "stride": 4, "padding": 3}),
        ((3, 16, 16), {"out_channels": 24, "kernel_size": 4, "stride": 4}),
        # Exported with asymmetric padding where the kernel is even.
        ((6, 9, 10), {"out_channels": 8, "kernel_size": 4, "padding": "same"}),
        ((6, 9, 10), {"out_channels": 8, "kernel_size": 3, "padding": "same", "dilation": 2}),
        ((6, 9, 10), {"out_channels": 8, "kernel_size": 3, "padding": "valid"}),
    ],
)
def test_a_convolution_of_any_shape_equals_eager(
    sizes: tuple[int, ...], layer: dict[str, Any]
) -> None:
    check_op(nn.Conv2d(sizes[0], **layer), (image(1, *sizes),))


@pytest.mark.parametrize(
    ("sizes", "layer"),
    [
        ((16, 9, 9), {"kernel_size": 3, "padding": 1}),
        ((96, 15, 15), {"kernel_size": 3, "padding": 1, "stride": 2}),
        ((24, 8, 20), {"kernel_size": 5, "padding": 2, "bias": False}),
        ((20, 9, 13), {"kernel_size": (3, 5), "padding": (1, 2), "stride": (2, 1)}),
        ((3, 10, 10), {"kernel_size": 3, "padding": 1}),
        ((300, 3, 3), {"kernel_size": 3, "padding": 1}),
        ((12, 7, 7), {"kernel_size": 7, "padding": 3}),
        ((8, 12, 12), {"kernel_size": 3, "dilation": 3, "padding": 2}),
        ((8, 2, 2), {"kernel_size": 5, "padding": 4}),
        ((32, 1, 1), {"kernel_size": 1}),
        ((9, 6, 6), {"kernel_size": 4, "padding": "same"}),
        ((5, 7, 8), {"kernel_size": 3, "padding": 1, "out_channels": 10}),
        ((16, 7, 8), {"kernel_size": 3, "padding": 1, "stride": 2, "out_channels": 48}),
    ],
)
def test_a_depthwise_convolution_equals_eager(
    sizes: tuple[int, ...], layer: dict[str, Any]
) -> None:
    channels = sizes[0]
    layer = {"out_channels": channels, **layer}
    check_op(nn.Conv2d(channels, groups=channels, **layer), (image(2, *sizes),))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(6, 10, 3, stride=2, padding=1),
        nn.Conv1d(16, 5, 1, bias=False),
        nn.Conv1d(4, 4, 5, padding="same", dilation=3),
        nn.Conv1d(4, 8, 4, padding="same"),
        nn.Conv1d(70, 70, 3, padding=1, groups=70),
        nn.Conv1d(6, 12, 3, padding=1, groups=6),
        nn.ConvTranspose1d(6, 4, 4, stride=2, padding=1),
    ],
    ids=str,
)
def test_a_convolution_over_one_dimension_equals_eager(layer: nn.Module) -> None:
    channels = layer.in_channels
    assert isinstance(channels, int)
    check_op(layer, (image(3, channels, 19),))


@pytest.mark.parametrize(
    ("sizes", "layer"),
    [
        ((4, 5, 7), {"out_channels": 6, "kernel_size": 3}),
        ((16, 6, 6), {"out_channels": 16, "kernel_size": 2, "stride": 2, "bias": False}),
        ((5, 4, 6), {"out_channels": 3, "kernel_size": 4, "stride": 2, "padding": 1}),
        (
            (5, 4, 6),
            {"out_channels": 17, "kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
        ),
        (
            (5, 4, 3),
            {
                "out_channels": 4,
                "kernel_size": (3, 2),
                "stride": (3, 2),
                "dilation": 2,
                "padding": (2, 0),
            },
        ),
        ((4, 3, 3), {"out_channels": 4, "kernel_size": 3, "dilation": 3, "output_padding": 2}),
        ((4, 3, 3), {"out_channels": 4, "kernel_size": 1, "stride": 3}),
    ],
)
def test_a_transposed_convolution_equals_eager(
    sizes: tuple[int, ...], layer: dict[str, Any]
) -> None:
    check_op(nn.ConvTranspose2d(sizes[0], **layer), (image(2, *sizes),))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 9, 3, padding=1),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.ConvTranspose2d(6, 4, 3, stride=2),
    ],
    ids=["dense", "depthwise", "transposed"],
)
def test_a_channels_last_input_gives_the_same_result(layer: nn.Module) -> None:
    check_op(layer, (image(2, 6, 8, 9).to(memory_format=torch.channels_last),))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 9, 3, stride=2, padding=1),
        nn.Conv2d(6, 9, 1),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
    ],
    ids=["dense", "pointwise", "depthwise"],
)
def test_sizes_may_change_between_runs(layer: nn.Module) -> None:
    dim = torch.export.Dim
    check_op(
        layer,
        (image(2, 6, 8, 9),),
        dynamic_shapes=(
            {0: dim("n", min=1, max=4), 2: dim("h", min=4, max=32), 3: dim("w", min=4, max=32)},
        ),
        more_inputs=[(image(1, 6, 32, 5),), (image(4, 6, 4, 31),), (image(2, 6, 8, 9),)],
    )


def test_convolutions_in_a_row_equal_eager() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.Conv2d(16, 24, 1),
        nn.ConvTranspose2d(24, 8, 2, stride=2),
        nn.Conv2d(8, 4, 5, padding=2),
    )
    check_op(model, (image(1, 3, 20, 22),))


def test_groups_of_several_channels_are_left_to_others() -> None:
    check_op(
        nn.Conv2d(8, 8, 3, groups=2),
        (image(1, 8, 6, 6),),
        delegated=False,
        reason="grouped convolution with 1 < groups < in_channels: left to other backends",
    )


def test_transposed_convolutions_in_groups_are_refused() -> None:
    check_op(
        nn.ConvTranspose2d(4, 4, 3, groups=4),
        (image(1, 4, 6, 6),),
        delegated=False,
        reason="a transposed convolution in groups",
    )


def test_three_spatial_dimensions_are_refused() -> None:
    _, recorder, _ = lower_ggml(nn.Conv3d(2, 3, 2), (image(1, 2, 4, 4, 4),))
    assert any("over 3 dimensions" in reason for reason in recorder.reasons.values())


def test_a_computed_weight_is_refused() -> None:
    check_op(
        lambda x, weight: torch.nn.functional.conv2d(x, weight),
        (image(1, 4, 6, 6), image(5, 4, 3, 3)),
        delegated=False,
        reason="the weight is computed",
    )
