"""Constants that an op reads in a list, as a placeholder of their own.

A constant inside a delegate is given to its users elsewhere as a copy. ExecuTorch puts copies in
place of arguments, but not into lists of them: those of `cat` and `index`, and the results of the
program. So such users get theirs beforehand.
"""

from __future__ import annotations

import dataclasses

from executorch.exir.pass_base import ExportedProgramPassBase, ExportedProgramPassResult
from torch.export import ExportedProgram
from torch.export.graph_signature import InputSpec, TensorArgument
from torch.fx import Node

from orchestrator.graph.queries import constant_nodes, mutated_buffers


class NestedConstantsPass(ExportedProgramPassBase):  # type: ignore[misc]  # executorch is untyped
    """An edge-dialect pass, for `transform_passes` of `to_edge_transform_and_lower`."""

    def call(self, exported_program: ExportedProgram) -> ExportedProgramPassResult:
        """Add placeholders in place; see `separate_nested_constants`."""
        changed = separate_nested_constants(exported_program)
        return ExportedProgramPassResult(exported_program, changed)


def separate_nested_constants(ep: ExportedProgram) -> bool:
    """Give users that read a constant in a list a placeholder of the same tensor.

    Constants with one user, and buffers that the program changes, stay; edits `ep` in place.
    Returns whether anything changed.
    """
    shared = [node for node in constant_nodes(ep) - mutated_buffers(ep) if len(node.users) > 1]
    nested = {node: [user for user in node.users if reads_nested(user, node)] for node in shared}
    specs = {spec.arg.name: spec for spec in ep.graph_signature.input_specs}
    before: dict[str, list[InputSpec]] = {}
    for node, users in nested.items():
        for user in users:
            with ep.graph.inserting_before(node):
                copy = ep.graph.placeholder(f"{node.name}_nested")
            copy.meta = dict(node.meta)
            user.replace_input_with(node, copy)
            argument = TensorArgument(name=copy.name)
            spec = dataclasses.replace(specs[node.name], arg=argument)
            before.setdefault(node.name, []).append(spec)
            if user.op == "output":
                _rename_results(ep, node.name, copy.name)
    if before:
        ep.graph_signature.input_specs[:] = [
            each
            for spec in ep.graph_signature.input_specs
            for each in (*before.get(spec.arg.name, ()), spec)
        ]
        ep.graph_module.recompile()
    return bool(before)


def reads_nested(user: Node, node: Node) -> bool:
    """Whether a user reads a node in a list or in another structure, not as an argument alone."""
    return node not in user.args and node not in user.kwargs.values()


def _rename_results(ep: ExportedProgram, old: str, new: str) -> None:
    for spec in ep.graph_signature.output_specs:
        if getattr(spec.arg, "name", None) == old:
            spec.arg = TensorArgument(name=new)
