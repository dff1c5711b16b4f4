"""The layout of products' weights; see the schema."""

from __future__ import annotations

import torch

from ggml_delegate import ir

PANEL_WIDTH = int(ir.Limit.PanelWidth)  # rows


def to_panels(weight: torch.Tensor) -> torch.Tensor:
    """[n, k] -> [ceil(n / 16), k, 16], zeros for the rows past n; keeps the dtype."""
    n, k = weight.shape
    padded = torch.nn.functional.pad(weight.detach(), (0, 0, 0, -n % PANEL_WIDTH))
    return padded.reshape(-1, PANEL_WIDTH, k).transpose(1, 2).contiguous()


# Floats of 28 bits, as the schema's Integers describes them: their bits less those of 2^-25.
_LEAST = 102 << 23
_CODES = 1 << 28


def to_float28(scales: torch.Tensor) -> torch.Tensor | None:
    """[n, k] of float32 -> int8 [ceil(n / 16), k, 56]; None unless all are in [2^-25, 2^7)."""
    codes = scales.detach().contiguous().view(torch.int32).to(torch.int64) - _LEAST
    if codes.numel() == 0 or codes.min() < 0 or codes.max() >= _CODES:
        return None
    codes = to_panels(codes)
    low = torch.stack([codes & 0xFF, (codes >> 8) & 0xFF], -1).flatten(-2)
    high = codes >> 24
    words = [high[..., row::4] | (high[..., row + 2 :: 4] << 4) for row in (0, 1)]
    return torch.cat([low, (codes >> 16) & 0xFF, *words], -1).to(torch.uint8).view(torch.int8)


# A super-block, as the schema's Integers describes it.
_GROUPS = 8
# All float16 are multiples of this; products with an integer of 8 bits are at most _LARGEST of it.
_FINEST = 2.0**-24
_LARGEST = 2**47
_BYTE = torch.iinfo(torch.int8)


def to_super_blocks(numbers: torch.Tensor) -> torch.Tensor | None:
    """[n, groups] of float32 -> int8 [ceil(n / 16), groups / 8, 160].

    GGUF's K-quants have such numbers: integers of 6 or 8 bits times a float16, which are found
    again from their products. None unless all are such products, and come in eights.
    """
    n, count = numbers.shape
    if count == 0 or count % _GROUPS != 0:
        return None
    steps = numbers.detach().to(torch.float64).reshape(n, -1, _GROUPS) / _FINEST
    if not bool((steps.abs() < _LARGEST).all()) or not torch.equal(steps.trunc(), steps):
        return None
    found = _factors(steps.to(torch.int64).flatten(0, 1))
    if found is None:
        return None
    integers, factors = found[0].reshape(n, -1, _GROUPS), found[1].reshape(n, -1)
    padding = (0, 0) * 2 + (0, -n % PANEL_WIDTH)
    padded = torch.nn.functional.pad(integers, padding)
    panels = padded.reshape(-1, PANEL_WIDTH, *integers.shape[1:])
    of_groups = panels.permute(0, 2, 3, 1).flatten(-2)
    of_blocks = to_panels(factors).view(torch.int8)
    return torch.cat([of_groups, of_blocks], -1).contiguous()


def _factors(steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """[blocks, 8] of int64 as int8 [blocks, 8] times float16 [blocks]; None if they are no such.

    steps: the numbers over 2^-24, of which all float16 are multiples.
    """
    divisors = steps[:, 0].abs()
    for index in range(1, _GROUPS):
        divisors = torch.gcd(divisors, steps[:, index])
    divisors = divisors.clamp(min=1)
    factors = torch.zeros_like(divisors, dtype=torch.float16)
    integers = torch.zeros_like(steps, dtype=torch.int8)
    left = torch.arange(len(steps))
    # The greatest divisor is the float16 times what its integers have in common.
    for common in range(1, _BYTE.max + 2):
        half = (divisors[left] / common * _FINEST).to(torch.float16)
        whole = (half.to(torch.float64) / _FINEST).nan_to_num(0, 0).to(torch.int64)
        quotients = steps[left] // whole.clamp(min=1)[:, None]
        fits = (whole * common == divisors[left]) & (
            (quotients >= _BYTE.min) & (quotients <= _BYTE.max)
        ).all(1)
        factors[left[fits]] = half[fits]
        integers[left[fits]] = quotients[fits].to(torch.int8)
        left = left[~fits]
        if len(left) == 0:
            return integers, factors
    return None
