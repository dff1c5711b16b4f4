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
