"""What estimates count."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from orchestrator.backends import resolve_backends
from orchestrator.backends.portable import NAME
from orchestrator.cost.analytic import estimate_ns
from orchestrator.cost.model import estimates_of
from orchestrator.frontend.group_quantization import dequantize_groups
from orchestrator.graph.queries import compute_nodes, op_name
from tests.harness.fakes import edge_program


def _lookup_ns(words: int, tokens: int) -> float:
    ep = edge_program(nn.Embedding(words, 64), torch.zeros(1, tokens, dtype=torch.int64))
    nodes = [node for node in compute_nodes(ep) if "embedding" in op_name(node)]
    return estimate_ns(nodes, estimates_of([])[NAME], threads=1)


class _Table(nn.Module):
    def __init__(self, words: int, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("integers", torch.zeros(words, 64, dtype=torch.int8))
        self.register_buffer("scales", torch.ones(words, 2))

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        table = dequantize_groups(self.integers, self.scales, None, self.bits, 32, torch.float32)
        return nn.functional.embedding(index, table)


def _rows_ns(words: int, tokens: int, bits: int = 8) -> float:
    ep = edge_program(_Table(words, bits), torch.zeros(1, tokens, dtype=torch.int64))
    backends = resolve_backends(["ggml"])
    return estimate_ns(list(compute_nodes(ep)), estimates_of(backends)[backends[0].name], threads=1)


def test_a_lookup_in_a_table_of_integers_costs_its_rows() -> None:
    assert _rows_ns(100_000, 8) == pytest.approx(_rows_ns(100, 8))
    assert _rows_ns(100, 8_000) > 100 * _rows_ns(100, 8)
    assert _rows_ns(100, 8_000, bits=4) < _rows_ns(100, 8_000)


def test_a_lookup_costs_what_it_gives_whatever_the_table_holds() -> None:
    assert _lookup_ns(100_000, 8) == pytest.approx(_lookup_ns(100, 8))
    assert _lookup_ns(100, 8_000) > 100 * _lookup_ns(100, 8)
