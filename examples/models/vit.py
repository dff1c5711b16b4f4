"""ViT (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F  # noqa: N812

from .spec import image_model


class SelfAttention(nn.Module):
    """Multi-head attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, dim] to the same."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    """Attention and two linear layers with GELU, each after a LayerNorm and with a shortcut."""

    def __init__(self, dim: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim, eps=1e-6), SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp), nn.GELU(), nn.Linear(mlp, dim))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, dim] to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Classifies pictures.

    Args:
        size: Height and width of the pictures.
        patch: Height and width of a patch.
        dim: Width of the tokens.
        depth: Number of blocks.
        heads: Attention heads.
        classes: Number of classes.
        distilled: DeiT's second class token, whose logits are averaged with the first's.
    """

    def __init__(
        self,
        size: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        classes: int = 1000,
        distilled: bool = False,
    ) -> None:
        super().__init__()
        specials = 2 if distilled else 1
        self.patches = nn.Conv2d(3, dim, patch, stride=patch)
        self.specials = nn.Parameter(torch.zeros(1, specials, dim))
        self.positions = nn.Parameter(torch.zeros(1, specials + (size // patch) ** 2, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, 4 * dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.heads = nn.ModuleList(nn.Linear(dim, classes) for _ in range(specials))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, size, size] to [batch, classes]."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        specials = self.specials.expand(x.shape[0], -1, -1)
        tokens = torch.cat((specials, tokens), dim=1) + self.positions
        tokens = self.norm(self.blocks(tokens))
        logits = [head(tokens[:, index]) for index, head in enumerate(self.heads)]
        return logits[0] if len(logits) == 1 else (logits[0] + logits[1]) / 2


_DYNAMIC_BATCH = {"x": {0: Dim("batch", min=1, max=16)}}


def _small(distilled: bool = False) -> VisionTransformer:
    return VisionTransformer(32, 8, 48, 2, 3, classes=50, distilled=distilled)


SPECS = (
    image_model(
        "vit_tiny",
        lambda: VisionTransformer(224, 16, 192, 12, 3),
        224,
        small=(_small, 32),
        family="attention",
        tolerance=1e-3,
        dynamic_shapes=_DYNAMIC_BATCH,
    ),
    image_model(
        "vit_b_16",
        lambda: VisionTransformer(224, 16, 768, 12, 12),
        224,
        small=(_small, 32),
        family="attention",
        tolerance=1e-3,
        dynamic_shapes=_DYNAMIC_BATCH,
    ),
    image_model(
        "deit_tiny",
        lambda: VisionTransformer(224, 16, 192, 12, 3, distilled=True),
        224,
        small=(lambda: _small(distilled=True), 32),
        family="attention",
        tolerance=1e-3,
        dynamic_shapes=_DYNAMIC_BATCH,
    ),
)
