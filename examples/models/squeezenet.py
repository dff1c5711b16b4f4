"""SqueezeNet 1.1 (Iandola et al. 2016, and the authors' later release with fewer operations)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .spec import image_model

# squeeze channels and expand channels (of each kernel size) per group between poolings
_GROUPS = (
    ((16, 64), (16, 64)),
    ((32, 128), (32, 128)),
    ((48, 192), (48, 192), (64, 256), (64, 256)),
)


class Fire(nn.Module):
    """Squeezes with 1x1 kernels, expands with 1x1 and 3x3 kernels, joins both."""

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, height, width] to [batch, 2 * expand, height, width]."""
        x = F.relu(self.squeeze(x))
        return torch.cat((F.relu(self.expand1(x)), F.relu(self.expand3(x))), dim=1)


class SqueezeNet(nn.Module):
    """Classifies pictures; the classifier is a convolution whose outputs are averaged."""

    def __init__(
        self, groups: Sequence[Sequence[tuple[int, int]]] = _GROUPS, classes: int = 1000
    ) -> None:
        super().__init__()
        channels = 64
        self.features = nn.Sequential(nn.Conv2d(3, channels, 3, stride=2), nn.ReLU())
        for group in groups:
            self.features.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            for squeeze, expand in group:
                self.features.append(Fire(channels, squeeze, expand))
                channels = 2 * expand
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(channels, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, height, width] to [batch, classes]."""
        return self.classifier(self.features(x)).flatten(1)


SPECS = (
    image_model("squeezenet", SqueezeNet, 224, small=(lambda: SqueezeNet(_GROUPS[:2], 50), 64)),
)
