"""Embeddings of quantized tables become ops of ExecuTorch's, of the same results."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import export

from orchestrator import lower
from orchestrator.frontend.group_quantization import dequantize_groups

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ROWS, COLUMNS = 20, 96


class _Table(nn.Module):
    def __init__(self, bits: int, group: int, scales: torch.dtype, dtype: torch.dtype) -> None:
        super().__init__()
        self.bits, self.group, self.dtype = bits, group, dtype
        self.register_buffer("q", torch.randint(-8, 8, (ROWS, COLUMNS), dtype=torch.int8))
        numbers = torch.rand(ROWS, COLUMNS // group) / 10 + 0.01
        self.register_buffer("scales", numbers.to(scales))

    def forward(self, index: Tensor) -> Tensor:
        table = dequantize_groups(self.q, self.scales, None, self.bits, self.group, self.dtype)
        return nn.functional.embedding(index, table)


class _Tables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(
            _Table(bits, group, scales, dtype)
            for bits in (4, 8)
            for group in (4, COLUMNS)
            for scales in DTYPES
            for dtype in DTYPES
        )

    def forward(self, index: Tensor) -> list[Tensor]:
        return [table(index) for table in self.tables]


def test_rows_have_the_dtype_of_the_table() -> None:
    torch.manual_seed(0)
    model, index = _Tables().eval(), torch.tensor([3, 0, ROWS - 1])
    program = lower(export(model, (index,)), backends=[], tune="off")
    for table, got, want in zip(model.tables, program(index), model(index), strict=True):
        case = f"{table.bits} bits, groups of {table.group}, {table.scales.dtype}, {table.dtype}"
        assert got.dtype == want.dtype, case
        assert got.equal(want), case
