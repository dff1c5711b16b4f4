"""Seeded weights, normalisation statistics and inputs that keep a model's signal alive.

A freshly initialised network can answer with nearly the same numbers whatever its input: BatchNorm
statistics of 0 and 1 let activations die out, zero-initialised heads and layer scales remove whole
branches. Outputs of such a model agree with anything. These helpers give every parameter a value
that matters and every activation a spread of about one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Model = TypeVar("Model", bound=nn.Module)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_NORM_WEIGHTS = ("weight", "scale", "gamma")


@torch.no_grad()
def seeded(model: Model, seed: int = 0) -> Model:
    """Draws all parameters of `model` from one seed and puts it in eval mode.

    Weights of convolutions and linear layers are scaled by their fan-in, so that a layer's output
    has about its input's spread (He et al. 2015); biases, norm weights and norm statistics differ
    from the 0 and 1 that would hide a missing term.

    Returns:
        `model`, changed in place.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            mean, std = _distribution(module, name, parameter)
            parameter.normal_(mean, std, generator=generator)
        if isinstance(module, _BATCH_NORMS) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(0.0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def _distribution(module: nn.Module, name: str, parameter: Tensor) -> tuple[float, float]:
    """Mean and standard deviation to draw a parameter from."""
    if isinstance(module, _TRANSPOSED) and name == "weight":
        overlap = math.prod(k / s for k, s in zip(module.kernel_size, module.stride, strict=True))
        return 0.0, math.sqrt(2 / (overlap * parameter.shape[0] / module.groups))
    if isinstance(module, _CONVOLUTIONS) and name == "weight":
        return 0.0, math.sqrt(2 / parameter[0].numel())
    if isinstance(module, nn.Embedding):
        return 0.0, 1.0
    if parameter.dim() >= 2 and (isinstance(module, nn.Linear) or name.startswith("weight")):
        return 0.0, math.sqrt(1 / parameter.shape[-1])
    if parameter.dim() >= 2:
        return 0.0, 0.5  # position tables, class tokens
    if name.endswith(_NORM_WEIGHTS):
        return 1.0, 0.1
    return 0.0, 0.1


@torch.no_grad()
def calibrate_batch_norm(model: Model, batches: Iterable[tuple[Tensor, ...]]) -> Model:
    """Sets BatchNorm statistics to their averages over `batches` and puts `model` in eval mode.

    Args:
        model: Changed in place.
        batches: Argument tuples for `model`. Each needs more than one value per channel at every
            BatchNorm, so use a batch size of 2 or more.

    Returns:
        `model`.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BATCH_NORMS)]
    norms = [norm for norm in norms if norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # averages all batches equally
        norm.train()
    for batch in batches:
        model(*batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def images(batch: int, size: int, seed: int, channels: int = 3) -> Tensor:
    """Smooth random pictures, float32 [batch, channels, size, size], mean about 0, spread about 1.

    Noise at several scales, as in photographs. White noise would not do: pooling averages it away,
    and all such inputs give nearly the same output.
    """
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.zeros(batch, channels, size, size)
    resolution = 2
    while resolution < size:
        noise = torch.randn(batch, channels, resolution, resolution, generator=generator)
        octave = F.interpolate(noise, (size, size), mode="bilinear", align_corners=False)
        pictures += octave * (2 / resolution) ** 0.5
        resolution *= 2
    return pictures


def tokens(batch: int, length: int, vocabulary: int, seed: int) -> Tensor:
    """Random token ids, int64 [batch, length], in [0, vocabulary)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary, (batch, length), generator=generator)


def signals(batch: int, channels: int, length: int, seed: int) -> Tensor:
    """Smooth random waves with some noise, float32 [batch, channels, length], spread about 1."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(length, dtype=torch.float32) / length
    waves = torch.zeros(batch, channels, length)
    for cycles in (1, 3, 10, 30, 100):
        phase = torch.rand(batch, channels, 1, generator=generator)
        amplitude = torch.randn(batch, channels, 1, generator=generator)
        waves += amplitude * torch.sin(2 * math.pi * (cycles * time + phase))
    return waves + 0.1 * torch.randn(waves.shape, generator=generator)
