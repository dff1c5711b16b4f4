"""Has rows of quantized tables dequantized after they are looked up, not the table before.

An embedding of a dequantized table becomes one of ExecuTorch's quantized embeddings, whose tables
hold 8, 4 or 2 bits an element and whose kernels dequantize what is asked for, unless a backend
takes it as it is. ExecuTorch has a pass of its own for that, which also fuses ops that have no
kernel, and which comes too late: by then some backend may have taken the embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import executorch.exir.passes.quant_fusion_pass  # noqa: F401  (registers the ops)
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.node_view import op_name
from ggml_delegate.program_editor import ProgramEditor, named_arguments

TablesTaken = Callable[[ExportedProgram], Callable[[Node], bool]]

_EMBEDDING = torch.ops.aten.embedding.default
_SCALE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# By the range of the integers: how many bits they are packed into. Others take a byte.
_BITS = {(-8, 7): 4, (-2, 1): 2}


@dataclass(frozen=True)
class _Table:
    """A quantized table: integers [rows, columns], scales and zero points [rows] or [rows, groups].

    dtype: of the rows once they are dequantized.
    """

    integers: Node
    scales: Node
    zero_points: Node | None
    limits: tuple[int, int]
    dtype: torch.dtype


def no_tables(program: ExportedProgram) -> Callable[[Node], bool]:
    """No backend takes quantized tables."""
    return lambda node: False


def quantize_embeddings(
    program: ExportedProgram, tables: TablesTaken = no_tables
) -> ExportedProgram:
    """Returns a program with quantized embeddings as one op; `program` is left as it was.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it.
        tables: tells, given a program, which of its embeddings of dequantized tables a backend
            takes; these stay.
    """
    found = {node for node in program.graph.nodes if _table(node)}
    if found:
        taken = tables(program)
        found = {node for node in found if not taken(node)}
    if not found:
        return program
    names = {node.name for node in found}
    editor = ProgramEditor(program)
    for node in list(editor.graph.nodes):
        table = _table(node) if node.name in names else None
        if table is not None and _is_storable(editor, table):
            _rewrite(editor, node, table)
    return editor.finish()


def _table(node: Node) -> _Table | None:
    """The table that an embedding reads, if it is one that a dequantize makes of constants."""
    if node.target != _EMBEDDING or not isinstance(node.args[0], Node):
        return None
    dequantize = node.args[0]
    reader = _READERS.get(op_name(dequantize))
    if reader is None:
        return None
    table = reader(named_arguments(dequantize), dequantize.meta["val"].dtype)
    nodes = () if table is None else (table.integers, table.scales, table.zero_points)
    if any(node is not None and node.op != "placeholder" for node in nodes):
        return None
    return table


def _affine(given: dict[str, Any], dtype: torch.dtype) -> _Table | None:
    low, high = given.get("quant_min"), given.get("quant_max")
    integers, block = given["input"], given["block_size"]
    rows, columns = integers.meta["val"].shape if len(block) == 2 else (0, 0)
    if not rows or block[0] != 1 or columns % block[1] or low is None or high is None:
        return None
    limits = (int(low), int(high))
    return _Table(integers, given["scale"], given.get("zero_point"), limits, dtype)


def _per_channel(given: dict[str, Any], dtype: torch.dtype) -> _Table | None:
    if given["axis"] != 0:
        return None
    limits = (given["quant_min"], given["quant_max"])
    return _Table(given["input"], given["scales"], given.get("zero_points"), limits, dtype)


def _per_group(given: dict[str, Any], dtype: torch.dtype) -> _Table | None:
    return _per_channel({**given, "axis": 0}, dtype)


def _of_groups(given: dict[str, Any], dtype: torch.dtype) -> _Table | None:
    """A table of `orchestrator::dequantize_groups`; the kernels add no minimums."""
    if given["mins"] is not None:
        return None
    end = 1 << given["bits"] - 1
    return _Table(given["q"], given["scales"], None, (-end, end - 1), dtype)


_READERS = {
    "orchestrator.dequantize_groups.default": _of_groups,
    "torchao.dequantize_affine.default": _affine,
    "quantized_decomposed.dequantize_per_channel.default": _per_channel,
    "quantized_decomposed.dequantize_per_channel_group.default": _per_group,
}


def _is_storable(editor: ProgramEditor, table: _Table) -> bool:
    """Whether the kernels take a table of these sizes and dtypes."""
    integers, scales = editor.constant(table.integers), editor.constant(table.scales)
    zero_points = editor.constant(table.zero_points)
    if integers is None or scales is None or (table.zero_points is None) != (zero_points is None):
        return False
    if integers.dim() != 2 or integers.dtype not in (torch.int8, torch.uint8):
        return False
    if scales.dtype not in _SCALE_DTYPES or table.dtype not in _SCALE_DTYPES:
        return False
    low, high = table.limits
    if _bits(integers, table.limits) < 8 and not low <= integers.min() <= integers.max() <= high:
        return False
    return scales.numel() % integers.shape[0] == 0


def _bits(integers: torch.Tensor, limits: tuple[int, int]) -> int:
    bits = _BITS.get(limits, 8)
    return bits if integers.dtype == torch.int8 and integers.shape[1] % (8 // bits) == 0 else 8


@torch.no_grad()
def _rewrite(editor: ProgramEditor, node: Node, table: _Table) -> None:
    integers, scales = editor.constant(table.integers), editor.constant(table.scales)
    zero_points = editor.constant(table.zero_points)
    assert integers is not None and scales is not None
    rows = integers.shape[0]
    bits = _bits(integers, table.limits)
    packed = integers.contiguous()
    if bits < 8:
        packed = torch.ops.quant_fusion._pack_embedding_weight(integers, bits)
    name = editor.target_of(table.integers)
    arguments: list[Any] = [
        editor.add_parameter(f"{name}_packed", packed),
        editor.add_parameter(f"{name}_scales", scales.reshape(rows, -1).contiguous()),
        None,
    ]
    if zero_points is not None and bool(zero_points.any()):
        shifts = zero_points.reshape(rows, -1).to(scales.dtype)
        arguments[2] = editor.add_parameter(f"{name}_zero_points", shifts.contiguous())
    op = getattr(
        torch.ops.quantized_decomposed, f"embedding_{'byte' if bits == 8 else f'{bits}bit'}"
    )
    arguments += [*table.limits, node.args[1]]
    with editor.graph.inserting_before(node):
        # Without a dtype, groups give float32 whatever their scales are.
        if scales.dtype == table.dtype == torch.float32:
            new = editor.graph.call_function(op.default, tuple(arguments))
        else:
            new = editor.graph.call_function(op.dtype, tuple(arguments), {"dtype": table.dtype})
    new.meta = dict(node.meta)
    dequantize = node.args[0]
    assert isinstance(dequantize, Node)
    editor.replace(node, new)
    editor.graph.erase_node(node)
    if not dequantize.users:
        sources = dequantize.all_input_nodes
        editor.graph.erase_node(dequantize)
        editor.remove_if_unused(sources)
