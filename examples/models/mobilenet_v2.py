"""MobileNetV2 (Sandler et al. 2018, "Inverted Residuals and Linear Bottlenecks", table 2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .layers import ConvNorm, PooledClassifier, round_channels
from .spec import image_model

Stages = Sequence[tuple[int, int, int, int]]

# expansion, channels, blocks, stride of the first block
STAGES: Stages = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; with a shortcut where shapes allow it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.shortcut = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            ConvNorm(hidden, hidden, 3, stride=stride, groups=hidden, activation=nn.ReLU6),
            ConvNorm(hidden, out_channels, activation=None),
        )
        if expansion != 1:
            self.layers.insert(0, ConvNorm(in_channels, hidden, activation=nn.ReLU6))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, height, width] to [batch, out_channels, height', width']."""
        return x + self.layers(x) if self.shortcut else self.layers(x)


class MobileNetV2(PooledClassifier):
    """Classifies pictures.

    Args:
        width: Scales the channels of every layer, of the last only if above 1.
        classes: Number of classes.
        stages: Expansion, channels, blocks and stride of the first block, for each stage.
    """

    def __init__(self, width: float = 1.0, classes: int = 1000, stages: Stages = STAGES) -> None:
        channels = round_channels(32 * width)
        features = nn.Sequential(ConvNorm(3, channels, 3, stride=2, activation=nn.ReLU6))
        for expansion, stage_channels, blocks, stage_stride in stages:
            out_channels = round_channels(stage_channels * width)
            for block in range(blocks):
                stride = stage_stride if block == 0 else 1
                features.append(InvertedResidual(channels, out_channels, stride, expansion))
                channels = out_channels
        last = round_channels(4 * stages[-1][1] * max(1.0, width))
        features.append(ConvNorm(channels, last, activation=nn.ReLU6))
        super().__init__(features, nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes)))


_SMALL: Stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 1, 1))

SPECS = (
    image_model(
        "mobilenet_v2", MobileNetV2, 224, small=(lambda: MobileNetV2(0.5, 100, _SMALL), 64)
    ),
)
