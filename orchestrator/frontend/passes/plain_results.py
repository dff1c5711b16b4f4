"""Lets programs return what torch's own functions return, such as the result of `torch.max`.

ExecuTorch stores how results are nested, and knows no name for torch's named tuples, nor for
those of users.
"""

from __future__ import annotations

import copy
import dataclasses

from torch.export import ExportedProgram
from torch.utils import _pytree as pytree


def plain_results(program: ExportedProgram) -> ExportedProgram:
    """Returns a program whose results are in plain tuples instead of named ones without a name.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was.
    """
    entry, *others = program.module_call_graph
    if entry.signature is None:
        return program
    spec = plain_spec(entry.signature.out_spec)
    if spec is entry.signature.out_spec:
        return program
    signature = dataclasses.replace(entry.signature, out_spec=spec)
    result = copy.copy(program)
    result._module_call_graph = [dataclasses.replace(entry, signature=signature), *others]
    return result


def plain_spec(spec: pytree.TreeSpec) -> pytree.TreeSpec:
    """The same nesting with plain tuples instead of named ones that cannot be stored.

    It is `spec` itself where there are none.
    """
    before = spec.children()
    children = [plain_spec(child) for child in before]
    shallow = pytree.TreeSpec(spec.type, spec.context, [pytree.treespec_leaf()] * len(children))
    if before and not _has_name(shallow) and _is_tuple(shallow):
        return pytree.TreeSpec(tuple, None, children)
    if all(new is old for new, old in zip(children, before, strict=True)):
        return spec
    return pytree.TreeSpec(spec.type, spec.context, children)


def _has_name(spec: pytree.TreeSpec) -> bool:
    try:
        pytree.treespec_dumps(spec)
    except NotImplementedError:
        return False
    return True


def _is_tuple(spec: pytree.TreeSpec) -> bool:
    return isinstance(pytree.tree_unflatten([None] * spec.num_leaves, spec), tuple)
