"""A decoder with rotary positions, grouped heads and gated layers, over caches that stay in place.

The Llama family (Touvron et al. 2023), with what Qwen2 (biases) and Qwen3 (norms of queries and
keys) add to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.frontend.group_quantization import dequantize_groups
from orchestrator.frontend.half_weights import HALF_DTYPES, dequantize_half
from orchestrator.llm.blocks import GroupedWeight, Weight

Weights = Callable[[str], Weight]


@dataclass(frozen=True)
class Config:
    """Sizes of a decoder, and which parts it has.

    heads, groups: query heads, and heads of keys and values. width: of a head. hidden: of the gated
    layers. eps: of the norms. base: of the rotary frequencies. context: rows of the caches.
    """

    dim: int
    depth: int
    heads: int
    groups: int
    width: int
    hidden: int
    vocabulary: int
    eps: float
    base: float
    context: int
    biases: bool = False
    query_key_norms: bool = False
    tied: bool = False
    frequency_factors: bool = False


class Matrix(nn.Module):
    """A matrix [n, k], whole or of groups of integers: multiplies by it, or takes its rows.

    prepare: what is done to activations before they are multiplied, if anything.
    """

    prepare: Callable[[Tensor], Tensor] | None = None
    weight: Tensor
    integers: Tensor
    scales: Tensor
    mins: Tensor | None
    bias: Tensor | None

    def __init__(self, weight: Weight, bias: Tensor | None = None) -> None:
        super().__init__()
        self.grouped = isinstance(weight, GroupedWeight)
        self.register_buffer("bias", bias)
        if isinstance(weight, GroupedWeight):
            self.bits, self.group = weight.bits, weight.group
            self.register_buffer("integers", weight.integers)
            self.register_buffer("scales", weight.scales)
            self.register_buffer("mins", weight.mins)
        else:
            self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        """[..., k] to [..., n]."""
        if self.prepare is not None:
            x = self.prepare(x)
        return functional.linear(x, self.floats(x.dtype), self.bias)

    def rows(self, index: Tensor) -> Tensor:
        """int64 [...] to float32 [..., k]; a program reads no more than these rows."""
        return functional.embedding(index, self.floats(torch.float32))

    def floats(self, dtype: torch.dtype) -> Tensor:
        """The matrix in a type; a backend computes with what is stored instead."""
        weight: Tensor
        if self.grouped:
            weight = dequantize_groups(
                self.integers, self.scales, self.mins, self.bits, self.group, dtype
            )
        elif self.weight.dtype in HALF_DTYPES:
            weight = dequantize_half(self.weight).to(dtype)
        else:
            weight = self.weight.to(dtype)
        return weight


class RMSNorm(nn.Module):
    """Divides by the root of the mean square over the last axis (Zhang and Sennrich 2019)."""

    weight: Tensor

    def __init__(self, weight: Weight, eps: float) -> None:
        super().__init__()
        self.register_buffer("weight", _plain(weight))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] to the same."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates pairs (i, i + width / 2) of [batch, heads, tokens, width] (Su et al. 2021)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Causal attention, to the tokens in its caches and to those given."""

    keys: Tensor
    values: Tensor

    def __init__(self, config: Config, weights: Weights, prefix: str) -> None:
        super().__init__()
        self.width = config.width

        def matrix(name: str) -> Matrix:
            bias = _plain(weights(f"{prefix}.{name}.bias")) if config.biases else None
            return Matrix(weights(f"{prefix}.{name}.weight"), bias)

        self.query, self.key, self.value = map(matrix, ("attn_q", "attn_k", "attn_v"))
        self.out = Matrix(weights(f"{prefix}.attn_output.weight"))
        self.query_norm, self.key_norm = (
            RMSNorm(weights(f"{prefix}.{name}.weight"), config.eps)
            if config.query_key_norms
            else nn.Identity()
            for name in ("attn_q_norm", "attn_k_norm")
        )
        sizes = (1, config.groups, config.context, config.width)
        self.register_buffer("keys", torch.zeros(sizes))
        self.register_buffer("values", torch.zeros(sizes))

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, seen: Tensor
    ) -> Tensor:
        """[1, tokens, dim] to the same; `seen` is bool [tokens, context]."""
        q = rotate(self.query_norm(self._heads(self.query(x))), cos, sin)
        k = rotate(self.key_norm(self._heads(self.key(x))), cos, sin)
        self.keys.index_copy_(2, positions, k)
        self.values.index_copy_(2, positions, self._heads(self.value(x)))
        y = functional.scaled_dot_product_attention(
            q, self.keys, self.values, attn_mask=seen, enable_gqa=True
        )
        return _called(self.out, y.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """[1, tokens, heads * width] to [1, heads, tokens, width]."""
        return _split(x, self.width).transpose(1, 2)


class Block(nn.Module):
    """Attention and the gated layers, each after a norm and with a shortcut."""

    def __init__(self, config: Config, weights: Weights, prefix: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = (
            RMSNorm(weights(f"{prefix}.{name}.weight"), config.eps)
            for name in ("attn_norm", "ffn_norm")
        )
        self.attention = Attention(config, weights, prefix)
        self.gate, self.up, self.down = (
            Matrix(weights(f"{prefix}.{name}.weight"))
            for name in ("ffn_gate", "ffn_up", "ffn_down")
        )

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, seen: Tensor
    ) -> Tensor:
        """[1, tokens, dim] to the same."""
        x = x + self.attention(self.norm1(x), cos, sin, positions, seen)
        y = self.norm2(x)
        return x + _called(self.down, functional.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    """Scores the next token after the last one given, and remembers keys and values of all."""

    frequencies: Tensor

    def __init__(self, config: Config, weights: Weights) -> None:
        """Take the weights of a decoder.

        weights: by name, as GGUF names them; queries and keys as `rotate` pairs them.
        """
        super().__init__()
        self.context = config.context
        self.words = Matrix(weights("token_embd.weight"))
        self.blocks = nn.ModuleList(
            Block(config, weights, f"blk.{index}") for index in range(config.depth)
        )
        self.norm = RMSNorm(weights("output_norm.weight"), config.eps)
        self.head = self.words if config.tied else Matrix(weights("output.weight"))
        self.register_buffer("frequencies", _frequencies(config, weights))

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """int64 [1, tokens] and int64 [tokens] to float32 [1, vocabulary]."""
        angles = positions[:, None] * self.frequencies[None, :]
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        seen = torch.arange(self.context)[None, :] <= positions[:, None]
        x = self.words.rows(tokens)
        for block in self.blocks:
            x = block(x, cos, sin, positions, seen)
        return _called(self.head, self.norm(x[:, -1]))


def _called(layer: nn.Module, x: Tensor) -> Tensor:
    """Call a module, with the type that it returns."""
    y: Tensor = layer(x)
    return y


def _split(x: Tensor, size: int) -> Tensor:
    """[..., n] to [..., n / size, size]."""
    y: Tensor = x.unflatten(-1, (-1, size))  # type: ignore[no-untyped-call]
    return y


def _frequencies(config: Config, weights: Weights) -> Tensor:
    """Return what a position turns each pair of a head by."""
    exponents = torch.arange(0, config.width, 2, dtype=torch.float32) / config.width
    frequencies: Tensor = config.base**-exponents
    if config.frequency_factors:
        frequencies = frequencies / _plain(weights("rope_freqs.weight"))
    return frequencies


def _plain(weight: Weight) -> Tensor:
    """Return a small tensor in float32."""
    return weight.floats() if isinstance(weight, GroupedWeight) else weight.to(torch.float32)
