"""Which results of a program may lie where its inputs do: state that it changes a part of.

A key-value cache goes into a delegate as an input and comes out as a result. Where the delegate
does nothing to it but write some rows, the result may be given the input's memory, and only these
rows are touched. The schema's InPlace says when that is allowed; the runtime checks it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from _ggml_delegate import ir_generated as generated
from torch.fx import Node

from ggml_delegate import ir
from ggml_delegate.node_view import op_name

# Ops that can be lowered to a change of a part of their first argument.
_UPDATES = (
    "aten.index_put.default",
    "aten.slice_scatter.default",
    "aten.select_scatter.default",
)


def may_update_in_place(node: Node) -> bool:
    """Whether a node only changes a part of an input of its graph, and the graph returns that.

    Other changes may come before or after; nothing else may read what is there between them.
    """
    before, after = node, node
    while _is_update(before):
        source = before.args[0]
        others = pytree.tree_leaves((before.args[1:], before.kwargs))
        if not isinstance(source, Node) or len(source.users) != 1 or source in others:
            return False
        before = source
    if before.op != "placeholder":
        return False
    while not any(user.op == "output" for user in after.users):
        if len(after.users) != 1:
            return False
        (after,) = after.users
        if not _is_update(after):
            return False
    return True


def in_place_pairs(
    tensors: Sequence[Any], nodes: Sequence[Any], inputs: Sequence[int], outputs: Sequence[int]
) -> list[Any]:
    """Finds the results of a program that may have an input's memory.

    Args:
        tensors, nodes, inputs, outputs: as in an ir.Program.

    Returns:
        ir.InPlace objects.
    """
    reads = Counter(outputs)
    readers = {}
    for node in nodes:
        for number in node.inputs:
            reads[number] += 1
            readers[number] = node
    pairs = []
    for place, number in enumerate(inputs):
        last = number
        while last not in outputs and reads[last] == 1 and _updates(readers[last], last, tensors):
            last = readers[last].outputs[0]
        if last != number and last in outputs:
            pairs.append(ir.InPlace(input=place, output=list(outputs).index(last)))
    return pairs


def in_place_results(processed: bytes) -> dict[int, int]:
    """The results of a delegate that may have the memory of one of its arguments.

    Args:
        processed: a program as `ir.serialize` gives it.

    Returns:
        The numbers of these arguments, by the numbers of the results.
    """
    program = generated.Program.GetRootAs(processed)
    pairs = [program.InPlace(i) for i in range(program.InPlaceLength())]
    return {pair.Output(): pair.Input() for pair in pairs}


def _is_update(node: Node) -> bool:
    return (
        node.op == "call_function"
        and op_name(node) in _UPDATES
        and isinstance(node.meta.get("val"), torch.Tensor)
    )


def _updates(node: Any, number: int, tensors: Sequence[Any]) -> bool:
    """Whether a node of the IR is an update of a tensor that leaves dtype and dim order alone."""
    if ir.op_name(node) != "IndexPut" or node.inputs[0] != number:
        return False
    before, after = tensors[number], tensors[node.outputs[0]]
    return (
        before.dtype == after.dtype
        and not len(before.dimOrder or ())
        and not len(after.dimOrder or ())
    )
