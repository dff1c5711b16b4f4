"""DenseNet-121 (Huang et al. 2017, "Densely Connected Convolutional Networks").

BatchNorm stands before the convolutions and mostly after concatenations, where it cannot be folded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .layers import ConvNorm, PooledClassifier
from .spec import image_model


def norm_relu_conv(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """BatchNorm, ReLU and a convolution that keeps the size."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(), conv)


class DenseLayer(nn.Module):
    """Appends `growth` channels computed from all channels so far."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            norm_relu_conv(in_channels, 4 * growth, 1), norm_relu_conv(4 * growth, growth, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, height, width] to [batch, in_channels + growth, height, width]."""
        return torch.cat((x, self.layers(x)), dim=1)


class DenseNet(PooledClassifier):
    """Classifies pictures; the defaults are DenseNet-121."""

    def __init__(
        self,
        blocks: Sequence[int] = (6, 12, 24, 16),
        growth: int = 32,
        classes: int = 1000,
    ) -> None:
        channels = 2 * growth
        features = nn.Sequential(ConvNorm(3, channels, 7, stride=2), nn.MaxPool2d(3, 2, 1))
        for index, layers in enumerate(blocks):
            if index > 0:
                features.append(norm_relu_conv(channels, channels // 2, 1))
                features.append(nn.AvgPool2d(2))
                channels //= 2
            for _ in range(layers):
                features.append(DenseLayer(channels, growth))
                channels += growth
        features.append(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()))
        super().__init__(features, nn.Linear(channels, classes))


SPECS = (image_model("densenet121", DenseNet, 224, small=(lambda: DenseNet((2, 3), 8, 50), 64)),)
