"""Layers that several convolutional models share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Activation = Callable[[], nn.Module]


class ConvNorm(nn.Sequential):
    """Convolution, BatchNorm and an activation, padded so that stride 1 keeps the size."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = nn.ReLU,
        eps: float = 1e-5,
    ) -> None:
        conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )
        super().__init__(conv, nn.BatchNorm2d(out_channels, eps))
        if activation is not None:
            self.append(activation())


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their means (Hu et al. 2018)."""

    def __init__(
        self, channels: int, hidden: int, activation: Activation, gate: Activation
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(hidden, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        means = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(self.activation(self.reduce(means))))


class PooledClassifier(nn.Module):
    """Features, their means over all positions, then a head.

    Args:
        features: Maps pictures to [batch, channels, height, width].
        head: Maps [batch, channels] to [batch, classes].
    """

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, height, width] to [batch, classes]."""
        return self.head(self.features(x).mean((2, 3)))


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor` that is at least 0.9 of `channels`.

    The rule by which the MobileNet papers keep scaled channel counts even.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor
