"""GPT-2 (Radford et al. 2019): a decoder with learned positions and tied embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F  # noqa: N812

from .seeding import tokens
from .spec import ModelSpec
from .transformer import Attention, Mlp


class Block(nn.Module):
    """Causal attention and two linear layers, each after a LayerNorm and with a shortcut."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, causal=True)
        self.mlp = Mlp(dim, 4 * dim, approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, dim] to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT2(nn.Module):
    """Scores the next token after each token."""

    def __init__(
        self, dim: int, depth: int, heads: int, vocabulary: int = 50257, longest: int = 1024
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, dim)
        self.positions = nn.Embedding(longest, dim)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 [batch, tokens] to float32 [batch, tokens, vocabulary]."""
        x = self.words(ids) + self.positions(torch.arange(ids.shape[1]))
        return F.linear(self.norm(self.blocks(x)), self.words.weight)


def _dynamic(longest: int) -> dict[str, object]:
    return {"ids": {0: Dim("batch", min=1, max=16), 1: Dim("length", min=2, max=longest)}}


SPECS = (
    ModelSpec(
        "gpt2_4_layers",
        "attention",
        lambda: GPT2(768, 4, 12),
        lambda batch, seed: (tokens(batch, 64, 50257, seed),),
        tolerance=1e-3,
        small=ModelSpec(
            "gpt2_4_layers",
            "attention",
            lambda: GPT2(32, 2, 2, vocabulary=100, longest=64),
            lambda batch, seed: (tokens(batch, 16, 100, seed),),
            tolerance=1e-3,
            dynamic_shapes=_dynamic(64),
        ),
        dynamic_shapes=_dynamic(1024),
    ),
)
