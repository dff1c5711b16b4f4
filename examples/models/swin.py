"""Swin Transformer (Liu et al. 2021, "Hierarchical Vision Transformer using Shifted Windows")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .spec import image_model

_MASKED = -100.0  # as in the paper's code: exp(-100) is 0 in float32


def partition(x: Tensor, window: int) -> Tensor:
    """[batch, height, width, dim] to [batch * windows, window * window, dim]."""
    batch, height, width, dim = x.shape
    x = x.view(batch, height // window, window, width // window, window, dim)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, dim)


def unpartition(x: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of `partition`."""
    dim = x.shape[-1]
    x = x.view(-1, height // window, width // window, window, window, dim)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, dim)


def relative_positions(window: int) -> Tensor:
    """Row of the bias table for each pair of tokens, int64 [window ** 4]."""
    axis = torch.arange(window)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).flatten(1)
    offsets = grid[:, :, None] - grid[:, None, :] + window - 1
    return (offsets[0] * (2 * window - 1) + offsets[1]).flatten()


def shift_mask(size: int, window: int, shift: int) -> Tensor:
    """0 between tokens that were neighbours before the shift, else -100.

    Returns:
        float32 [windows, window ** 2, window ** 2].
    """
    regions = torch.zeros(size)
    regions[-window:-shift] = 1
    regions[-shift:] = 2
    labels = (3 * regions[:, None] + regions[None, :])[None, :, :, None]
    flat = partition(labels, window).squeeze(-1)
    return (flat[:, None, :] != flat[:, :, None]).float() * _MASKED


class WindowAttention(nn.Module):
    """Attention within windows, shifted by half a window if `shift` is not 0."""

    def __init__(self, dim: int, heads: int, size: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("positions", relative_positions(window), persistent=False)
        if shift:
            self.register_buffer("mask", shift_mask(size, window, shift), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, size, size, dim] to the same."""
        _, height, width, dim = x.shape
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        tokens = partition(x, self.window)
        windows, count, _ = tokens.shape
        qkv = self.qkv(tokens).reshape(windows, count, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(windows, count))
        y = self.out(y.transpose(1, 2).reshape(windows, count, dim))
        y = unpartition(y, self.window, height, width)
        return y.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else y

    def _bias(self, windows: int, count: int) -> Tensor:
        bias = self.bias_table[self.positions].view(count, count, self.heads)
        bias = bias.permute(2, 0, 1).unsqueeze(0)
        if not self.shift:
            return bias
        mask = self.mask.unsqueeze(1)  # [windows of a picture, 1, count, count]
        return (bias + mask).repeat(windows // mask.shape[0], 1, 1, 1)


class Block(nn.Module):
    """Window attention and two linear layers, each after a LayerNorm and with a shortcut."""

    def __init__(self, dim: int, heads: int, size: int, window: int, shift: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = WindowAttention(dim, heads, size, window, shift)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, size, size, dim] to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Joins 2x2 neighbours and halves the result's width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduce = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, size, size, dim] to [batch, size / 2, size / 2, 2 * dim]."""
        corners = (x[:, row::2, column::2] for column in (0, 1) for row in (0, 1))
        return self.reduce(self.norm(torch.cat(tuple(corners), dim=-1)))


class SwinTransformer(nn.Module):
    """Classifies pictures; the defaults are Swin-T.

    Args:
        size: Height and width of the pictures.
        dim: Width of the first stage; doubled in each stage.
        depths: Blocks per stage.
        heads: Attention heads per stage.
        window: Height and width of a window, in patches.
        classes: Number of classes.
    """

    def __init__(
        self,
        size: int = 224,
        dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, stride=4)
        self.norm_in = nn.LayerNorm(dim)
        self.stages = nn.Sequential()
        grid = size // 4
        for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
            if stage > 0:
                self.stages.append(PatchMerging(dim))
                dim, grid = 2 * dim, grid // 2
            for index in range(depth):
                shift = window // 2 if index % 2 == 1 and grid > window else 0
                self.stages.append(Block(dim, count, grid, window, shift))
        self.norm_out = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, size, size] to [batch, classes]."""
        tokens = self.norm_in(self.patches(x).permute(0, 2, 3, 1))
        return self.head(self.norm_out(self.stages(tokens)).mean((1, 2)))


SPECS = (
    image_model(
        "swin_tiny",
        SwinTransformer,
        224,
        small=(lambda: SwinTransformer(64, 24, (2, 2), (2, 4), 4, 50), 64),
        family="attention",
        tolerance=1e-3,
    ),
)
