"""U-Net (Ronneberger et al. 2015), with padding and BatchNorm as commonly used since."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .layers import ConvNorm
from .spec import image_model


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions."""
    return nn.Sequential(
        ConvNorm(in_channels, out_channels, 3), ConvNorm(out_channels, out_channels, 3)
    )


class UNet(nn.Module):
    """Labels every pixel.

    Args:
        width: Channels at full size; doubled at each of `depth` halvings.
        depth: Number of halvings.
        classes: Number of labels.
    """

    def __init__(self, width: int = 32, depth: int = 4, classes: int = 21) -> None:
        super().__init__()
        widths = [width << level for level in range(depth + 1)]
        pairs = list(pairwise(widths))
        self.stem = double_conv(3, width)
        self.down = nn.ModuleList(double_conv(above, below) for above, below in pairs)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(below, above, 2, stride=2) for above, below in reversed(pairs)
        )
        self.merge = nn.ModuleList(double_conv(2 * above, above) for above, _ in reversed(pairs))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, height, width] to [batch, classes, height, width]."""
        levels = [self.stem(x)]
        for down in self.down:
            levels.append(down(self.pool(levels[-1])))
        y = levels.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            y = merge(torch.cat((levels.pop(), up(y)), dim=1))
        return self.head(y)


SPECS = (image_model("unet", UNet, 256, small=(lambda: UNet(8, 2, 5), 32)),)
