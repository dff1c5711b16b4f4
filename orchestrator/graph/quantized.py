"""Which nodes belong to quantization: PT2E's ops (`quantized_decomposed`) and torchao's.

Both spell a quantized layer as ops on floats between a dequantize and a quantize, and leave it to
backends to recognise the group and to compute it with integers. A group that something is put
into, or that loses its dequantize, is an ordinary float layer again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch._subclasses import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

from ggml_delegate.node_view import op_name

_NAMESPACES = {"quantized_decomposed", "torchao", "orchestrator"}
_OF_GROUPS = "orchestrator.dequantize_groups.default"
_QUANTIZE = ("quantize_",)
_DEQUANTIZE = ("dequantize_",)
_CHOOSE = ("choose_qparams", "_choose_qparams")

_CONSTANT_KINDS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
_MUTATIONS = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)


def _is_one_of(node: Node, starts: tuple[str, ...]) -> bool:
    namespace, _, name = op_name(node).partition(".")
    return namespace in _NAMESPACES and name.startswith(starts)


def is_quantize(node: Node) -> bool:
    """Whether a node makes integers of floats, given scales and zero points."""
    return _is_one_of(node, _QUANTIZE)


def is_dequantize(node: Node) -> bool:
    """Whether a node makes floats of integers, given scales and zero points."""
    return _is_one_of(node, _DEQUANTIZE)


def is_choose_qparams(node: Node) -> bool:
    """Whether a node finds the scale and the zero point of a tensor."""
    return _is_one_of(node, _CHOOSE)


def is_quantization(node: Node) -> bool:
    """Whether a node quantizes, dequantizes, or finds the scale and zero point of a tensor."""
    return _is_one_of(node, (*_QUANTIZE, *_DEQUANTIZE, *_CHOOSE))


def computed_from(nodes: Iterable[Node], constants: Iterable[Node]) -> set[Node]:
    """Return constants and the calls among `nodes` that no other tensor has a part in.

    Args:
        nodes: in graph order.
        constants: placeholders of parameters, buffers and lifted constants.
    """
    fixed = set(constants)
    for node in nodes:
        sources = node.all_input_nodes
        if node.op == "call_function" and sources and fixed.issuperset(sources):
            fixed.add(node)
    return fixed


def dequantized_weights(program: ExportedProgram) -> Iterator[tuple[Node, str]]:
    """Yield the nodes that expand a fixed weight to floats in every run, and the weight's name.

    Such a name is that of a parameter, buffer or constant; programs that are made of one another
    by passes and decompositions share it.
    """
    signature = program.graph_signature
    mutated = {spec.target for spec in signature.output_specs if spec.kind in _MUTATIONS}
    names = {
        spec.arg.name: spec.target
        for spec in signature.input_specs
        if spec.kind in _CONSTANT_KINDS and spec.target not in mutated
    }
    nodes = program.graph.nodes
    fixed = computed_from(nodes, (node for node in nodes if node.name in names))
    for node in nodes:
        if node in fixed and is_dequantize(node):
            root = node
            while root.op == "call_function":
                root = root.all_input_nodes[0]
            name = names[root.name]
            assert name is not None
            yield node, name


@dataclass(frozen=True)
class Quantization:
    """How a node quantizes or dequantizes.

    dtype: of the integers. limits: the least and the largest of them. scale, zero_point: numbers,
    or nodes of tensors; a zero point may be left out. group_size: how many elements of a row share
    a scale; None where all do, or a whole row, plane or tensor is said to. minimum: a node of what
    is added, in place of a zero point.
    """

    dtype: torch.dtype
    limits: tuple[int, int]
    scale: object
    zero_point: object
    group_size: int | None = None
    minimum: Node | None = None


def quantization(node: Node) -> Quantization | None:
    """Return how a node quantizes or dequantizes; None if that is not one of the known ways."""
    target: Any = node.target
    schema = target._schema.arguments
    given = {argument.name: argument.default_value for argument in schema}
    given |= dict(zip(given, node.args, strict=False)) | node.kwargs
    if op_name(node) == _OF_GROUPS:
        return _of_groups(given)
    low, high = given.get("quant_min"), given.get("quant_max")
    if low is None or high is None or isinstance(low, Node) or isinstance(high, Node):
        return None
    tensor = node if is_quantize(node) else node.all_input_nodes[0]
    scale, zero_point = (given.get(name, given.get(f"{name}s")) for name in ("scale", "zero_point"))
    size = given.get("group_size")
    if "block_size" in given:
        size = given["block_size"][-1]
        if any(length != 1 for length in given["block_size"][:-1]):
            return None
    if isinstance(size, Node):  # of a dynamic size: a whole row
        size = None
    limits = (int(low), int(high))
    return Quantization(tensor.meta["val"].dtype, limits, scale, zero_point, size)


def _of_groups(given: Mapping[str, Any]) -> Quantization:
    """How `orchestrator::dequantize_groups` dequantizes."""
    bits, minimum = given["bits"], given["mins"]
    low = 0 if bits == 4 and minimum is not None else -(1 << bits - 1)
    limits = (low, low + (1 << bits) - 1)
    dtype = given["q"].meta["val"].dtype
    return Quantization(dtype, limits, given["scales"], None, given["group"], minimum)


# Which constants are 0 throughout, by target, of programs that were noted.
_NOTED_ZEROS: WeakKeyDictionary[ExportedProgram, Mapping[str, bool]] = WeakKeyDictionary()


def note_zeros(program: ExportedProgram, zeros: Mapping[str, bool]) -> None:
    """Have `is_zero` go by what `zero_constants` saw while the constants had data.

    Partitioners see programs whose constants have none.
    """
    _NOTED_ZEROS[program] = zeros


def is_zero(value: object, program: ExportedProgram) -> bool:
    """Whether a zero point is known to be 0 throughout.

    Args:
        value: a number, a placeholder of a constant, or None for a zero point that is left out.
        program: that the placeholder belongs to.
    """
    if value is None or isinstance(value, (int, float)):
        return not value
    if not isinstance(value, Node):
        return False
    spec = next((s for s in program.graph_signature.input_specs if s.arg.name == value.name), None)
    target = None if spec is None else spec.target
    noted = _NOTED_ZEROS.get(program, {}).get(target or "")
    if noted is not None:
        return noted
    tensor = program.state_dict.get(target, program.constants.get(target))
    if not isinstance(tensor, torch.Tensor) or isinstance(tensor, FakeTensor):
        return False
    return not bool(tensor.any())


def zero_constants(program: ExportedProgram) -> dict[str, bool]:
    """Return which zero points of a program's constants are 0 throughout, by their targets."""
    targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    points = (
        found.zero_point
        for node in program.graph.nodes
        if is_dequantize(node) and (found := quantization(node)) is not None
    )
    return {
        target: is_zero(point, program)
        for point in points
        if isinstance(point, Node) and (target := targets.get(point.name)) is not None
    }
