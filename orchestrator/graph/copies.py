"""Copies of exported programs for what changes them."""

from __future__ import annotations

from torch.export import ExportedProgram
from torch.fx import GraphModule


def copy_of(program: ExportedProgram, module: GraphModule | None = None) -> ExportedProgram:
    """Return a program with lists of weights of its own; the weights are the same.

    Delegates take theirs out of those lists.

    module: whose graph it is to have, with the nodes' names of the program's; that one's if None.
    """
    root = program.graph_module if module is None else module
    return ExportedProgram(
        root=root,
        graph=root.graph,
        graph_signature=program.graph_signature,
        state_dict=dict(program.state_dict),
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=dict(program.constants),
        verifiers=program.verifiers,
    )
