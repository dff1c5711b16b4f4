"""Models with BatchNorm in all kinds of places."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Chain(nn.Sequential):
    """Layers one after another."""


def norm(channels: int, dims: int, affine: bool = True) -> nn.Module:
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims]
    return kind(channels, affine=affine)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project, add."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden)]
            layers += [nn.ReLU6()]
        layers += [nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)]
        layers += [nn.BatchNorm2d(hidden), nn.ReLU6()]
        layers += [nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SharedWeight(nn.Module):
    """Two convolutions with one weight, each with its own BatchNorm."""

    def __init__(self, one_module: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.second = self.first if one_module else nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.second.weight = self.first.weight
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])

    def forward(self, x: Tensor) -> Tensor:
        return self.norms[1](self.second(F.relu(self.norms[0](self.first(x)))))


class SeveralUsers(nn.Module):
    """A convolution whose output is used beside the BatchNorm."""

    def __init__(self, as_output: bool) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.as_output = as_output

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.conv(x)
        return (y, self.norm(y)) if self.as_output else y + self.norm(y)


class ComputedWeight(nn.Module):
    """A convolution whose weight is computed in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.norm = nn.Parameter(torch.ones(4, 3, 3, 3)), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.conv2d(x, self.weight.tanh()))


class Unbatched(nn.Module):
    """Channels are axis 0 of an unbatched convolution's output, and axis 1 to the BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(4, 5, 3, padding=1), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class LinearOverTokens(nn.Module):
    """Axis 1 of a rank-3 linear output is the token axis, here with as many tokens as features."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


# layer (given whether it has a bias), channels, dims of the BatchNorm, input shape
FOLDABLE = {
    "conv1d": (lambda bias: nn.Conv1d(4, 6, 3, bias=bias), 6, 1, (2, 4, 9)),
    "conv1d_grouped": (lambda bias: nn.Conv1d(4, 6, 3, groups=2, bias=bias), 6, 1, (2, 4, 9)),
    "conv1d_same": (lambda bias: nn.Conv1d(4, 6, 4, padding="same", bias=bias), 6, 1, (2, 4, 9)),
    "conv2d": (lambda bias: nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=bias), 8, 2, (2, 3, 9, 7)),
    "conv2d_1x1": (lambda bias: nn.Conv2d(3, 8, 1, bias=bias), 8, 2, (1, 3, 5, 5)),
    "conv2d_same": (lambda bias: nn.Conv2d(3, 8, 3, padding="same", bias=bias), 8, 2, (1, 3, 5, 5)),
    "conv2d_dilated": (lambda bias: nn.Conv2d(3, 4, 3, dilation=2, bias=bias), 4, 2, (1, 3, 8, 8)),
    "conv2d_grouped": (lambda bias: nn.Conv2d(4, 6, 3, groups=2, bias=bias), 6, 2, (2, 4, 6, 6)),
    "depthwise": (lambda bias: nn.Conv2d(4, 4, 3, groups=4, bias=bias), 4, 2, (2, 4, 6, 6)),
    "depthwise_x3": (lambda bias: nn.Conv2d(4, 12, 3, groups=4, bias=bias), 12, 2, (2, 4, 6, 6)),
    "conv3d": (lambda bias: nn.Conv3d(2, 4, 3, bias=bias), 4, 3, (1, 2, 5, 5, 5)),
    "conv_transpose1d": (lambda bias: nn.ConvTranspose1d(4, 6, 3, bias=bias), 6, 1, (2, 4, 7)),
    "conv_transpose1d_grouped": (
        lambda bias: nn.ConvTranspose1d(4, 6, 3, groups=2, bias=bias),
        *(6, 1, (2, 4, 7)),
    ),
    "conv_transpose2d": (
        lambda bias: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, bias=bias),
        *(6, 2, (2, 4, 5, 5)),
    ),
    "conv_transpose2d_grouped": (
        lambda bias: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=bias),
        *(6, 2, (2, 4, 5, 5)),
    ),
    "conv_transpose2d_depthwise": (
        lambda bias: nn.ConvTranspose2d(4, 4, 3, groups=4, bias=bias),
        *(4, 2, (2, 4, 5, 5)),
    ),
    "linear": (lambda bias: nn.Linear(5, 7, bias=bias), 7, 1, (3, 5)),
    "linear_batch_of_one": (lambda bias: nn.Linear(5, 7, bias=bias), 7, 1, (1, 5)),
}

# model, input shape, number of BatchNorms, part of the reason
NOT_FOLDABLE = {
    "alone": (lambda: Chain(nn.BatchNorm2d(3)), (2, 3, 4, 5), 1, "convolution or linear"),
    "alone_rank_2": (lambda: Chain(nn.BatchNorm1d(3)), (4, 3), 1, "convolution or linear"),
    "alone_rank_3": (lambda: Chain(nn.BatchNorm1d(3)), (4, 3, 5), 1, "convolution or linear"),
    "alone_rank_5": (lambda: Chain(nn.BatchNorm3d(3)), (1, 3, 4, 4, 4), 1, "convolution or linear"),
    "alone_not_affine": (
        lambda: Chain(nn.BatchNorm2d(3, affine=False)),
        *((2, 3, 4, 5), 1, "convolution or linear"),
    ),
    "before_conv": (
        lambda: Chain(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)),
        *((2, 3, 6, 6), 1, "convolution or linear"),
    ),
    "after_relu": (
        lambda: Chain(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        *((2, 3, 6, 6), 1, "convolution or linear"),
    ),
    "conv_called_twice": (lambda: SharedWeight(True), (2, 4, 6, 6), 2, "shared with another"),
    "conv_weight_tied": (lambda: SharedWeight(False), (2, 4, 6, 6), 2, "shared with another"),
    "conv_used_twice": (lambda: SeveralUsers(False), (2, 3, 6, 6), 1, "has 2 users"),
    "conv_is_an_output": (lambda: SeveralUsers(True), (2, 3, 6, 6), 1, "has 2 users"),
    "computed_weight": (ComputedWeight, (2, 3, 6, 6), 1, "computed"),
    "unbatched_conv": (Unbatched, (4, 5), 1, ""),
    "linear_over_tokens": (LinearOverTokens, (2, 6, 4), 1, ""),
}
