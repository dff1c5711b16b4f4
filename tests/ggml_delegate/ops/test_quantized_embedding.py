"""Rows of tables of integers, bit for bit as eager PyTorch expands them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from ggml_delegate import ir
from orchestrator.frontend.group_quantization import dequantize_groups
from orchestrator.native import NativeProgram
from tests.harness.changeable import (
    ChangeableFile,
    Mutation,
    changeable_file,
    resize,
    retype,
    set_input,
)
from tests.harness.integer_weights import SCHEMES
from tests.harness.ops import lower_ggml, rejections, undelegated

HALF, BRAIN, FLOAT = torch.float16, torch.bfloat16, torch.float32


def indices(*sizes: int, below: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.randint(below, sizes, generator=torch.Generator().manual_seed(1)).to(dtype)


class Table(nn.Module):
    """A table of groups; integers of all values that its bits have.

    affine: whether torchao's op expands it.
    """

    def __init__(
        self,
        n: int,
        k: int,
        *,
        bits: int = 8,
        group: int = 32,
        minimums: bool = False,
        dtype: torch.dtype = HALF,
        affine: bool = False,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(n * 1000 + k)
        self.bits, self.group, self.affine = bits, group, affine
        low = 0 if minimums and bits == 4 else -(1 << bits - 1)
        q = torch.randint(low, low + (1 << bits), (n, k), generator=generator)
        self.register_buffer("q", q.to(torch.uint8 if low == 0 else torch.int8))
        self.register_buffer("scales", torch.rand(n, k // group, generator=generator).to(dtype))
        mins = torch.randn(n, k // group, generator=generator).to(dtype)
        self.register_buffer("mins", mins if minimums else None)

    def weight(self) -> Tensor:
        if self.affine:
            low = -(1 << self.bits - 1)
            return torch.ops.torchao.dequantize_affine(
                self.q, [1, self.group], self.scales, None, torch.int8, low, -low - 1
            )
        return dequantize_groups(self.q, self.scales, self.mins, self.bits, self.group, FLOAT)


class LookUps(nn.Module):
    """Rows of each table; further indices are of other dtypes and ranks."""

    def __init__(self, tables: Sequence[Any]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(tables)

    def forward(self, *indices: Tensor) -> list[Tensor]:
        return [functional.embedding(i, table.weight()) for table in self.tables for i in indices]


class Tied(nn.Module):
    """A table that is the weight of a linear layer too."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.table = table

    def forward(self, i: Tensor) -> Tensor:
        rows = functional.embedding(i, self.table.weight())
        return functional.linear(rows, self.table.weight())


def native(model: nn.Module, inputs: Sequence[Tensor], dynamic_shapes: Any = None) -> NativeProgram:
    """The model as ggml alone runs it."""
    program, recorder, edge = lower_ggml(model.eval(), inputs, dynamic_shapes)
    assert not undelegated(edge), recorder.reasons
    return NativeProgram(program.buffer)


def assert_same(results: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Each number is the same, bit for bit but for NaN."""
    for result, exact in zip(results, expected, strict=True):
        torch.testing.assert_close(result, exact, rtol=0, atol=0, equal_nan=True)


def test_each_scheme_gives_the_rows_of_eager() -> None:
    """Of tables whose rows do not fill panels, by indices of each dtype and of some ranks."""
    tables = [make(n, 96, bits=bits) for make in SCHEMES.values() for n, bits in ((37, 8), (21, 4))]
    inputs = [
        indices(3, 1, 4, below=21),
        indices(5, below=21, dtype=torch.int32),
        torch.tensor(20),
    ]
    model = LookUps(tables)
    assert_same(native(model, inputs).run("forward", inputs), model(*inputs))


def test_each_type_of_scales_gives_the_rows_of_eager() -> None:
    """Of groups that begin between two bytes, and rows of an odd length, as well."""
    tables = [
        Table(33, k, bits=bits, group=group, minimums=minimums, dtype=dtype)
        for bits in (8, 4)
        for minimums in (False, True)
        for dtype, k, group in ((FLOAT, 64, 32), (HALF, 45, 5), (BRAIN, 27, 27), (HALF, 3, 1))
    ]
    tables += [
        Table(20, 64, bits=bits, dtype=dtype, affine=True)
        for bits in (8, 4)
        for dtype in (HALF, BRAIN)
    ]
    inputs = [torch.arange(20).flip(0)]
    model = LookUps(tables)
    assert_same(native(model, inputs).run("forward", inputs), model(*inputs))


def test_no_number_and_infinity_stay_in_their_group() -> None:
    tables = [Table(20, 64, dtype=FLOAT, minimums=True, bits=bits) for bits in (8, 4)]
    for table in tables:
        table.scales[3, 1], table.mins[4, 0] = math.nan, math.inf
    model, inputs = LookUps(tables), [torch.arange(20)]
    assert_same(native(model, inputs).run("forward", inputs), model(*inputs))


def test_any_number_of_indices() -> None:
    model, n, t = LookUps([Table(50, 64)]), Dim("n", min=1, max=4), Dim("t", min=1, max=64)
    program = native(model, [indices(2, 7, below=50)], {"indices": ({0: n, 1: t},)})
    for sizes in ((1, 1), (2, 7), (4, 64)):
        inputs = [indices(*sizes, below=50)]
        assert_same(program.run("forward", inputs), model(*inputs))


@pytest.mark.parametrize("bits", [8, 4])
def test_an_index_outside_of_the_table_is_an_error(bits: int) -> None:
    """Panels of 16 rows have more rows than the table."""
    model = LookUps([Table(21, 64, bits=bits)])
    program = native(model, [indices(4, below=21)])
    for index in (-1, 21, 31, 32, 2**31 - 1, -(2**31), 2**40):
        with pytest.raises(RuntimeError):
            program.run("forward", [torch.tensor([0, 1, index, 3])])
    good = [indices(4, below=21)]
    assert_same(program.run("forward", good), model(*good))  # the fault does not outlive its run


@pytest.mark.parametrize("minimums", [False, True], ids=["scales", "minimums"])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_table_that_is_a_weight_too_is_stored_once(bits: int, minimums: bool) -> None:
    table = Table(1024, 64, bits=bits, minimums=minimums)
    program, _, edge = lower_ggml(Tied(table).eval(), [indices(4, below=1024)])
    assert not undelegated(edge)
    once = 1024 * 64 * bits // 8 + 1024 * 2 * 2 * (1 + minimums)
    assert once < len(program.buffer) < once + 4_000


class OfTwoBits(Table):
    """As torchao expands 2 bits."""

    def weight(self) -> Tensor:
        return torch.ops.torchao.dequantize_affine(
            self.q, [1, self.group], self.scales, None, torch.int8, -2, 1
        )


class OfHalves(Table):
    """As eager PyTorch rounds it."""

    def weight(self) -> Tensor:
        return dequantize_groups(self.q, self.scales, None, self.bits, self.group, HALF)


@pytest.mark.parametrize(
    ("kind", "reason"), [(OfTwoBits, "2 bits"), (OfHalves, "floats of float32")]
)
def test_what_is_left_to_others(kind: type[Table], reason: str) -> None:
    found = rejections(LookUps([kind(20, 64)]), [indices(4, below=20)])
    assert any(reason in each for each in found)


# ---- files that say something else ---------------------------------------------------------


@functools.cache
def _file(bits: int) -> ChangeableFile:
    table = Table(20, 64, bits=bits, minimums=True)
    return changeable_file(LookUps([table]), [indices(3, below=20)])


_INTEGERS, _INDICES, _SCALES, _MINIMUMS = range(4)


def _run(bits: int, mutate: Callable[[Any, Any], object]) -> None:
    program = _file(bits).program()
    (node,) = program.nodes
    mutate(program, node)
    NativeProgram(_file(bits).with_program(program)).run("forward", [indices(3, below=20)])


def _set(name: str, value: int) -> Mutation:
    return lambda program, node: setattr(node.op, name, value)


def _how(name: str, value: int) -> Mutation:
    return lambda program, node: setattr(node.op.integers, name, value)


MUTATIONS: dict[str, Mutation] = {
    "no rows": _set("panelRows", 0),
    "fewer rows": _set("panelRows", 16),
    "more rows": _set("panelRows", 33),
    "rows beyond all sizes": _set("panelRows", 2**63),
    "another dimension": _set("dim", 1),
    "no integers": lambda program, node: setattr(node.op, "integers", None),
    "groups of another size": _how("group", 16),
    "groups of nothing": _how("group", 0),
    "bits of another number": _how("bits", 2),
    "scales absent": set_input(_SCALES, None),
    "scales are the integers": set_input(_SCALES, _INTEGERS),
    "scales are the indices": set_input(_SCALES, _INDICES),
    "minimums are the integers": set_input(_MINIMUMS, _INTEGERS),
    "minimums are the indices": set_input(_MINIMUMS, _INDICES),
    "integers are the scales": set_input(_INTEGERS, _SCALES),
    "integers are the indices": set_input(_INTEGERS, _INDICES),
    "indices are the scales": set_input(_INDICES, _SCALES),
    "indices are the integers": set_input(_INDICES, _INTEGERS),
    "fewer integers": resize(_INTEGERS, 1, 64, 16),
    "integers in rows": resize(_INTEGERS, 20, 64),
    "more integers": resize(_INTEGERS, 4, 64, 16),
    "fewer scales": resize(_SCALES, 2, 1, 16),
    "more scales": resize(_SCALES, 2, 4, 16),
    "more minimums": resize(_MINIMUMS, 2, 3, 16),
    "integers of uint8": retype(_INTEGERS, ir.DType.UInt8),
    "scales of float32": retype(_SCALES, ir.DType.Float32),
    "minimums of int32": retype(_MINIMUMS, ir.DType.Int32),
    "minimums of int8": retype(_MINIMUMS, ir.DType.Int8),
    "a result of other rows": lambda program, node: setattr(
        program.tensors[node.outputs[0]].dims[-1], "value", 63
    ),
    "an older version": lambda program, node: setattr(program, "version", 9),
}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_file_is_an_error(name: str, bits: int) -> None:
    with pytest.raises(RuntimeError):
        _run(bits, MUTATIONS[name])


def test_minimums_may_be_left_out() -> None:
    for bits in (8, 4):
        _run(bits, lambda program, node: None)
        _run(bits, set_input(_MINIMUMS, None))
