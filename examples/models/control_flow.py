"""A model that chooses between two branches by its input (torch.cond)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .seeding import signals
from .spec import ModelSpec


class Gated(nn.Module):
    """Runs a wide or a narrow branch, depending on the sign of the input's mean."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(
            nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, features)
        )
        self.narrow = nn.Linear(features, features)
        self.head = nn.Linear(features, 10)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [batch, features] to float32 [batch, 10]."""

        def wide(y: Tensor) -> Tensor:
            return self.wide(y)

        def narrow(y: Tensor) -> Tensor:
            return torch.tanh(self.narrow(y))

        return self.head(torch.cond(x.mean() > 0, wide, narrow, (x,)))


def _spec(features: int, hidden: int, small: ModelSpec | None) -> ModelSpec:
    def inputs(batch: int, seed: int) -> tuple[Tensor, ...]:
        x = signals(batch, 1, features, seed).squeeze(1)
        # Even seeds take one branch, odd ones the other.
        return (x - x.mean() + (0.5 if seed % 2 == 0 else -0.5),)

    return ModelSpec(
        "control_flow", "recurrent", lambda: Gated(features, hidden), inputs, 1e-3, small
    )


SPECS = (_spec(256, 1024, _spec(16, 32, None)),)
