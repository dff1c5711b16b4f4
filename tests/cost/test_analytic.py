"""What estimates count."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from orchestrator.backends.portable import NAME
from orchestrator.cost.analytic import estimate_ns
from orchestrator.cost.model import estimates_of
from orchestrator.graph.queries import compute_nodes, op_name
from tests.harness.fakes import edge_program


def _lookup_ns(words: int, tokens: int) -> float:
    ep = edge_program(nn.Embedding(words, 64), torch.zeros(1, tokens, dtype=torch.int64))
    nodes = [node for node in compute_nodes(ep) if "embedding" in op_name(node)]
    return estimate_ns(nodes, estimates_of([])[NAME], threads=1)


def test_a_lookup_costs_what_it_gives_whatever_the_table_holds() -> None:
    assert _lookup_ns(100_000, 8) == pytest.approx(_lookup_ns(100, 8))
    assert _lookup_ns(100, 8_000) > 100 * _lookup_ns(100, 8)
