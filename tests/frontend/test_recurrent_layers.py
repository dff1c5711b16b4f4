"""Recurrent layers in plans, prices, reports and checks: one node each, whatever their steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from examples.models import MODELS
from orchestrator import ModelError, lower
from orchestrator.backends import Estimates, resolve_backends
from orchestrator.cost.analytic import estimate_ns, flops
from orchestrator.dry_run import edge_program, plan
from orchestrator.frontend.export import as_programs
from orchestrator.graph.queries import compute_nodes, op_name
from orchestrator.options import PlanOptions
from orchestrator.tuning.what_to_measure import collect_tasks
from orchestrator.verify import verify

BACKENDS = ("ggml", "xnnpack")
# So many steps take ExecuTorch's flow several minutes to unroll.
LONG = torch.randn(1, 200, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.LSTM(6, 10, 2, batch_first=True, bidirectional=True, proj_size=4).eval()


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_the_recurrent_examples_are_one_small_delegate(name: str) -> None:
    spec = MODELS[name]
    program = lower(spec.build(), spec.inputs(1, 0))
    (segment,) = program.report.methods[0].segments
    assert segment.backend == "ggml"
    assert len(segment.nodes) < 8
    weights = sum(4 * p.numel() for p in spec.build().parameters())
    assert len(program.buffer) < 1.02 * weights + 20_000


def test_other_plans_are_told_of_without_unrolling_a_loop(model: nn.Module) -> None:
    dry = plan(model, (LONG,), tune="off")
    alternatives = {each.name: each for each in dry.report.methods[0].plan.alternatives}
    assert not alternatives["ggml alone"].problem
    assert alternatives["xnnpack alone"].problem
    assert len(dry.report.methods[0].segments) == 1


def test_what_is_to_be_measured_has_a_recurrent_layer_whole(model: nn.Module) -> None:
    tasks = collect_tasks(as_programs(model, (LONG,)), resolve_backends(BACKENDS), 1)
    assert [task.backend_name for task in tasks if "lstm" in task.label] == ["ggml"]
    assert len(tasks) < 8


def test_verify_compares_a_recurrent_layer_with_eager(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    lower(model, (LONG,)).save(path)
    result = verify(path, model, (LONG,))
    assert result.first_off is None
    assert len(result.checks) >= 3


def test_layers_with_dropout_in_training_mode_are_refused() -> None:
    with pytest.raises(ModelError, match=r"LSTM.* is in training mode"):
        lower(nn.LSTM(6, 10, 2, dropout=0.5), (LONG,))


def test_the_price_grows_with_steps_and_weights(model: nn.Module) -> None:
    def node(steps: int) -> torch.fx.Node:
        (program,) = as_programs(model, (LONG[:, :steps],)).values()
        edge = edge_program(program, BACKENDS, PlanOptions(tune="off"))
        return next(n for n in compute_nodes(edge) if op_name(n) == "aten.lstm.input")

    few, many = node(50), node(200)
    weights = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    assert flops(many) == 4 * flops(few)
    assert 200 * 2 * weights < flops(many) < 200 * 4 * weights
    assert estimate_ns([many], Estimates(), 1) > 3 * estimate_ns([few], Estimates(), 1)
