"""Example models whose batch size and sequence length are dynamic, in their small variants."""

from __future__ import annotations

import pytest
from torch.utils._pytree import tree_leaves

import orchestrator
from examples.models import MODELS, ModelSpec
from tests.harness.compare import relative_error
from tests.harness.models import built

# bert_base and vit_b_16 have the same small variants as bert_mini and vit_tiny.
NAMES = [
    name
    for name, spec in MODELS.items()
    if spec.dynamic_shapes and name not in ("bert_base", "vit_b_16", "mobilenet_v2")
]


@pytest.mark.parametrize("name", NAMES)
def test_model_of_dynamic_sizes_runs_like_eager(name: str) -> None:
    spec = MODELS[name].for_tests()
    model = built(spec)
    program = orchestrator.lower(model, spec.inputs(2, 0), dynamic_shapes=spec.dynamic_shapes)
    for batch in (1, 4):
        inputs = spec.inputs(batch, 1)
        for length in _lengths(spec):
            shorter = tuple(x[:, :length] if length else x for x in inputs)
            pairs = zip(tree_leaves(program(*shorter)), tree_leaves(model(*shorter)), strict=True)
            for actual, expected in pairs:
                assert relative_error(actual, expected) <= spec.tolerance
    (method,) = program.report.methods
    assert sum(method.kernels.values()) <= 0.05 * method.node_count, method.kernels


def _lengths(spec: ModelSpec) -> tuple[int, ...]:
    """Sequence lengths to run; 0 stands for the length of the inputs."""
    has_length = any(1 in sizes for sizes in (spec.dynamic_shapes or {}).values())
    return (2, 5, 0) if has_length else (0,)
