"""BERT (Devlin et al. 2019) and DistilBERT (Sanh et al. 2019): norms stand after shortcuts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim

from .seeding import tokens
from .spec import Inputs, ModelSpec
from .transformer import Attention, Mlp

_MASKED = -1e4


class Layer(nn.Module):
    """Attention and two linear layers, each with a shortcut and then a LayerNorm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(dim, heads), Mlp(dim, 4 * dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-12), nn.LayerNorm(dim, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[batch, tokens, dim] to the same; `mask` is added to the attention scores."""
        x = self.norm1(x + self.attention(x, mask=mask))
        return self.norm2(x + self.mlp(x))


class Bert(nn.Module):
    """Encodes token ids.

    Args:
        dim: Width of the tokens.
        depth: Number of layers.
        heads: Attention heads.
        vocabulary: Number of token ids.
        longest: Number of positions.
        distilled: DistilBERT has neither segment embeddings nor a pooler.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        vocabulary: int = 30522,
        longest: int = 512,
        distilled: bool = False,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, dim)
        self.positions = nn.Embedding(longest, dim)
        self.segments = None if distilled else nn.Embedding(2, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(depth))
        self.pooler = None if distilled else nn.Linear(dim, dim)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Encodes.

        Args:
            ids: int64 [batch, tokens].
            mask: int64 [batch, tokens]; 0 for padding, 1 elsewhere.

        Returns:
            float32 [batch, tokens, dim] and, unless distilled, the pooled [batch, dim].
        """
        x = self.words(ids) + self.positions(torch.arange(ids.shape[1]))
        if self.segments is not None:
            x = x + self.segments(torch.zeros_like(ids))
        scores = (1.0 - mask[:, None, None, :].to(x.dtype)) * _MASKED
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, scores)
        return x if self.pooler is None else (x, torch.tanh(self.pooler(x[:, 0])))


def _inputs(length: int, vocabulary: int) -> Inputs:
    def make(batch: int, seed: int) -> tuple[Tensor, ...]:
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[:, length - length // 4 :] = 0
        return tokens(batch, length, vocabulary, seed), mask

    return make


def _spec(name: str, dim: int, depth: int, heads: int, *, distilled: bool = False) -> ModelSpec:
    batch, length = Dim("batch", min=1, max=16), Dim("length", min=2, max=64)
    dynamic = {"ids": {0: batch, 1: length}, "mask": {0: batch, 1: length}}
    small = ModelSpec(
        name,
        "attention",
        lambda: Bert(32, 2, 2, vocabulary=100, longest=64, distilled=distilled),
        _inputs(16, 100),
        tolerance=1e-3,
        dynamic_shapes=dynamic,
    )
    return ModelSpec(
        name,
        "attention",
        lambda: Bert(dim, depth, heads, distilled=distilled),
        _inputs(128, 30522),
        tolerance=1e-3,
        small=small,
        dynamic_shapes=dynamic
        | {key: {0: batch, 1: Dim("length", min=2, max=512)} for key in dynamic},
    )


SPECS = (
    _spec("bert_mini", 256, 4, 4),
    _spec("bert_base", 768, 12, 12),
    _spec("distilbert", 768, 6, 12, distilled=True),
)
