"""Whisper (Radford et al. 2023): speech encoder and text decoder; sizes of the "tiny" model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .seeding import signals, tokens
from .spec import ModelSpec
from .transformer import Attention, Mlp


@dataclass(frozen=True)
class Config:
    """Sizes of both halves; `frames` is the length of the spectrogram."""

    dim: int = 384
    depth: int = 4
    heads: int = 6
    mels: int = 80
    frames: int = 3000
    vocabulary: int = 51865
    longest: int = 448


class Block(nn.Module):
    """Self-attention, attention to the encoder if `cross`, two linear layers; norms first."""

    def __init__(self, dim: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, causal=cross, key_bias=False)
        self.norm_cross = nn.LayerNorm(dim) if cross else None
        self.cross = Attention(dim, heads, key_bias=False) if cross else None
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """[batch, tokens, dim] to the same; `memory` is the encoder's output."""
        x = x + self.attention(self.norm1(x))
        if self.cross is not None and self.norm_cross is not None:
            x = x + self.cross(self.norm_cross(x), memory)
        return x + self.mlp(self.norm2(x))


def sinusoids(length: int, dim: int) -> Tensor:
    """Position table of Vaswani et al. 2017, sines before cosines, float32 [length, dim]."""
    step = math.log(10000.0) / (dim // 2 - 1)
    frequencies = torch.exp(-step * torch.arange(dim // 2, dtype=torch.float32))
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies[None, :]
    return torch.cat((angles.sin(), angles.cos()), dim=1)


class Encoder(nn.Module):
    """Encodes a log-mel spectrogram."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.dim
        self.conv1 = nn.Conv1d(config.mels, dim, 3, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids(config.frames // 2, dim))
        blocks = (Block(dim, config.heads, cross=False) for _ in range(config.depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim)

    def forward(self, mel: Tensor) -> Tensor:
        """float32 [batch, mels, frames] to float32 [batch, frames / 2, dim]."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel))))
        return self.norm(self.blocks(x.transpose(1, 2) + self.positions))


class Decoder(nn.Module):
    """Scores the next token after each token, given the encoder's output."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocabulary, config.dim)
        self.positions = nn.Parameter(torch.zeros(config.longest, config.dim))
        blocks = (Block(config.dim, config.heads, cross=True) for _ in range(config.depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, ids: Tensor, memory: Tensor) -> Tensor:
        """Scores.

        Args:
            ids: int64 [batch, tokens].
            memory: float32 [batch, sources, dim].

        Returns:
            float32 [batch, tokens, vocabulary].
        """
        x = self.words(ids) + self.positions[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, memory)
        return F.linear(self.norm(x), self.words.weight)


def _encoder(config: Config, small: ModelSpec | None) -> ModelSpec:
    return ModelSpec(
        "whisper_tiny_encoder",
        "audio",
        lambda: Encoder(config),
        lambda batch, seed: (signals(batch, config.mels, config.frames, seed),),
        tolerance=1e-3,
        small=small,
    )


def _decoder(config: Config, length: int, small: ModelSpec | None) -> ModelSpec:
    def inputs(batch: int, seed: int) -> tuple[Tensor, ...]:
        memory = signals(batch, config.dim, config.frames // 2, seed).transpose(1, 2)
        return tokens(batch, length, config.vocabulary, seed), memory.contiguous()

    return ModelSpec(
        "whisper_tiny_decoder",
        "attention",
        lambda: Decoder(config),
        inputs,
        tolerance=1e-3,
        small=small,
    )


_SMALL = Config(32, 1, 2, mels=8, frames=40, vocabulary=100, longest=32)

SPECS = (
    _encoder(Config(), _encoder(_SMALL, None)),
    _decoder(Config(), 32, _decoder(_SMALL, 6, None)),
)
