"""Dropout that does nothing is removed, dropout that does something stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from orchestrator.frontend.passes import apply_passes, remove_dropout


def operators(program: torch.export.ExportedProgram) -> list[str]:
    calls = (node for node in program.graph.nodes if node.op == "call_function")
    return [node.target.overloadpacket.__name__ for node in calls]


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout])
def test_dropout_in_eval_mode_is_removed(kind: type[nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), kind(0.5), nn.ReLU(), kind(0.5)).eval()
    x = torch.randn(1, 3, 6, 6)
    program = torch.export.export(model, (x,))
    source = str(program.graph)

    result = remove_dropout(program)

    assert operators(result) == ["conv2d", "relu"]
    assert str(program.graph) == source
    torch.testing.assert_close(result.module()(x), model(x))
    assert "clone" not in operators(result.run_decompositions())


def test_batch_norm_after_dropout_is_folded() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.BatchNorm2d(4)).eval()
    program = torch.export.export(model, (torch.randn(1, 3, 6, 6),))
    assert operators(apply_passes(program)) == ["conv2d"]


def test_dropout_that_is_the_whole_model_stays() -> None:
    program = torch.export.export(nn.Dropout().eval(), (torch.randn(3),))
    assert remove_dropout(program) is program


def test_dropout_in_training_mode_stays() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x.relu(), 0.5, training=True)

    program = torch.export.export(Noisy().eval(), (torch.randn(3),))
    assert remove_dropout(program) is program
