"""Quantized embeddings of models that were made for ExecuTorch, and of those that were not."""

from __future__ import annotations

from typing import Any

import executorch.exir.passes.quant_fusion_pass  # noqa: F401  (registers the ops)
import pytest
import torch
from torch import Tensor, nn

from orchestrator import LoweredProgram, lower
from orchestrator.frontend.group_quantization import dequantize_groups

_OPS = torch.ops.quantized_decomposed
HALF, FLOAT = torch.float16, torch.float32


class Tables(nn.Module):
    """ExecuTorch's own ops: a table of 8 bits and one of 4, with zero points or without."""

    def __init__(self, dtype: torch.dtype = FLOAT, groups: int = 2, zeros: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        sizes = (40,) if groups == 1 else (40, groups)
        q8 = torch.randint(-128, 128, (40, 64), generator=generator)
        self.register_buffer("q8", q8.to(torch.int8))
        q4 = torch.randint(0, 256, (40, 32), generator=generator)
        self.register_buffer("q4", q4.to(torch.uint8))
        self.register_buffer("scales", (torch.rand(sizes, generator=generator) + 0.01).to(dtype))
        points = torch.randint(-8, 8, sizes, generator=generator).to(dtype)
        self.register_buffer("zeros", points if zeros else None)

    def forward(self, i: Tensor) -> tuple[Tensor, Tensor]:
        bytes_, halves = _OPS.embedding_byte, _OPS.embedding_4bit
        return (
            bytes_(self.q8, self.scales, self.zeros, -128, 127, i),
            halves.dtype(self.q4, self.scales, self.zeros, -8, 7, i, dtype=self.scales.dtype),
        )


def look_ups(program: LoweredProgram) -> set[tuple[str, str]]:
    """The ops that look rows up, each with what runs it."""
    (method,) = program.report.methods
    return {
        (part.backend, op.rpartition(".")[0])
        for part in method.segments
        for op in part.ops
        if "embedding" in op
    }


class Several(nn.Module):
    """All that tables may have."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            Tables(groups=groups, zeros=zeros) for groups in (1, 2) for zeros in (False, True)
        )

    def forward(self, i: Tensor) -> list[Tensor]:
        return [rows for part in self.parts for rows in part(i)]


def test_a_backend_that_takes_tables_gets_them() -> None:
    model, i = Several().eval(), torch.tensor([[0, 39, 7], [16, 15, 1]])
    program = lower(model, (i,), backends=["ggml", "xnnpack"])
    assert look_ups(program) == {("ggml", "aten.embedding")}
    for result, exact in zip(program(i), model(i), strict=True):
        assert torch.equal(result, exact)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"backends": ["xnnpack"]}, FLOAT),
        ({"backends": ["ggml"]}, HALF),
        ({"backends": ["ggml"], "exclude": ["aten.embedding*"]}, FLOAT),
        ({"backends": ["ggml"], "pins": {"embedding": "portable"}}, FLOAT),
        ({"backends": ["ggml"], "max_partitions": 0}, FLOAT),
    ],
    ids=str,
)
def test_elsewhere_they_stay_what_they_are(options: dict[str, Any], dtype: torch.dtype) -> None:
    model, i = Tables(dtype, zeros=True).eval(), torch.tensor([0, 39, 7])
    program = lower(model, (i,), **options)
    names = ("embedding_byte", "embedding_4bit")
    assert look_ups(program) == {("portable", f"quantized_decomposed.{name}") for name in names}
    for result, exact in zip(program(i), model(i), strict=True):
        assert torch.equal(result, exact)


class WithMinimums(nn.Module):
    """A table, and a layer, that no kernel of ExecuTorch's expands."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        for name in ("table", "layer"):
            q = torch.randint(0, 16, (32, 64), generator=generator).to(torch.int8)
            self.register_buffer(name, q)
        self.register_buffer("scales", torch.rand(32, 2, generator=generator) + 0.01)
        self.register_buffer("minimums", -self.scales * 7.5)

    def forward(self, i: Tensor) -> Tensor:
        table, layer = (
            dequantize_groups(q, self.scales, self.minimums, 4, 32, FLOAT)
            for q in (self.table, self.layer)
        )
        return nn.functional.linear(nn.functional.embedding(i, table), layer)


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        ({}, 0),
        ({"exclude": ["embedding"]}, 1),
        ({"exclude": {"linear": "ggml"}}, 1),
        ({"pins": {"embedding": "portable", "linear": "portable"}}, 2),
        ({"max_partitions": 0}, 2),
    ],
    ids=str,
)
def test_what_only_a_delegate_expands_is_stored_as_floats_elsewhere(
    options: dict[str, Any], stored: int
) -> None:
    model, i = WithMinimums().eval(), torch.tensor([0, 31, 7])
    program = lower(model, (i,), backends=["ggml"], **options)
    torch.testing.assert_close(program(i), model(i), rtol=1e-5, atol=1e-4)
    notes = [note for note in program.plan["forward"].notes if "are stored as floats" in note]
    assert [int(note.split()[0]) for note in notes] == ([stored] if stored else [])
