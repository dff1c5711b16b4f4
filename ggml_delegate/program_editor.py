"""Edits a copy of an ExportedProgram: graph, parameters and signature stay consistent.

`torch.export` keeps a tensor in four places at once: a placeholder node, an input spec, an entry in
`state_dict` or `constants`, and the placeholder's fake value. A rewrite that forgets one of them
yields a program that validates today and fails in the next pass, so every pass edits through this
class.
"""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, Node

_TENSOR_KINDS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


class ProgramEditor:
    """A private copy of `program` that can be edited and turned into a new program.

    The graph is copied, tensors are shared with `program` and never written to.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self._source = program
        self._module = copy.deepcopy(program.graph_module)
        self.graph: Graph = self._module.graph
        for node, original in zip(self.graph.nodes, program.graph.nodes, strict=True):
            node.name = original.name  # copying renames nodes called as a builtin, such as "input"
        self._specs = {str(spec.arg.name): spec for spec in program.graph_signature.input_specs}
        self._state_dict: dict[str, torch.Tensor] = dict(program.state_dict)
        self._constants = dict(program.constants)
        self._renamed: dict[str, str] = {}
        mutations = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION)
        self._outputs = list(program.graph_signature.output_specs)
        self._mutated = {spec.target for spec in self._outputs if spec.kind in mutations}

    def target_of(self, node: Node) -> str | None:
        """The qualified name of the parameter, buffer or constant behind a placeholder, if any."""
        spec = self._specs.get(node.name) if node.op == "placeholder" else None
        return spec.target if spec is not None and spec.kind in _TENSOR_KINDS else None

    def constant(self, node: object) -> torch.Tensor | None:
        """The tensor behind a placeholder that nothing in the program writes to, else None.

        Before functionalization a write is an in-place op on the placeholder or on a view of it,
        afterwards an output that the signature maps to the buffer; both are seen.
        """
        if not isinstance(node, Node):
            return None
        target = self.target_of(node)
        if target is None or target in self._mutated or is_written(node):
            return None
        return self.tensor(node)

    def tensor(self, node: Node) -> torch.Tensor | None:
        """The tensor behind a placeholder, if any: what a buffer that is written to starts with."""
        target = self.target_of(node)
        value = (
            None if target is None else self._state_dict.get(target, self._constants.get(target))
        )
        return value if isinstance(value, torch.Tensor) else None

    def is_written(self, node: Node) -> bool:
        """Whether an in-place op may change a node's result, directly or through a view of it."""
        return is_written(node)

    def is_tied(self, node: Node) -> bool:
        """Whether another placeholder in use stands for the same memory as `node`'s tensor."""
        tensor = self.constant(node)
        if tensor is None:
            return False
        others = (
            n for n in self.graph.nodes if n.op == "placeholder" and n is not node and n.users
        )
        return any(_same_memory(tensor, self.constant(other)) for other in others)

    def add_parameter(self, target: str, value: torch.Tensor) -> Node:
        """Adds a parameter and returns its placeholder.

        Args:
            target: Wanted fully qualified name; a number is appended if the name is taken.
            value: The tensor; it is stored without a copy and does not require grad.
        """
        target = _unique(target, self._state_dict.keys() | self._constants.keys())
        before = self._first_node_after_parameters()
        name = "p_" + re.sub(r"\W", "_", target)
        with self.graph.inserting_before(before):
            node = self.graph.create_node("placeholder", name, name=name)
        node.target = node.name
        parameter = torch.nn.Parameter(value, requires_grad=False)
        node.meta["val"] = self._fake_mode(before).from_tensor(parameter, static_shapes=True)
        self._state_dict[target] = parameter
        argument = TensorArgument(name=node.name)
        self._specs[node.name] = InputSpec(InputKind.PARAMETER, argument, target)
        return node

    def set_constant(self, node: Node, value: torch.Tensor) -> None:
        """Puts another tensor of the same sizes and dtype behind a placeholder of a constant.

        Other placeholders of the same name get it too.
        """
        target = self.target_of(node)
        assert target is not None
        for tensors in (self._state_dict, self._constants):
            if target in tensors:
                old = tensors[target]
                is_parameter = isinstance(old, torch.nn.Parameter)
                tensors[target] = (
                    torch.nn.Parameter(value, requires_grad=False) if is_parameter else value
                )
        fake = node.meta["val"].fake_mode.from_tensor(value, static_shapes=True)
        for other in self.graph.nodes:
            if other.op == "placeholder" and self.target_of(other) == target:
                other.meta["val"] = fake

    def declare_mutated(self, node: Node) -> None:
        """Has the program count as writing to a buffer that it only reads: what was in it.

        No op computes that; the program returns the buffer's placeholder as its new value.
        """
        target = self.target_of(node)
        assert target is not None
        assert self._specs[node.name].kind == InputKind.BUFFER
        output = self.graph.output_node()
        (results,) = output.args
        output.args = ((node, *results),)  # type: ignore[misc]
        argument = TensorArgument(name=node.name)
        self._outputs.insert(0, OutputSpec(OutputKind.BUFFER_MUTATION, argument, target))
        self._mutated.add(target)

    def rename(self, node: Node, target: str) -> None:
        """Gives a buffer another qualified name, which nothing in the program has yet."""
        spec = self._specs[node.name]
        old = spec.target
        assert old is not None
        assert spec.kind == InputKind.BUFFER
        self._specs[node.name] = replace(spec, target=target)
        self._outputs = [
            replace(each, target=target)
            if each.target == old and each.kind == OutputKind.BUFFER_MUTATION
            else each
            for each in self._outputs
        ]
        for tensors in (self._state_dict, self._constants):
            if old in tensors:
                tensors[target] = tensors.pop(old)
        if old in self._mutated:
            self._mutated = self._mutated - {old} | {target}

    def replace(self, old: Node, new: Node) -> None:
        """Hands all uses of `old` to `new`; `old` stays in the graph until it is erased."""
        old.replace_all_uses_with(new)
        self._renamed[old.name] = new.name

    def remove_if_unused(self, nodes: Iterable[Node]) -> None:
        """Removes placeholders without users together with their specs and tensors.

        Tensors that another placeholder still names stay. User inputs are never removed.
        """
        for node in nodes:
            target = self.target_of(node)
            if target is None or node.users or target in self._mutated:
                continue
            self.graph.erase_node(node)
            del self._specs[node.name]
            if all(spec.target != target for spec in self._specs.values()):
                self._state_dict.pop(target, None)
                self._constants.pop(target, None)

    def placeholder_for(self, target: str) -> Node | None:
        """The placeholder of the parameter or buffer with this fully qualified name, if any."""
        nodes = (node for node in self.graph.nodes if node.op == "placeholder")
        return next((node for node in nodes if self.target_of(node) == target), None)

    def finish(self) -> ExportedProgram:
        """Builds the edited program and runs its verifiers."""
        self.graph.lint()
        self._module.recompile()
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        signature = ExportGraphSignature(
            input_specs=[self._specs[node.name] for node in placeholders],
            output_specs=[self._renamed_output(spec) for spec in self._outputs],
        )
        calls = copy.deepcopy(self._source.module_call_graph)
        for call in calls:
            if call.signature is not None:
                for argument in (*call.signature.inputs, *call.signature.outputs):
                    argument.name = self._final_name(argument.name)
        program = ExportedProgram(
            root=self._module,
            graph=self.graph,
            graph_signature=signature,
            state_dict=self._state_dict,
            range_constraints=copy.deepcopy(self._source.range_constraints),
            module_call_graph=calls,
            example_inputs=self._source.example_inputs,
            constants=self._constants,
            verifiers=self._source.verifiers,
        )
        program.validate()  # type: ignore[no-untyped-call]
        return program

    def _renamed_output(self, spec: OutputSpec) -> OutputSpec:
        if not isinstance(spec.arg, TensorArgument):
            return spec
        return OutputSpec(spec.kind, TensorArgument(self._final_name(spec.arg.name)), spec.target)

    def _final_name(self, name: str) -> str:
        while name in self._renamed:
            name = self._renamed[name]
        return name

    def _first_node_after_parameters(self) -> Node:
        """Where new parameters go: `torch.export` orders a program's inputs by kind."""
        kinds = (InputKind.TOKEN, InputKind.PARAMETER)
        node: Node
        for node in self.graph.nodes:
            if node.op != "placeholder" or self._specs[node.name].kind not in kinds:
                break
        return node

    def _fake_mode(self, before: Node) -> torch._subclasses.FakeTensorMode:
        values = (node.meta.get("val") for node in self.graph.nodes)
        modes = (v.fake_mode for v in values if isinstance(v, torch._subclasses.FakeTensor))
        mode = next(modes, None)
        if mode is None:
            raise ValueError(
                f"cannot add a parameter before '{before.name}': no node of the program has a "
                "tensor value in meta['val']; pass a program made by torch.export.export"
            )
        return mode


def rewrite_each(
    program: ExportedProgram,
    fits: Callable[[Node], bool],
    rewrite: Callable[[ProgramEditor, Node], None],
) -> ExportedProgram:
    """Returns a program in which every node that fits is rewritten, then erased.

    Args:
        program: ATen-dialect program as `torch.export.export` gives it; it is left as it was, and
            returned itself where nothing fits.
        fits: Whether to rewrite a node.
        rewrite: Hands the uses of the node to others, which it makes in front of it.
    """
    if not any(fits(node) for node in program.graph.nodes):
        return program
    editor = ProgramEditor(program)
    for node in [node for node in editor.graph.nodes if fits(node)]:
        with editor.graph.inserting_before(node):
            rewrite(editor, node)
        editor.graph.erase_node(node)
    return editor.finish()


def is_written(node: Node, *, by_higher_order: bool = True) -> bool:
    """Whether an in-place op may change a node's value, directly or through a view of it.

    Only before functionalization: there are no such ops afterwards.

    Args:
        node: Any node.
        by_higher_order: Whether to suspect control flow, which may do anything with its operands.
    """
    return any(_writes(user, node, by_higher_order) for user in node.users)


def named_arguments(node: Node) -> dict[str, object]:
    """The arguments that a call of an operator gives, by their names in its schema."""
    assert isinstance(node.target, torch._ops.OpOverload)
    names = (argument.name for argument in node.target._schema.arguments)
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def _writes(user: Node, node: Node, by_higher_order: bool) -> bool:
    """Whether `user`, or a user of a view that it makes of `node`, may write to `node`'s tensor."""
    if user.op == "output":
        return False
    if user.target is operator.getitem:
        return any(_writes(next_user, user, by_higher_order) for next_user in user.users)
    if not isinstance(user.target, torch._ops.OpOverload):
        return by_higher_order
    given = named_arguments(user)
    aliased = [
        argument.alias_info
        for argument in user.target._schema.arguments
        if argument.alias_info is not None and _holds(given.get(argument.name), node)
    ]
    if any(alias.is_write for alias in aliased):
        return True
    return bool(aliased) and any(
        _writes(next_user, user, by_higher_order) for next_user in user.users
    )


def _holds(value: object, node: Node) -> bool:
    return value is node or (isinstance(value, (list, tuple)) and node in value)


def _same_memory(a: torch.Tensor, b: torch.Tensor | None) -> bool:
    return b is not None and a.data_ptr() == b.data_ptr() and a.shape == b.shape
