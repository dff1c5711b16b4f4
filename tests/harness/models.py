"""Whole models, lowered once per test run and compared with eager PyTorch."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _ggml_delegate import RUNNER
from torch import Tensor, nn

import orchestrator
from examples.models import ModelSpec
from orchestrator.native import NativeProgram
from tests.harness.compare import Comparison, assert_close_to_eager

BACKEND_IDS = {"ggml": "GgmlBackend", "xnnpack": "XnnpackBackend"}
BOTH = ("ggml", "xnnpack")


@cache
def built(spec: ModelSpec) -> nn.Module:
    """The model of a spec; do not change it."""
    return spec.build()


@cache
def lowered(
    spec: ModelSpec, backends: tuple[str, ...] = BOTH, batch: int = 1
) -> orchestrator.LoweredProgram:
    """The model of a spec, lowered for `backends` with static shapes.

    The first backend gets all that it takes, so that tests see it at work whatever it costs.
    """
    inputs = spec.inputs(batch, 0)
    return orchestrator.lower(built(spec), inputs, backends=backends, strategy="greedy")


def assert_runs_like_eager(
    spec: ModelSpec, backends: tuple[str, ...] = BOTH, batch: int = 1
) -> Comparison:
    """Lowers a model and compares two runs with eager, within the spec's tolerance."""
    return assert_close_to_eager(
        lowered(spec, backends, batch),
        built(spec),
        spec.inputs(batch, 0),
        other_inputs=spec.inputs(batch, 1),
        tolerance=spec.tolerance,
    )


def backends_in(program: orchestrator.LoweredProgram) -> set[str]:
    """Names of the backends that the bytes of a program call, as the native runtime reads them."""
    ids = set(NativeProgram(program.buffer).backends())
    return {name for name, backend_id in BACKEND_IDS.items() if backend_id in ids}


def run_native(program: orchestrator.LoweredProgram, folder: Path, *inputs: Tensor) -> list[Tensor]:
    """Runs a program in `orchestrator-run`, through .npy files in `folder`."""
    model, outputs = folder / "model.pte", folder / "outputs"
    program.save(model)
    outputs.mkdir()
    arguments: list[Any] = [RUNNER, model, "--output-dir", outputs]
    for index, value in enumerate(inputs):
        file = folder / f"input_{index}.npy"
        np.save(file, value.numpy())
        arguments += ["--input", file]
    subprocess.run([str(part) for part in arguments], check=True, stdout=subprocess.DEVNULL)
    files = sorted(outputs.iterdir(), key=lambda file: int(file.stem.rpartition("_")[2]))
    return [torch.from_numpy(np.load(file)) for file in files]
