"""ResNet (He et al. 2016) and ResNeXt (Xie et al. 2017).

The stride is in the 3x3 convolution of a bottleneck, as in the widely used variant "v1.5".
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .layers import ConvNorm, PooledClassifier
from .spec import image_model


class Residual(nn.Module):
    """`relu(layers(x) + shortcut(x))`; the shortcut is a 1x1 convolution where shapes differ."""

    def __init__(self, layers: nn.Module, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.layers = layers
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = ConvNorm(in_channels, out_channels, stride=stride, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, height, width] to [batch, out_channels, height', width']."""
        return F.relu(self.layers(x) + self.shortcut(x))


def basic_block(in_channels: int, width: int, stride: int) -> Residual:
    """Two 3x3 convolutions."""
    layers = nn.Sequential(
        ConvNorm(in_channels, width, 3, stride=stride),
        ConvNorm(width, width, 3, activation=None),
    )
    return Residual(layers, in_channels, width, stride)


def bottleneck(
    in_channels: int, width: int, stride: int, groups: int = 1, group_width: int = 64
) -> Residual:
    """1x1, 3x3 in `groups`, 1x1 to four times `width` channels.

    Args:
        in_channels: Channels of the input.
        width: Channels of the stage; ResNet's inner channels, a quarter of the output's.
        stride: Stride of the 3x3 convolution.
        groups: ResNeXt's cardinality.
        group_width: Channels per group in the first stage, where `width` is 64.
    """
    inner = width * group_width // 64 * groups
    layers = nn.Sequential(
        ConvNorm(in_channels, inner),
        ConvNorm(inner, inner, 3, stride=stride, groups=groups),
        ConvNorm(inner, 4 * width, activation=None),
    )
    return Residual(layers, in_channels, 4 * width, stride)


class ResNet(PooledClassifier):
    """Classifies pictures.

    Args:
        blocks: Number of blocks in each stage.
        groups: None for basic blocks, else the groups of bottlenecks.
        group_width: See `bottleneck`.
        width: Channels of the first stage.
        classes: Number of classes.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        groups: int | None = None,
        group_width: int = 64,
        width: int = 64,
        classes: int = 1000,
    ) -> None:
        channels = width
        features = nn.Sequential(ConvNorm(3, width, 7, stride=2), nn.MaxPool2d(3, 2, padding=1))
        for stage, count in enumerate(blocks):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                if groups is None:
                    block = basic_block(channels, width << stage, stride)
                    channels = width << stage
                else:
                    block = bottleneck(channels, width << stage, stride, groups, group_width)
                    channels = 4 * width << stage
                features.append(block)
        super().__init__(features, nn.Linear(channels, classes))


SPECS = (
    image_model(
        "resnet18",
        lambda: ResNet((2, 2, 2, 2)),
        224,
        small=(lambda: ResNet((1, 1), width=16, classes=50), 64),
    ),
    image_model(
        "resnet50",
        lambda: ResNet((3, 4, 6, 3), groups=1),
        224,
        small=(lambda: ResNet((1, 2), groups=1, width=16, classes=50), 64),
    ),
    image_model(
        "resnext50_32x4d",
        lambda: ResNet((3, 4, 6, 3), groups=32, group_width=4),
        224,
        small=(lambda: ResNet((1, 2), groups=32, group_width=16, width=16, classes=50), 64),
    ),
)
