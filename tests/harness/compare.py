"""Comparison of a lowered model with eager PyTorch that a constant answer cannot pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from examples.models.seeding import calibrate_batch_norm, seeded

__all__ = [
    "Comparison",
    "assert_close_to_eager",
    "calibrate_batch_norm",
    "compare",
    "relative_error",
    "seeded",
]

SENSITIVITY_FACTOR = 100
"""By how many tolerances the outputs for two inputs have to differ for a comparison to count."""


@dataclass(frozen=True)
class Comparison:
    """The worst figures over all outputs, as fractions of each output's scale (its largest value).

    Attributes:
        error: Largest absolute difference from eager.
        sensitivity: Largest absolute difference that another input makes in eager's output.
    """

    error: float
    sensitivity: float


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference as a fraction of the largest absolute value in `expected`.

    Raises:
        AssertionError: Shapes or dtypes differ, `expected` holds only zeros, or a value is not
            finite.
    """
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    actual, expected = actual.detach().double(), expected.detach().double()
    assert expected.isfinite().all(), "the expected output has values that are not finite"
    assert actual.isfinite().all(), "the output has values that are not finite"
    scale = expected.abs().max().item()
    assert scale > 0, "the expected output holds only zeros: nothing is compared"
    return (actual - expected).abs().max().item() / scale


def compare(
    run: Callable[..., object],
    model: nn.Module | Callable[..., object],
    inputs: Sequence[object],
    other_inputs: Sequence[object],
) -> Comparison:
    """Runs both on two sets of inputs and returns the worst figures over all outputs.

    Args:
        run: The lowered model.
        model: The eager model, already in eval mode.
        inputs: Positional arguments.
        other_inputs: Other values of the same shapes.
    """
    expected, other = _outputs(model, inputs), _outputs(model, other_inputs)
    pairs = [
        *_pairs(_outputs(run, inputs), expected),
        *_pairs(_outputs(run, other_inputs), other),
    ]
    return Comparison(
        error=max(relative_error(actual, wanted) for actual, wanted in pairs),
        sensitivity=min(relative_error(a, b) for a, b in _pairs(other, expected)),
    )


def assert_close_to_eager(
    run: Callable[..., object],
    model: nn.Module | Callable[..., object],
    inputs: Sequence[object],
    *,
    other_inputs: Sequence[object],
    tolerance: float,
) -> Comparison:
    """Asserts that `run` gives what `model` gives, and that the comparison means something.

    Both are called with `inputs` and with `other_inputs`; outputs may be tensors or any nesting of
    them. Every output has to be within `tolerance` of eager's, and has to change by at least
    100 times that from one input to the other.

    Args:
        run: The lowered model.
        model: The eager model, already in eval mode.
        inputs: Positional arguments.
        other_inputs: Other values of the same shapes.
        tolerance: Largest absolute error allowed, as a fraction of the output's largest value.
    """
    result = compare(run, model, inputs, other_inputs)
    assert result.sensitivity >= SENSITIVITY_FACTOR * tolerance, (
        f"another input changes the output by {result.sensitivity:.1e} of its scale, expected at "
        f"least {SENSITIVITY_FACTOR * tolerance:.1e}: give the model weights that keep its signal"
    )
    assert result.error <= tolerance, (
        f"the output is off by {result.error:.1e} of its scale, expected at most {tolerance:.1e}"
    )
    return result


def _outputs(model: Callable[..., object], inputs: Sequence[object]) -> list[Tensor]:
    with torch.no_grad():
        leaves = tree_leaves(model(*inputs))
    assert leaves, "the model has no outputs"
    # Runtimes may hand out views of memory that the next run overwrites.
    return [torch.as_tensor(leaf).clone() for leaf in leaves]


def _pairs(actual: list[Tensor], expected: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    assert len(actual) == len(expected), f"{len(actual)} outputs, expected {len(expected)}"
    return list(zip(actual, expected, strict=True))
