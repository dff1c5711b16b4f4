"""What is assigned to a part of a tensor, without the part's old value.

`cache[:, :, 2:4] = x` is functionalized to a slice of the cache, a copy of x to the slice's sizes
and dtype, and a scatter of that copy. Where x has them, the slice is read for nothing, and the copy
is x.
"""

from __future__ import annotations

import torch
from executorch.exir.pass_base import ExportedProgramPassBase, ExportedProgramPassResult
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.graph.queries import compute_nodes, op_name

_UNREAD = ("aten.slice_copy.Tensor", "aten.select_copy.int")


class AssignmentsPass(ExportedProgramPassBase):  # type: ignore[misc]  # executorch is untyped
    """An edge-dialect pass, for `transform_passes` of `to_edge_transform_and_lower`."""

    def call(self, exported_program: ExportedProgram) -> ExportedProgramPassResult:
        """Remove copies in place; see `remove_assignments`."""
        return ExportedProgramPassResult(exported_program, remove_assignments(exported_program))


def remove_assignments(ep: ExportedProgram) -> bool:
    """Hand on what is copied to a part's sizes and dtype, if it has them; edits `ep` in place.

    Returns whether anything changed.
    """
    changed = False
    for node in list(compute_nodes(ep)):
        if op_name(node) != "aten.copy.default" or not _is_result(node, node.args[1]):
            continue
        part, source = node.args[:2]
        assert isinstance(part, Node) and isinstance(source, Node)
        if any(user.op == "output" for user in node.users):
            continue  # the signature names it
        node.replace_all_uses_with(source)
        ep.graph.erase_node(node)
        changed = True
        while not part.users and op_name(part) in _UNREAD:
            before = part.args[0]
            assert isinstance(before, Node)
            ep.graph.erase_node(part)
            part = before
    if changed:
        ep.graph_module.recompile()
    return changed


def _is_result(copy: Node, source: object) -> bool:
    """Whether a copy's result is what it copies."""
    wanted, given = copy.meta.get("val"), getattr(source, "meta", {}).get("val")
    return (
        isinstance(wanted, torch.Tensor)
        and isinstance(given, torch.Tensor)
        and wanted.dtype == given.dtype
        and list(map(str, wanted.shape)) == list(map(str, given.shape))
        and wanted.dim_order() == given.dim_order()
    )
