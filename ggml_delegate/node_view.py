"""What an op rule sees of a node of an exported graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

Size = int | torch.SymInt

# Of the ops that stand for aten's where these must not be decomposed; see recurrent_ops.py.
PRESERVED_NAMESPACE = "ggml_delegate"

# The kinds of placeholder whose tensors are fixed at lowering time.
_CONSTANT_KINDS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


DEQUANTIZE_HALF = "orchestrator.dequantize_half.default"


class Constants:
    """The constant tensors of an exported program, by placeholder node name."""

    def __init__(self, program: ExportedProgram) -> None:
        signature = program.graph_signature
        mutated = set(signature.buffers_to_mutate.values())
        self._targets = {
            spec.arg.name: spec
            for spec in signature.input_specs
            if spec.kind in _CONSTANT_KINDS and spec.target not in mutated
        }
        self._program = program

    def __contains__(self, node: object) -> bool:
        return isinstance(node, torch.fx.Node) and node.name in self._targets

    def tensor(self, node: torch.fx.Node) -> torch.Tensor:
        """The constant's data.

        Raises:
            KeyError: when the node is no constant.
        """
        spec = self._targets[node.name]
        target = spec.target
        assert target is not None
        if target in self._program.state_dict:
            value = self._program.state_dict[target]
        else:
            value = self._program.constants[target]
        assert isinstance(value, torch.Tensor)
        return value.detach()


def op_name(node: torch.fx.Node) -> str:
    """The op's name without its dialect, e.g. "aten.convolution.default"; "" for other nodes.

    Edge overloads name themselves "aten.add.Tensor", ATen's "aten::add.Tensor". Ops that stand for
    one of aten's have its name.
    """
    if node.op != "call_function":
        return ""
    overload: object = node.target
    if not isinstance(overload, torch._ops.OpOverload):
        overload = getattr(overload, "_op", None)  # an edge overload wraps ATen's
    if isinstance(overload, torch._ops.OpOverload):
        namespace = overload.namespace.replace(PRESERVED_NAMESPACE, "aten")
        return f"{namespace}.{overload._opname}.{overload._overloadname}"
    return str(getattr(node.target, "__name__", ""))


def node_value(node: object) -> Any:
    """The fake tensor(s), number or SymInt that a node stands for; None for anything else."""
    return node.meta.get("val") if isinstance(node, torch.fx.Node) else None


def stored_half(node: torch.fx.Node, constants: Constants) -> torch.fx.Node | None:
    """The constant of a half type that a node makes float32 of, or None."""
    if op_name(node) != DEQUANTIZE_HALF:
        return None
    half = node.args[0]
    return half if isinstance(half, torch.fx.Node) and half in constants else None


class NodeView:
    """A call node with its arguments and their metadata. Tensor data is read only by constant()."""

    def __init__(self, fx: torch.fx.Node, constants: Constants) -> None:
        self.fx = fx
        self.constants = constants

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """Argument number `index`, called `name` in the op's schema; SymInts stay SymInts."""
        value = default
        if index < len(self.fx.args):
            value = self.fx.args[index]
        elif name in self.fx.kwargs:
            value = self.fx.kwargs[name]
        return _resolve(value)

    def arguments(self) -> dict[str, Any]:
        """All arguments by their names in the op's schema, defaults included; nodes stay nodes."""
        target: Any = self.fx.target
        schema = target._schema.arguments
        given = {argument.name: argument.default_value for argument in schema}
        given |= dict(zip(given, self.fx.args, strict=False))
        return given | dict(self.fx.kwargs)

    def node(self, index: int, name: str = "") -> torch.fx.Node | None:
        """The node given as argument number `index`, or None."""
        value: Any = None
        if index < len(self.fx.args):
            value = self.fx.args[index]
        elif name:
            value = self.fx.kwargs.get(name)
        return value if isinstance(value, torch.fx.Node) else None

    def value(self, index: int) -> torch.Tensor | None:
        """The fake tensor given as argument number `index`, or None."""
        value = node_value(self.node(index))
        return value if isinstance(value, torch.Tensor) else None

    def sizes(self, index: int) -> list[Size]:
        """Sizes of tensor argument number `index`."""
        value = self.value(index)
        return [] if value is None else list(value.shape)

    def rank(self, index: int) -> int:
        """Rank of tensor argument number `index`."""
        return len(self.sizes(index))

    def dtype(self, index: int) -> torch.dtype | None:
        """Dtype of tensor argument number `index`."""
        value = self.value(index)
        return None if value is None else value.dtype

    def static(self, index: int) -> bool:
        """Whether tensor argument number `index` has no symbolic size."""
        return all(isinstance(size, int) for size in self.sizes(index))

    def out(self, index: int = 0) -> torch.Tensor:
        """The fake tensor of result number `index`."""
        value = node_value(self.fx)
        if isinstance(value, (tuple, list)):
            value = value[index]
        assert isinstance(value, torch.Tensor), f"{self.fx.name} has no tensor result"
        return value

    def out_sizes(self, index: int = 0) -> list[Size]:
        """Sizes of result number `index`."""
        return list(self.out(index).shape)

    def out_dtype(self, index: int = 0) -> torch.dtype:
        """Dtype of result number `index`."""
        return self.out(index).dtype

    def is_constant(self, index: int) -> bool:
        """Whether argument number `index` is a parameter, buffer or lifted constant."""
        return self.node(index) in self.constants

    def constant(self, index: int) -> torch.Tensor | None:
        """The data of a constant argument, or None."""
        node = self.node(index)
        return self.constants.tensor(node) if node is not None and node in self.constants else None

    def weight(self, index: int) -> torch.Tensor | None:
        """The data of a constant argument, in a half type if floats are made of that; or None."""
        node = self.node(index)
        half = None if node is None else stored_half(node, self.constants)
        return self.constant(index) if half is None else self.constants.tensor(half)

    def is_weight(self, index: int) -> bool:
        """Whether weight() has data of argument number `index`."""
        node = self.node(index)
        return node is not None and (
            node in self.constants or stored_half(node, self.constants) is not None
        )

    def producer(self, index: int) -> NodeView | None:
        """The call that computes argument number `index`, or None."""
        node = self.node(index)
        if node is None or node.op != "call_function":
            return None
        return NodeView(node, self.constants)

    def tensors(self) -> Sequence[tuple[torch.fx.Node, torch.Tensor]]:
        """All tensor arguments, as nodes with their fake tensors."""
        return [
            (node, value)
            for node in self.fx.all_input_nodes
            if isinstance(value := node_value(node), torch.Tensor)
        ]


def _resolve(value: Any) -> Any:
    """Replaces nodes that stand for numbers by their SymInt/SymFloat/number."""
    if isinstance(value, torch.fx.Node):
        meta = node_value(value)
        return value if meta is None or isinstance(meta, (torch.Tensor, tuple, list)) else meta
    if isinstance(value, (list, tuple)):
        return [_resolve(item) for item in value]
    return value
