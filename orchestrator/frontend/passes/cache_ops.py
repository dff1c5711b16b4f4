"""Writes ExecuTorch's ops for key-value caches with those that backends know.

`llama::update_cache` becomes an `index_put` of rows, which a delegate does where the cache lies;
`llama::custom_sdpa` becomes attention behind a mask of the positions that were written. Programs
need `executorch.extension.llm.custom_ops` to be exported, but not to run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor
from orchestrator.frontend.passes.caller import Caller, arguments_of
from orchestrator.frontend.passes.positions import Positions

aten = torch.ops.aten

_FUNCTIONALIZED = torch.ops.higher_order.auto_functionalized_v2


def write_out_cache_ops(program: ExportedProgram) -> ExportedProgram:
    """Returns a program without ExecuTorch's ops for key-value caches.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it, or after
            `run_decompositions`; it is left as it was.
    """
    if not any(_writer(node) for node in program.graph.nodes):
        return program
    editor = ProgramEditor(program)
    positions = Positions(editor.graph)
    for node in list(editor.graph.nodes):
        write = _writer(node)
        if write is not None:
            start = _given(node)["start_pos"]
            with editor.graph.inserting_before(node):
                write(editor, positions, node)
            editor.graph.erase_node(node)
            positions.note(start)
    positions.forget_unread()
    return editor.finish()


_Writer = Callable[[ProgramEditor, Positions, Node], None]


def _writer(node: Node) -> _Writer | None:
    """What writes a node otherwise, if it is of an op to write out and can be."""
    writer = _WRITERS.get(_name(node))
    if writer is _attend and _given(node)["attn_mask"] is not None and _given(node)["is_causal"]:
        return None  # an error in eager mode
    return writer


def _name(node: Node) -> str:
    """The name of the op that a node calls, be it by way of functionalization."""
    target = node.args[0] if node.target is _FUNCTIONALIZED else node.target
    return target._schema.name if isinstance(target, torch._ops.OpOverload) else ""


def _given(node: Node) -> Mapping[str, Any]:
    return node.kwargs if node.target is _FUNCTIONALIZED else arguments_of(node)


def _update(editor: ProgramEditor, positions: Positions, node: Node) -> None:
    """Rows of the cache from a position on, or those with given numbers."""
    given = _given(node)
    value = given["value"]
    call = _caller(editor, node, value)
    if given.get("indices") is None:
        places = _places(call, positions, given["start_pos"], value)
    else:
        places = _batched_places(call, positions, given["indices"])
    updated = _write(call, node, "cache", places, value)
    # What the op returns itself is a tensor of one element that it does not set.
    nothing = call(aten.new_zeros.default, value, [1])
    _replace(editor, node, [nothing, updated])
    if not nothing.users:
        editor.graph.erase_node(nothing)


def _write(call: Caller, node: Node, name: str, places: list[Node | None], rows: Node) -> Node:
    """Write rows to the argument of this name; returns what holds them then."""
    given = _given(node)
    if node.target is not _FUNCTIONALIZED:
        return call(aten.index_put_.default, given[name], places, rows)
    cache = given["_all_bases"][given[f"_{name}_base_index"]]
    return call(aten.index_put.default, cache, places, rows)


def _replace(editor: ProgramEditor, node: Node, results: Sequence[Node]) -> None:
    """Hand on what an op returns, and after it, if it was functionalized, what it writes to."""
    if node.target is not _FUNCTIONALIZED:
        editor.replace(node, results[0])
        return
    for item in list(node.users):
        editor.replace(item, results[item.args[1]])  # type: ignore[index]
        editor.graph.erase_node(item)


def _places(call: Caller, positions: Positions, start: object, rows: Node) -> list[Node | None]:
    return [None, positions.rows(call, start, positions.size(call, rows, 1))]


def _batched_places(call: Caller, positions: Positions, indices: Node) -> list[Node | None]:
    """[batch, count] of row numbers, which count from the start only."""
    inside = positions.from_start(call, indices)
    if inside.meta["val"].shape[0] == 1:
        return [None, call(aten.select.int, inside, 0, 0)]
    batch = call(
        aten.unsqueeze.default, positions.arange(call, positions.size(call, indices, 0)), 1
    )
    return [batch, inside]


def _attend(editor: ProgramEditor, positions: Positions, node: Node) -> None:
    """Attention over the rows that are written, each query over those up to its own."""
    given = _given(node)
    call = _caller(editor, node, given["query"])
    result = _attention(call, positions, given, given["key"], given["value"])
    editor.replace(node, result)


def _update_and_attend(editor: ProgramEditor, positions: Positions, node: Node) -> None:
    given = _given(node)
    call = _caller(editor, node, given["query"])
    caches = []
    for rows in ("key", "value"):
        places = _places(call, positions, given["start_pos"], given[rows])
        caches.append(_write(call, node, f"{rows}_cache", places, given[rows]))
    result = _attention(call, positions, given, *caches)
    _replace(editor, node, [result, *caches])


def _attention(
    call: Caller, positions: Positions, given: Mapping[str, Any], keys: Node, values: Node
) -> Node:
    """[batch, count, heads, depth], as all three operands; dropout is ignored, as in eager mode."""
    query, start, mask = given["query"], given["start_pos"], given["attn_mask"]
    sizes, kept = query.meta["val"].shape, keys.meta["val"].shape
    causal = bool(given["is_causal"])
    whole = start == 0 and isinstance(kept[1], int) and sizes[1] == kept[1]
    if mask is not None:
        dtype = query.meta["val"].dtype
        if mask.meta["val"].dtype != dtype:
            mask = call(aten.to.dtype, mask, dtype)
    elif not whole:
        make = positions.causal_mask if causal else positions.prefix_mask
        mask = make(call, start, query, keys)
    result = call(
        aten.scaled_dot_product_attention.default,
        *(call(aten.transpose.int, each, 1, 2) for each in (query, keys, values)),
        mask,
        0.0,
        whole and causal and mask is None,
        scale=given["scale"],
        enable_gqa=sizes[2] != kept[2],
    )
    return call(aten.contiguous.default, call(aten.transpose.int, result, 1, 2))


def _caller(editor: ProgramEditor, node: Node, tensor: Node) -> Caller:
    return Caller(editor.graph, node, tensor)


_WRITERS: dict[str, _Writer] = {
    "llama::update_cache": _update,
    "llama::update_cache_with_indices": _update,
    "llama::custom_sdpa": _attend,
    "llama::sdpa_with_kv_cache": _update_and_attend,
}
