"""The example models export, are the same in every run, and answer to their input."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from examples.models import MODELS, ModelSpec
from orchestrator.cli.errors import CommandError
from orchestrator.cli.models import load_model
from orchestrator.frontend.passes import apply_passes
from tests.harness.compare import assert_close_to_eager


@pytest.fixture(scope="module", params=MODELS)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return MODELS[request.param].for_tests()


def test_model_survives_export_and_passes(spec: ModelSpec) -> None:
    model, inputs = spec.build(), spec.inputs(1, 0)
    program = apply_passes(torch.export.export(model, inputs))
    assert_close_to_eager(
        program.module(),
        model,
        inputs,
        other_inputs=spec.inputs(1, 1),
        tolerance=min(spec.tolerance, 1e-4),
    )
    assert not any("batch_norm" in str(node.target) for node in program.graph.nodes)


def test_model_is_the_same_in_every_run(spec: ModelSpec) -> None:
    with torch.no_grad():
        runs = [tree_leaves(spec.build()(*spec.inputs(1, 0))) for _ in range(2)]
    for first, second in zip(*runs, strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("name", [name for name, spec in MODELS.items() if spec.dynamic_shapes])
def test_dynamic_model_exports(name: str) -> None:
    spec = MODELS[name].for_tests()
    model = spec.build()
    program = torch.export.export(model, spec.inputs(2, 0), dynamic_shapes=spec.dynamic_shapes)
    assert_close_to_eager(
        program.module(),
        model,
        spec.inputs(3, 0),
        other_inputs=spec.inputs(3, 1),
        tolerance=spec.tolerance,
    )


def test_command_line_takes_models_by_name() -> None:
    model, inputs = load_model("examples.zoo:squeezenet")
    assert isinstance(model, nn.Module)
    torch.testing.assert_close(inputs, MODELS["squeezenet"].inputs(1, 0))
    with pytest.raises(CommandError, match=r"no example model is called 'squeeze'; known: .*bert"):
        load_model("examples.zoo:squeeze")
