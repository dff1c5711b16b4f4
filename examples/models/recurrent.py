"""LSTM (Hochreiter and Schmidhuber 1997) and GRU (Cho et al. 2014) over a sequence."""

from __future__ import annotations

from torch import Tensor, nn

from .seeding import signals
from .spec import ModelSpec


class Recurrent(nn.Module):
    """Classifies a sequence by the last output of a two-layer recurrent network."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU], features: int, hidden: int) -> None:
        super().__init__()
        self.layers = kind(features, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [batch, steps, features] to float32 [batch, 10]."""
        outputs, _ = self.layers(x)
        return self.head(outputs[:, -1])


def _spec(name: str, kind: type[nn.LSTM | nn.GRU]) -> ModelSpec:
    def variant(features: int, hidden: int, steps: int, small: ModelSpec | None) -> ModelSpec:
        def inputs(batch: int, seed: int) -> tuple[Tensor, ...]:
            return (signals(batch, features, steps, seed).transpose(1, 2).contiguous(),)

        def architecture() -> nn.Module:
            return Recurrent(kind, features, hidden)

        return ModelSpec(name, "recurrent", architecture, inputs, tolerance=1e-3, small=small)

    return variant(40, 128, 32, variant(6, 16, 5, None))


SPECS = (_spec("lstm", nn.LSTM), _spec("gru", nn.GRU))
