"""Llama (Touvron et al. 2023): RMSNorm, rotary positions, grouped heads, SwiGLU.

With `query_key_norm` the attention is that of Qwen3, which normalises each head's queries and keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F  # noqa: N812

from .seeding import tokens
from .spec import ModelSpec


@dataclass(frozen=True)
class Config:
    """Sizes of a decoder; `groups` is the number of key and value heads."""

    dim: int = 512
    depth: int = 4
    heads: int = 8
    groups: int = 2
    hidden: int = 1408
    vocabulary: int = 8000
    query_key_norm: bool = False


class RMSNorm(nn.Module):
    """Divides by the root of the mean square over the last axis (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] to the same."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates pairs (i, i + width / 2) of [batch, heads, tokens, width] (Su et al. 2021)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Causal attention whose key and value heads each serve several query heads."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.width = config.dim // config.heads
        self.repeats = config.heads // config.groups
        self.query = nn.Linear(config.dim, config.heads * self.width, bias=False)
        self.key = nn.Linear(config.dim, config.groups * self.width, bias=False)
        self.value = nn.Linear(config.dim, config.groups * self.width, bias=False)
        self.out = nn.Linear(config.heads * self.width, config.dim, bias=False)
        norm = RMSNorm if config.query_key_norm else nn.Identity
        self.query_norm, self.key_norm = norm(self.width), norm(self.width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[batch, tokens, dim] to the same; `cos` and `sin` are [tokens, width]."""
        q = rotate(self.query_norm(self._split(self.query(x))), cos, sin)
        k = rotate(self.key_norm(self._split(self.key(x))), cos, sin)
        k, v = self._repeat(k), self._repeat(self._split(self.value(x)))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.width)).transpose(1, 2)

    def _repeat(self, x: Tensor) -> Tensor:
        batch, groups, length, width = x.shape
        x = x[:, :, None].expand(batch, groups, self.repeats, length, width)
        return x.reshape(batch, groups * self.repeats, length, width)


class Block(nn.Module):
    """Attention and the gated linear layers, each after an RMSNorm and with a shortcut."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(config.dim), RMSNorm(config.dim)
        self.attention = Attention(config)
        self.gate = nn.Linear(config.dim, config.hidden, bias=False)
        self.up = nn.Linear(config.dim, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[batch, tokens, dim] to the same."""
        x = x + self.attention(self.norm1(x), cos, sin)
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """Scores the next token after each token."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.dim // config.heads
        self.words = nn.Embedding(config.vocabulary, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.dim)
        self.head = nn.Linear(config.dim, config.vocabulary, bias=False)
        frequencies = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 [batch, tokens] to float32 [batch, tokens, vocabulary]."""
        positions = torch.arange(ids.shape[1], dtype=torch.float32)
        angles = positions[:, None] * self.frequencies[None, :]
        angles = torch.cat((angles, angles), dim=-1)
        x = self.words(ids)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.head(self.norm(x))


def _spec(name: str, query_key_norm: bool) -> ModelSpec:
    def variant(config: Config, length: int, small: ModelSpec | None) -> ModelSpec:
        sizes = {0: Dim("batch", min=1, max=16), 1: Dim("length", min=2, max=4 * length)}
        return ModelSpec(
            name,
            "attention",
            lambda: Llama(config),
            lambda batch, seed: (tokens(batch, length, config.vocabulary, seed),),
            tolerance=1e-3,
            small=small,
            dynamic_shapes={"ids": sizes},
        )

    small = Config(32, 2, 4, 2, 64, 100, query_key_norm)
    return variant(Config(query_key_norm=query_key_norm), 64, variant(small, 12, None))


SPECS = (_spec("llama_4_layers", False), _spec("qwen3_4_layers", True))
