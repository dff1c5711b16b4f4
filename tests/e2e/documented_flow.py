"""Lowers models as the README does without `lower`; run as a process of its own by its tests.

Nothing of torch or ExecuTorch is patched here, as it would be for other tests of the same process.
Prints one line of JSON per model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from examples.models import MODELS
from orchestrator import OrchestratorPartitioner
from orchestrator.native import NativeProgram
from orchestrator.options import PlanOptions
from tests.harness.compare import compare

BACKENDS = ["ggml", "xnnpack"]


class Gated(nn.Module):
    """Ops that XNNPACK takes as others, products that either takes, and an op for kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.silu(self.norm(self.conv(x)))
        y = y * nn.functional.hardsigmoid(y)
        return torch.cumsum(self.head(y.mean((2, 3))), 1)


class Buffered(nn.Module):
    """Adds what comes to what it has."""

    state: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.register_buffer("state", torch.zeros(2, 6))

    def forward(self, x: Tensor) -> Tensor:
        self.state.add_(self.linear(x).tanh())
        return self.state.exp()


@dataclass(frozen=True)
class Case:
    """A model, how to draw its inputs, what the plan is told, and delegates that it has to use."""

    model: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    options: PlanOptions = field(default_factory=PlanOptions)
    dynamic_shapes: Any = None
    uses: frozenset[str] = frozenset(BACKENDS)
    tolerance: float = 1e-5
    stateful: bool = False


def _image() -> tuple[Tensor, ...]:
    return (torch.randn(2, 3, 12, 12),)


def _example(name: str) -> Case:
    spec = MODELS[name].for_tests()
    seeds = iter(range(100))
    return Case(
        lambda: spec.build().eval(),
        lambda: spec.inputs(1, next(seeds)),
        uses=frozenset(),
        tolerance=spec.tolerance,
    )


_SPLIT = PlanOptions(pins={"silu": "xnnpack", "hardsigmoid": "xnnpack", "convolution": "ggml"})
CASES = {
    "both": Case(Gated, _image, _SPLIT),
    "dynamic": Case(Gated, _image, _SPLIT, ({0: Dim("batch", min=1, max=8)},)),
    "planned": Case(Gated, _image, uses=frozenset()),
    "state": Case(
        Buffered,
        lambda: (torch.randn(2, 6),),
        PlanOptions(pins={"tanh": "ggml", "exp": "ggml"}),
        uses=frozenset({"ggml"}),
        stateful=True,
    ),
    "vit_tiny": _example("vit_tiny"),
}


def lowered(exported: ExportedProgram, options: PlanOptions) -> tuple[NativeProgram, set[str]]:
    """A program, and the delegates that it uses, by ExecuTorch's own call as the README has it."""
    partitioner = OrchestratorPartitioner(BACKENDS, options)
    edge = to_edge_transform_and_lower(exported, partitioner=[partitioner])
    program = NativeProgram(bytes(edge.to_executorch().buffer))
    (result,) = partitioner.results
    return program, {part.backend for part in result.report.partitions}


def check(case: Case) -> dict[str, Any]:
    """Compare a model's program with eager PyTorch."""
    model, inputs = case.model().eval(), case.inputs()
    with torch.no_grad():
        exported = torch.export.export(model, inputs, dynamic_shapes=case.dynamic_shapes)
        program, used = lowered(exported, case.options)
        if case.stateful:  # eager's state is as it was before the export
            other = case.inputs()
            runs = [(program(*each)[0], model(*each)) for each in (inputs, other, inputs)]
            error = max(float((a - b).abs().max() / b.abs().max()) for a, b in runs)
            return {"used": sorted(used), "error": error, "sensitivity": 1.0}
    found = compare(program, model, inputs, case.inputs())
    return {"used": sorted(used), "error": found.error, "sensitivity": found.sensitivity}


def main(names: Sequence[str]) -> None:
    """Check models; says what went wrong with one and goes on."""
    recompile = GraphModule.recompile
    for name in names:
        torch.manual_seed(0)
        try:
            line = check(CASES[name])
        except Exception as error:  # that of one test
            line = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps({"name": name, "patched": GraphModule.recompile is not recompile, **line}))


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
