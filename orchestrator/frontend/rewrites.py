"""Graph rewrites that help every backend, applied before ExecuTorch decomposes a program."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from orchestrator.frontend.passes import (
    TablesTaken,
    apply_passes,
    decompose_custom,
    expand_weights,
    no_tables,
    remove_asserts,
    unwrap_subclasses,
)
from orchestrator.graph.queries import aten_op, is_custom_composite, origin


@dataclass(frozen=True)
class Rewriting:
    """What earlier plans have shown that has to be written in another way before the next.

    ops: ops never to preserve. origins: nodes not to preserve (see `graph.queries.origin`).
    weights: names of quantized weights to expand to floats.
    """

    ops: frozenset[torch._ops.OpOverload] = frozenset()
    origins: frozenset[str] = frozenset()
    weights: frozenset[str] = frozenset()

    def adding(self, nodes: Collection[Node], weights: Iterable[str]) -> Rewriting:
        """Return what also decomposes nodes (of the edge dialect) and expands weights."""
        again = [node for node in nodes if origin(node) in self.origins]
        return Rewriting(
            self.ops | {aten_op(node) for node in again},
            self.origins | {origin(node) for node in nodes},
            self.weights | {*weights},
        )


class StartOver(Exception):  # noqa: N818  # no error: ExecuTorch's flow has to be run once more
    """A plan shows that the program has to be written in another way.

    rewriting: how.
    """

    def __init__(self, rewriting: Rewriting) -> None:
        self.rewriting = rewriting
        super().__init__("start over with what the plan has shown")


def rewrite(
    program: ExportedProgram,
    *,
    decompose: Callable[[Node], bool] = lambda node: False,
    expand: Collection[str] = (),
    tables: TablesTaken = no_tables,
) -> ExportedProgram:
    """Return an ATen-dialect program that computes the same with less; the given one is kept.

    Args:
        program: as exported.
        decompose: whether to write a node, of an op that is made of others, with these.
        expand: names of quantized weights to store as floats.
        tables: which quantized tables to leave to backends, see `quantize_embeddings`.
    """
    program = expand_weights(unwrap_subclasses(remove_asserts(program)), expand)
    program = decompose_custom(program, lambda node: is_custom_composite(node) and decompose(node))
    # A name may be that of a tensor that the passes made.
    return expand_weights(apply_passes(program, tables), expand)


def constant_bytes(program: ExportedProgram) -> int:
    """The bytes of the parameters, buffers and constants that a program reads."""
    read = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    signature = program.graph_signature
    targets = {spec.target for spec in signature.input_specs if spec.arg.name in read}
    values = (
        program.state_dict.get(target, program.constants.get(target))
        for target in targets
        if target is not None
    )
    plain = (leaf for value in values if isinstance(value, torch.Tensor) for leaf in _inner(value))
    return sum(tensor.numel() * tensor.element_size() for tensor in plain)


def _inner(value: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the plain tensors that a tensor is made of."""
    if not is_traceable_wrapper_subclass(value):
        yield value
        return
    names, _ = value.__tensor_flatten__()
    for name in names:
        yield from _inner(getattr(value, name))
