"""ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .layers import PooledClassifier
from .spec import image_model


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [batch, channels, height, width]."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Depthwise 7x7, LayerNorm, two linear layers with GELU, layer scale, shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.project = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.project(F.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(PooledClassifier):
    """Classifies pictures; the defaults are ConvNeXt-T."""

    def __init__(
        self,
        blocks: Sequence[int] = (3, 3, 9, 3),
        widths: Sequence[int] = (96, 192, 384, 768),
        classes: int = 1000,
    ) -> None:
        features = nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), ChannelNorm(widths[0]))
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            if stage > 0:
                features.append(ChannelNorm(widths[stage - 1]))
                features.append(nn.Conv2d(widths[stage - 1], width, 2, stride=2))
            features.extend(Block(width) for _ in range(count))
        head = nn.Sequential(nn.LayerNorm(widths[-1], eps=1e-6), nn.Linear(widths[-1], classes))
        super().__init__(features, head)


SPECS = (
    image_model("convnext_tiny", ConvNeXt, 224, small=(lambda: ConvNeXt((1, 2), (32, 64), 50), 64)),
)
