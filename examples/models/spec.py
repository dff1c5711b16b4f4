"""What a benchmark or a test needs to know about a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from .seeding import calibrate_batch_norm, images, seeded

Family = Literal["cnn", "attention", "recurrent", "audio"]
Inputs = Callable[[int, int], tuple[Tensor, ...]]

_CALIBRATION_BATCH = 4
_CALIBRATION_SEEDS = (100, 101)


@dataclass(frozen=True, eq=False)  # a spec is equal to itself only
class ModelSpec:
    """A model with weights and inputs that are the same in every run.

    Attributes:
        name: Key in `MODELS`.
        family: Kind of architecture.
        architecture: Makes the module with any weights.
        inputs: Gives positional arguments for a batch size and a seed; different seeds give
            different values of the same shapes.
        tolerance: Largest absolute error allowed against eager, as a fraction of an output's
            largest absolute value.
        small: The same architecture with fewer channels, layers or pixels, for quick tests.
        dynamic_shapes: `dynamic_shapes` for `torch.export.export` that leave batch size and
            sequence length dynamic, where the model allows it. Export with a batch of at least 2.
    """

    name: str
    family: Family
    architecture: Callable[[], nn.Module]
    inputs: Inputs
    tolerance: float
    small: ModelSpec | None = None
    dynamic_shapes: Mapping[str, Any] | None = None

    def build(self) -> nn.Module:
        """The module in eval mode, with seeded weights and BatchNorm statistics from batches."""
        model = seeded(self.architecture())
        if any(name.endswith("running_mean") for name, _ in model.named_buffers()):
            batches = (self.inputs(_CALIBRATION_BATCH, seed) for seed in _CALIBRATION_SEEDS)
            calibrate_batch_norm(model, batches)
        return model

    def for_tests(self) -> ModelSpec:
        """The small variant if there is one."""
        return self.small or self


def image_inputs(size: int, channels: int = 3) -> Inputs:
    """Inputs of one float32 picture batch, [batch, channels, size, size]."""
    return lambda batch, seed: (images(batch, size, seed, channels),)


def image_model(
    name: str,
    architecture: Callable[[], nn.Module],
    size: int,
    *,
    small: tuple[Callable[[], nn.Module], int],
    family: Family = "cnn",
    tolerance: float = 1e-4,
    dynamic_shapes: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """A model of one picture batch.

    Args:
        name: Key in `MODELS`.
        architecture: Makes the module.
        size: Height and width of the pictures.
        small: The same two for the small variant.
        family: Kind of architecture.
        tolerance: See `ModelSpec`.
        dynamic_shapes: See `ModelSpec`.
    """

    def spec(build: Callable[[], nn.Module], pixels: int, variant: ModelSpec | None) -> ModelSpec:
        inputs = image_inputs(pixels)
        return ModelSpec(name, family, build, inputs, tolerance, variant, dynamic_shapes)

    return spec(architecture, size, spec(*small, None))
