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
