"""Computes at lowering time what depends on no input: masks, position tables, normed weights.

A part of the graph that starts from parameters, fixed buffers and numbers alone gives the same
tensors in every run. It is run once here, with PyTorch, and its results are stored in its place,
unless that would make the file much larger: a bias that is repeated for every window, say, stays
a small bias and an op.

Quantized weights stay as they are, however small: backends compute with integers, and know such a
layer by the dequantize in front of it. Whether a weight is expanded is for a plan to say
(see `expand_weights`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.program_editor import ProgramEditor
from orchestrator.graph.quantized import dequantized_weights, is_quantization

# How much the file may grow by folding: a fraction of its weights, and some bytes besides.
MAX_GROWTH_SHARE = 0.005
MAX_GROWTH_BYTES = 256 << 10
# Ops with results this large are not run even where the memory of their operands is freed.
MAX_RESULT_BYTES = 256 << 20


def fold_constants(program: ExportedProgram) -> ExportedProgram:
    """Returns a program with such parts replaced by tensors; `program` is left as it was.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it.
    """
    constants = {
        spec.arg.name for spec in program.graph_signature.input_specs if spec.target is not None
    }
    if not any(_starts_from(node, constants) for node in program.graph.nodes):
        return program
    if _writes_to_fixed(program, constants):
        # Masks are often made by assignments, which this turns into functions of tensors.
        program = program.run_decompositions({})
    fixed = _Fixed(ProgramEditor(program))
    frontier = _affordable_frontier(fixed)
    return _stored(fixed, frontier) if frontier else program


def expand_weights(program: ExportedProgram, names: Collection[str]) -> ExportedProgram:
    """Returns a program in which quantized weights are floats; `program` is left as it was.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it.
        names: of the parameters, buffers or constants to expand, as `dequantized_weights` tells
            them; others stay.
    """
    wanted = {node.name for node, name in dequantized_weights(program) if name in names}
    if not wanted:
        return program
    fixed = _Fixed(ProgramEditor(program), wanted)
    return _stored(fixed, [node for node in fixed.nodes if node.name in wanted])


def _stored(fixed: _Fixed, results: Sequence[Node]) -> ExportedProgram:
    """The program with results of fixed nodes as tensors; what these alone needed is gone."""
    editor = fixed.editor
    values = _evaluate(fixed, results)
    for node in results:
        constant = editor.add_parameter(f"folded.constant_{node.name}", values[node])
        editor.replace(node, constant)
    for node in reversed(list(editor.graph.nodes)):
        if node in fixed.nodes and not node.users:
            editor.graph.erase_node(node)
    editor.remove_if_unused(list(fixed.roots))
    return editor.finish()


def _starts_from(node: Node, constants: set[str]) -> bool:
    """Whether a call has no other inputs than constants."""
    return node.op == "call_function" and all(
        source.name in constants for source in node.all_input_nodes
    )


def _writes_to_fixed(program: ExportedProgram, constants: set[str]) -> bool:
    """Whether an in-place op changes a tensor that no input of the program has a part in."""
    signature = program.graph_signature
    changing = set(signature.buffers_to_mutate.values())
    fixed = {
        spec.arg.name
        for spec in signature.input_specs
        if spec.arg.name in constants and spec.target not in changing
    }
    found = False
    for node in program.graph.nodes:
        if node.op != "call_function" or not all(s.name in fixed for s in node.all_input_nodes):
            continue
        fixed.add(node.name)
        op = node.target
        if isinstance(op, torch._ops.OpOverload) and op._schema.is_mutable:
            written = node.args[0]
            found |= isinstance(written, Node) and written.op == "call_function"
    return found


class _Fixed:
    """The nodes of a program whose results are the same in every run.

    Quantized weights stay as they are, but for those that the nodes named `expanded` dequantize.

    Attributes:
        nodes: such calls, in graph order.
        roots: the placeholders of constants.
    """

    def __init__(self, editor: ProgramEditor, expanded: Collection[str] = ()) -> None:
        self.editor = editor
        self._expanded = expanded
        self.nodes: dict[Node, None] = {}
        self.roots: dict[Node, torch.Tensor] = {}
        for node in editor.graph.nodes:
            constant = editor.constant(node)
            if constant is not None:
                self.roots[node] = constant
            elif self._is_fixed(node):
                self.nodes[node] = None

    def __contains__(self, node: Node) -> bool:
        return node in self.nodes or node in self.roots

    def _is_fixed(self, node: Node) -> bool:
        op = node.target
        if not isinstance(op, torch._ops.OpOverload) or node.op != "call_function":
            return False
        if op._schema.is_mutable or torch.Tag.nondeterministic_seeded in op.tags:
            return False
        if is_quantization(node) and node.name not in self._expanded:
            return False
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.is_sparse:
            return False
        if value.device.type != "cpu" or not all(isinstance(size, int) for size in value.shape):
            return False
        inputs = node.all_input_nodes
        return all(source in self for source in inputs) and not self.editor.is_written(node)


def _nbytes(node: Node) -> int:
    value: torch.Tensor = node.meta["val"]
    return value.numel() * value.element_size()


def _affordable_frontier(fixed: _Fixed) -> list[Node]:
    """The fixed nodes whose results are stored: others read them, and the file stays small."""
    limit = MAX_GROWTH_BYTES + MAX_GROWTH_SHARE * sum(t.nbytes for t in fixed.roots.values())
    taken = dict(fixed.nodes)
    while True:
        frontier = [
            node
            for node in taken
            if node.users and any(user not in taken for user in node.users)
            if not all(user.op == "output" for user in node.users)
        ]
        too_large = _first_too_large(fixed, taken, frontier, limit)
        if too_large is None:
            # A result that is an output needs a tensor of its own.
            return [node for node in frontier if all(u.op != "output" for u in node.users)]
        del taken[too_large]


def _first_too_large(
    fixed: _Fixed, taken: dict[Node, None], frontier: list[Node], limit: float
) -> Node | None:
    """The result with the largest cost, if all together exceed the limit, else None."""
    kept = {  # memory that others use; one tensor may have several placeholders
        tensor.data_ptr()
        for root, tensor in fixed.roots.items()
        if not all(user in taken for user in root.users)
    }
    freed = {
        root: tensor.nbytes
        for root, tensor in fixed.roots.items()
        if root.users and tensor.data_ptr() not in kept
    }
    growth = sum(map(_nbytes, frontier)) - sum(freed.values())
    oversized = [node for node in frontier if _nbytes(node) > MAX_RESULT_BYTES]
    if oversized:
        return oversized[0]
    if not frontier or growth <= limit:
        return None
    return max(frontier, key=lambda node: _nbytes(node) - _freed_by(node, freed))


def _freed_by(node: Node, freed: dict[Node, int]) -> int:
    """Bytes of the constants behind a node that nothing else needs."""
    seen: set[Node] = set()
    waiting = list(node.all_input_nodes)
    while waiting:
        source = waiting.pop()
        if source not in seen:
            seen.add(source)
            waiting += source.all_input_nodes
    return sum(freed.get(source, 0) for source in seen)


@torch.no_grad()
def _evaluate(fixed: _Fixed, wanted: Iterable[Node]) -> dict[Node, torch.Tensor]:
    """Runs what the wanted nodes need; results are dense, in the layout that the graph declares."""
    values: dict[Node, torch.Tensor] = {}

    def value(node: Node) -> torch.Tensor:
        if node in fixed.roots:
            return fixed.roots[node].detach()
        return values[node]

    needed: set[Node] = set()
    waiting = list(wanted)
    results = set(waiting)
    while waiting:
        node = waiting.pop()
        if node in fixed.nodes and node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    for node in fixed.nodes:
        if node in needed:
            args = torch.fx.node.map_arg(node.args, value)
            kwargs = torch.fx.node.map_arg(node.kwargs, value)
            assert callable(node.target)
            values[node] = node.target(*args, **kwargs)
    dense = {}
    for node in results:
        like: torch.Tensor = node.meta["val"]
        order = torch.channels_last if _is_channels_last(like) else torch.contiguous_format
        dense[node] = values[node].clone(memory_format=order)
    return dense


def _is_channels_last(value: torch.Tensor) -> bool:
    return (
        value.dim() == 4
        and not value.is_contiguous()
        and value.is_contiguous(memory_format=torch.channels_last)
    )
