"""Single atoms as programs of their own, to be measured one by one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from orchestrator.graph.queries import constant_nodes, dtype_name, expected_shape, op_name
from orchestrator.planner import Layout

CHANNELS_LAST_RANK = 4


@dataclass(frozen=True)
class AtomProgram:
    """An atom cut out of a program.

    key: equal for atoms that do the same work: ops, attributes, sizes, dtypes and layout.
    label: for people. program: in the edge dialect, with seeded random weights and static sizes.
    example_inputs: seeded random inputs, in the layout that was asked for.
    """

    key: str
    label: str
    program: ExportedProgram
    example_inputs: tuple[torch.Tensor, ...]


class NotMeasurableError(ValueError):
    """An atom that cannot stand alone, such as one that takes a number computed elsewhere."""


def signature(nodes: Sequence[Node], constants: set[Node], layout: Layout) -> str:
    """A digest of everything that an atom's time depends on, the machine apart."""
    numbers: dict[Node, str] = {}

    def name(node: Node) -> Any:
        if node not in numbers:
            kind = "c" if node in constants else "x"
            numbers[node] = f"{kind}{len(numbers)}:{_value_text(node)}"
        return numbers[node]

    lines = []
    for node in nodes:
        arguments = pytree.tree_map_only(Node, name, (list(node.args), dict(node.kwargs)))
        lines.append([op_name(node), str(arguments), _value_text(node)])
        numbers[node] = f"n{len(numbers)}"
    text = json.dumps([lines, layout.value])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _value_text(node: Node) -> str:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else [value]
    return ",".join(
        f"{dtype_name(item.dtype)}{list(expected_shape(item))}"
        if isinstance(item, torch.Tensor)
        else type(item).__name__
        for item in values
    )


def label(nodes: Sequence[Node]) -> str:
    """A short description: the ops and the first input's and the output's sizes."""
    ops = "+".join(op_name(node).split(".")[1] for node in nodes if "." in op_name(node))
    first = next((n for n in nodes[0].all_input_nodes if "val" in n.meta), nodes[0])
    return f"{ops} {_value_text(first)} -> {_value_text(nodes[-1])}"


class _Extraction:
    """Builds the graph and signature of one atom."""

    def __init__(self, ep: ExportedProgram, nodes: Sequence[Node], layout: Layout) -> None:
        self._ep = ep
        self._nodes = nodes
        self._members = set(nodes)
        self._layout = layout
        self._constants = constant_nodes(ep)
        self._copies: dict[Node, Node] = {}
        self._graph = Graph()
        self._inputs: list[InputSpec] = []
        self._state: dict[str, torch.Tensor] = {}
        self._examples: list[torch.Tensor] = []
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._generator = torch.Generator().manual_seed(0)

    def run(self) -> AtomProgram:
        sources = dict.fromkeys(
            source
            for node in self._nodes
            for source in node.all_input_nodes
            if source not in self._members
        )
        # The verifier wants weights before inputs.
        for source in sorted(sources, key=lambda node: node not in self._constants):
            self._add_input(source)
        for node in self._nodes:
            copied = self._graph.node_copy(node, lambda n: self._copies[n])
            copied.meta = self._meta(node)
            self._copies[node] = copied
        outputs = [
            node
            for node in self._nodes
            if isinstance(node.meta.get("val"), torch.Tensor)
            and (not node.users or any(user not in self._members for user in node.users))
        ]
        if not outputs:
            raise NotMeasurableError(f"{self._nodes[0].name} has no tensor result")
        self._graph.output([self._copies[node] for node in outputs])
        return AtomProgram(
            signature(self._nodes, self._constants, self._layout),
            label(self._nodes),
            self._program([self._copies[node].name for node in outputs]),
            tuple(self._examples),
        )

    def _add_input(self, source: Node) -> None:
        value = source.meta.get("val")
        if not isinstance(value, torch.Tensor):
            raise NotMeasurableError(
                f"{self._nodes[0].name} takes {source.name}, which is no tensor"
            )
        placeholder = self._graph.placeholder(source.name)
        self._copies[source] = placeholder
        argument = TensorArgument(name=placeholder.name)
        data = self._random(value, source)
        if source in self._constants:
            placeholder.meta = {"val": self._fake(data)}
            target = f"w{len(self._state)}"
            self._state[target] = data
            self._inputs.append(InputSpec(InputKind.BUFFER, argument, target, persistent=True))
        else:
            data = self._laid_out(data)
            placeholder.meta = {"val": self._fake(data)}
            self._examples.append(data)
            self._inputs.append(InputSpec(InputKind.USER_INPUT, argument, None))

    def _random(self, value: torch.Tensor, source: Node) -> torch.Tensor:
        shape = expected_shape(value)
        if value.dtype.is_floating_point:
            data = torch.randn(shape, generator=self._generator).to(value.dtype)
            # A norm's running variance, among others, must not be negative.
            return data.abs() + 0.5 if source in self._constants and len(shape) == 1 else data
        if value.dtype == torch.bool:
            return torch.rand(shape, generator=self._generator) > 0.5
        return torch.zeros(shape, dtype=value.dtype)

    def _laid_out(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._layout is Layout.CHANNELS_LAST and tensor.dim() == CHANNELS_LAST_RANK:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor.contiguous()

    def _fake(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._mode.from_tensor(tensor, static_shapes=True)

    def _meta(self, node: Node) -> dict[str, Any]:
        """The result as the op itself gives it for these inputs: it decides the dim order."""
        arguments = pytree.tree_map_only(
            Node, lambda n: self._copies[n].meta["val"], (list(node.args), dict(node.kwargs))
        )
        assert callable(node.target)
        with self._mode:
            return {"val": node.target(*arguments[0], **arguments[1])}

    def _program(self, outputs: list[str]) -> ExportedProgram:
        module = GraphModule(torch.nn.Module(), self._graph)
        inputs = [s.arg.name for s in self._inputs if s.kind is InputKind.USER_INPUT]
        call = ModuleCallSignature(
            inputs=[],
            outputs=[],
            in_spec=pytree.tree_flatten((tuple(inputs), {}))[1],
            out_spec=pytree.tree_flatten(tuple(outputs))[1],
        )
        return ExportedProgram(
            root=module,
            graph=module.graph,
            graph_signature=ExportGraphSignature(
                input_specs=self._inputs,
                output_specs=[
                    OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(name=name), None)
                    for name in outputs
                ],
            ),
            state_dict=self._state,
            range_constraints={},
            module_call_graph=[ModuleCallEntry("", call)],
            constants={},
            verifiers=[self._ep.verifier],
        )


def extract(ep: ExportedProgram, nodes: Sequence[Node], layout: Layout) -> AtomProgram:
    """Cuts an atom out of an edge-dialect program, with its expected sizes made static.

    Args:
        nodes: the atom's, in graph order.
        layout: that rank-4 inputs and outputs have.

    Raises:
        NotMeasurableError: when the atom cannot stand alone.
    """
    if any(_symbolic_arguments(node) for node in nodes):
        raise NotMeasurableError(f"{nodes[0].name} takes sizes that are known only at run time")
    return _Extraction(ep, nodes, layout).run()


def _symbolic_arguments(node: Node) -> bool:
    leaves = pytree.tree_leaves((node.args, dict(node.kwargs)))
    return any(
        isinstance(leaf, torch.SymInt)
        or (isinstance(leaf, Node) and isinstance(leaf.meta.get("val"), torch.SymInt))
        for leaf in leaves
    )
