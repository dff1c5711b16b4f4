"""Writes ExecuTorch's quantized embeddings as an embedding of a table that is dequantized.

Models that were quantized for ExecuTorch have them, with tables whose integers are packed for its
kernels. Written as other quantized layers are, they can go to a backend that takes tables; what
none takes becomes the same op again (see `quantize_embeddings`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import executorch.exir.passes.quant_fusion_pass  # noqa: F401  (registers the ops)
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.node_view import op_name
from ggml_delegate.program_editor import ProgramEditor, named_arguments

_EMBEDDING = torch.ops.aten.embedding.default
_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_channel_group.default


def write_out_embeddings(program: ExportedProgram) -> ExportedProgram:
    """Returns a program with tables of 8 and 4 bits dequantized; `program` is left as it was.

    Those that eager PyTorch expands to half types, and those of 2 bits, stay.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it.
    """
    if not any(_unpacker(node) for node in program.graph.nodes):
        return program
    editor = ProgramEditor(program)
    for node in list(editor.graph.nodes):
        unpack = _unpacker(node)
        if unpack is not None:
            _write_out(editor, node, unpack)
    return editor.finish()


def _unpacker(node: Node) -> Callable[[torch.Tensor], torch.Tensor] | None:
    return _UNPACKERS.get(op_name(node).rpartition(".")[0])


def _as_they_are(integers: torch.Tensor) -> torch.Tensor:
    return integers


def _of_four_bits(packed: torch.Tensor) -> torch.Tensor:
    """[n, k / 2] of bytes to int8 [n, k]; the even element of a byte is its high half, plus 8."""
    halves = torch.stack((packed >> 4, packed & 0xF), dim=-1)
    return halves.flatten(1).to(torch.int8) - 8


_UNPACKERS = {
    "quantized_decomposed.embedding_byte": _as_they_are,
    "quantized_decomposed.embedding_4bit": _of_four_bits,
}


@torch.no_grad()
def _write_out(
    editor: ProgramEditor, node: Node, unpack: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    given: dict[str, Any] = named_arguments(node)
    packed, scales = editor.constant(given["weight"]), editor.constant(given["weight_scales"])
    low, high = given["weight_quant_min"], given["weight_quant_max"]
    zero_points = given["weight_zero_points"]
    if packed is None or scales is None or scales.dtype != torch.float32:
        return
    if zero_points is not None and editor.constant(zero_points) is None:
        return
    integers = unpack(packed)
    rows, width = integers.shape
    group = width // (scales.shape[1] if scales.dim() == 2 else 1)
    if (
        integers.dtype != torch.int8
        or node.meta["val"].dtype != torch.float32
        or group < 2  # which the op refuses
        or not low <= integers.min() <= integers.max() <= high
    ):
        return
    table = given["weight"]
    if integers is not packed:
        table = editor.add_parameter(f"{editor.target_of(table)}_unpacked", integers)
    how = (given["weight_scales"], zero_points, low, high, torch.int8, group, torch.float32)
    with editor.graph.inserting_before(node):
        floats = editor.graph.call_function(_DEQUANTIZE, (table, *how))
        new = editor.graph.call_function(_EMBEDDING, (floats, given["indices"]))
    floats.meta = {**node.meta, "val": node.meta["val"].new_empty((rows, width))}
    new.meta = dict(node.meta)
    editor.replace(node, new)
    editor.graph.erase_node(node)
    editor.remove_if_unused([given["weight"]])
