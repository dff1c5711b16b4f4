"""MobileNetV2 from a PyTorch module to a .pte that runs natively, for every choice of backends."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch

import orchestrator
from examples.models import MODELS
from orchestrator.native import NativeProgram
from tests.harness.compare import relative_error
from tests.harness.models import (
    BOTH,
    assert_runs_like_eager,
    backends_in,
    built,
    lowered,
    run_native,
)

FULL = MODELS["mobilenet_v2"]
SMALL = FULL.for_tests()


def test_full_size_runs_like_eager_on_both_backends() -> None:
    assert FULL.tolerance == 1e-4
    assert_runs_like_eager(FULL)
    assert backends_in(lowered(FULL)) == set(BOTH)


def test_full_size_gives_the_same_in_the_native_runner(tmp_path: Path) -> None:
    (x,) = FULL.inputs(1, 0)
    (output,) = run_native(lowered(FULL), tmp_path, x)
    assert torch.equal(output, lowered(FULL)(x))


@pytest.mark.parametrize("backends", [(), *permutations(BOTH, 1), *permutations(BOTH, 2)])
def test_every_choice_of_backends_runs_like_eager(backends: tuple[str, ...]) -> None:
    assert_runs_like_eager(SMALL, backends)


@pytest.mark.parametrize("backends", [(), *permutations(BOTH, 1)])
def test_only_the_backends_that_were_asked_for_are_used(backends: tuple[str, ...]) -> None:
    assert backends_in(lowered(SMALL, backends)) == set(backends)


def test_batch_of_three_runs_like_eager() -> None:
    assert_runs_like_eager(SMALL, batch=3)


def test_no_batch_norm_is_left() -> None:
    for method in lowered(SMALL, ()).report.methods:
        assert not any("batch_norm" in op for op in method.kernels), method.kernels


def test_file_holds_little_more_than_the_weights() -> None:
    weights = sum(parameter.nbytes for parameter in built(FULL).parameters())
    assert len(lowered(FULL).buffer) <= 1.02 * weights + 1e6


def test_saved_program_runs_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    lowered(SMALL).save(path)
    (x,) = SMALL.inputs(1, 0)
    (output,) = NativeProgram(path)(x)
    assert torch.equal(output, lowered(SMALL)(x))
    assert orchestrator.read_report(path) == lowered(SMALL).report


def test_dynamic_batch_runs_like_eager() -> None:
    batch = torch.export.Dim("batch", min=1, max=4)
    model = built(SMALL)
    program = orchestrator.lower(model, SMALL.inputs(2, 0), dynamic_shapes={"x": {0: batch}})
    for size in (1, 3):
        (x,) = SMALL.inputs(size, 1)
        assert relative_error(program(x), model(x)) <= SMALL.tolerance
