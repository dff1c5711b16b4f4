"""MobileViT-S (Mehta and Rastegari 2022, "Light-weight, Mobile-friendly Vision Transformer")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .layers import ConvNorm, PooledClassifier
from .spec import image_model
from .vit import SelfAttention


class InvertedResidual(nn.Module):
    """MobileNetV2's block with SiLU and expansion 4."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        hidden = 4 * in_channels
        self.shortcut = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            ConvNorm(in_channels, hidden, activation=nn.SiLU),
            ConvNorm(hidden, hidden, 3, stride=stride, groups=hidden, activation=nn.SiLU),
            ConvNorm(hidden, out_channels, activation=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, height, width] to [batch, out_channels, height', width']."""
        return x + self.layers(x) if self.shortcut else self.layers(x)


class TransformerLayer(nn.Module):
    """Attention and two linear layers with SiLU, each after a LayerNorm and with a shortcut."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads)
        self.expand, self.project = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, dim] to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.project(F.silu(self.expand(self.norm2(x))))


class MobileViTBlock(nn.Module):
    """Convolutions around attention between pixels at the same place of different patches."""

    def __init__(self, channels: int, dim: int, depth: int, heads: int, patch: int = 2) -> None:
        super().__init__()
        self.patch = patch
        self.local = nn.Sequential(
            ConvNorm(channels, channels, 3, activation=nn.SiLU), nn.Conv2d(channels, dim, 1)
        )
        self.layers = nn.Sequential(*(TransformerLayer(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.project = ConvNorm(dim, channels, activation=nn.SiLU)
        self.fuse = ConvNorm(2 * channels, channels, 3, activation=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        y = self.local(x)
        batch, dim, height, width = y.shape
        patch, rows, columns = self.patch, height // self.patch, width // self.patch
        # [batch * patch ** 2, patches, dim]: one sequence per place within a patch
        y = y.reshape(batch * dim * rows, patch, columns, patch).transpose(1, 2)
        y = y.reshape(batch, dim, rows * columns, patch * patch).transpose(1, 3)
        y = self.layers(y.reshape(batch * patch * patch, rows * columns, dim))
        y = self.norm(y).view(batch, patch * patch, rows * columns, dim).transpose(1, 3)
        y = y.reshape(batch * dim * rows, columns, patch, patch).transpose(1, 2)
        y = self.project(y.reshape(batch, dim, height, width))
        return self.fuse(torch.cat((x, y), dim=1))


class MobileViT(PooledClassifier):
    """Classifies pictures; the defaults are MobileViT-S.

    Args:
        channels: Of the stem, the two convolutional stages and the attention stages.
        dims: Token width per attention stage.
        depths: Transformer layers per attention stage.
        last: Channels before pooling.
        classes: Number of classes.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64, 96, 128, 160),
        dims: Sequence[int] = (144, 192, 240),
        depths: Sequence[int] = (2, 4, 3),
        last: int = 640,
        classes: int = 1000,
    ) -> None:
        stem, first, second, *attention = channels
        features = nn.Sequential(
            ConvNorm(3, stem, 3, stride=2, activation=nn.SiLU),
            InvertedResidual(stem, first, 1),
            InvertedResidual(first, second, 2),
            InvertedResidual(second, second, 1),
            InvertedResidual(second, second, 1),
        )
        previous = second
        for width, dim, depth in zip(attention, dims, depths, strict=True):
            features.append(InvertedResidual(previous, width, 2))
            features.append(MobileViTBlock(width, dim, depth, heads=4))
            previous = width
        features.append(ConvNorm(previous, last, activation=nn.SiLU))
        super().__init__(features, nn.Linear(last, classes))


SPECS = (
    image_model(
        "mobilevit_s",
        MobileViT,
        256,
        small=(lambda: MobileViT((8, 16, 16, 24), (32,), (2,), 64, 50), 64),
        family="attention",
        tolerance=1e-3,
    ),
)
