"""Builds the IR program of one partition from its fx graph."""

from __future__ import annotations

import base64
import hashlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from executorch.exir._serialize._named_data_store import NamedDataStore
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from ggml_delegate import ir
from ggml_delegate.fusion import fuse_activations, fuse_grids
from ggml_delegate.in_place import in_place_pairs
from ggml_delegate.node_view import Constants, NodeView, Size, node_value, op_name
from ggml_delegate.own_sizes import own_sizes
from ggml_delegate.registry import HALF_DTYPES, find_rule
from ggml_delegate.symbols import SymbolTable

# Alignment of weights in the .pte, bytes: a cache line.
WEIGHT_ALIGNMENT = 64

_DTYPES = {
    torch.float32: ir.DType.Float32,
    torch.float16: ir.DType.Float16,
    torch.bfloat16: ir.DType.BFloat16,
    torch.int32: ir.DType.Int32,
    torch.int64: ir.DType.Int64,
    torch.bool: ir.DType.Bool,
    torch.int8: ir.DType.Int8,
    torch.uint8: ir.DType.UInt8,
}


_held: ContextVar[dict[str, bytes] | None] = ContextVar("held", default=None)


@contextmanager
def bytes_held_once() -> Iterator[None]:
    """Hold equal constants of all programs that are built inside once, until the end.

    ExecuTorch keeps what each method's partitions have until it writes the file, where equal
    constants become one.
    """
    if _held.get() is not None:
        yield
        return
    token = _held.set({})
    try:
        yield
    finally:
        _held.reset(token)


class LoweringError(RuntimeError):
    """A partition that cannot be lowered; names the node."""


class Builder:
    """Collects tensors, nodes and weights while the rules lower a partition's nodes in order."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self._constants = Constants(program)
        self._tensors: list[Any] = []
        self._nodes: list[Any] = []
        self._values: dict[torch.fx.Node, int] = {}
        self._results: dict[torch.fx.Node, dict[int, int]] = {}
        self._known: dict[tuple[Any, ...], int] = {}
        self._constant_keys: dict[tuple[str, tuple[int, ...], torch.dtype], int] = {}
        self._current: torch.fx.Node | None = None
        self.symbols = SymbolTable()
        self.named_data = NamedDataStore()

    # ---- for the rules ---------------------------------------------------------------------

    def value(self, node: torch.fx.Node | None) -> int:
        """The number of the tensor that a node stands for; constants are added on first use."""
        if node is None:
            raise self._error("a tensor argument is missing")
        if node not in self._values and node in self._constants:
            self._values[node] = self.constant(self._constants.tensor(node))
        if node not in self._values:
            raise self._error(f"argument {node.name} is not computed before it is used")
        return self._values[node]

    def constant(self, tensor: torch.Tensor) -> int:
        """Adds a constant with these sizes, in the dtype that ops read.

        int64 and bool become int32, other floats float32.
        """
        return self.weight(tensor.to(torch.float32) if tensor.dtype in HALF_DTYPES else tensor)

    def weight(self, tensor: torch.Tensor) -> int:
        """As `constant`, for tables and the weights of products: half types stay as they are.

        Equal bytes are stored once.
        """
        if tensor.dtype in (torch.int64, torch.bool):
            narrow = tensor.to(torch.int32)
            if tensor.dtype == torch.int64 and not torch.equal(narrow.to(torch.int64), tensor):
                raise self._error("a constant holds integers that do not fit int32")
            tensor = narrow
        if tensor.dtype == torch.float64:
            tensor = tensor.to(torch.float32)
        if tensor.dtype not in _DTYPES:
            raise self._error(f"a constant has dtype {tensor.dtype}")
        data = tensor.detach().cpu().contiguous()
        flat = data.view(-1) if data.dim() else data.view(1)
        raw = flat.view(torch.uint8).numpy().tobytes()
        key = _data_key(raw)
        known = (key, tuple(data.shape), data.dtype)
        if known not in self._constant_keys:
            held = _held.get()
            if held is not None:
                raw = held.setdefault(key, raw)
            self.named_data.add_named_data(key, raw, alignment=WEIGHT_ALIGNMENT)
            self._constant_keys[known] = self._add_tensor(
                list(data.shape), data.dtype, data_key=key
            )
        return self._constant_keys[known]

    def temp(
        self,
        op: Any,
        inputs: Sequence[int | None],
        sizes: Sequence[Size],
        dtype: torch.dtype = torch.float32,
    ) -> int:
        """Emits an op with an intermediate result of these sizes; returns its number."""
        output = self._add_tensor(sizes, dtype)
        self._add_node(op, inputs, [output])
        return output

    def temps(
        self, op: Any, inputs: Sequence[int | None], sizes: Sequence[Sequence[Size]]
    ) -> list[int]:
        """Emits an op with several intermediate results, float32; returns their numbers."""
        outputs = [self._add_tensor(each, torch.float32) for each in sizes]
        self._add_node(op, inputs, outputs)
        return outputs

    def once(self, op: Any, inputs: Sequence[int | None], sizes: Sequence[Size]) -> int:
        """As `temp`, float32; gives the result of an equal op on the same inputs again."""
        key = (type(op), *sorted(vars(op).items()), tuple(inputs))
        if key not in self._known:
            self._known[key] = self.temp(op, inputs, sizes)
        return self._known[key]

    def emit(self, op: Any, inputs: Sequence[int | None], node: torch.fx.Node) -> None:
        """Emits the op that computes `node`'s (only) result."""
        value = node_value(node)
        self._values[node] = self.temp(op, inputs, list(value.shape), value.dtype)

    def alias(self, node: torch.fx.Node, value: int) -> None:
        """`node` is tensor number `value`, unchanged."""
        self._values[node] = value

    def define(self, node: torch.fx.Node, results: Mapping[int, int]) -> None:
        """The results of a node that getitem nodes read: index -> tensor number."""
        self._results[node] = dict(results)

    def dim(self, size: Size) -> Any:
        """An ir.Dim for a size."""
        return self.symbols.dim(size)

    def dims(self, sizes: Sequence[Size]) -> list[Any]:
        """ir.Dims for sizes."""
        return [self.dim(size) for size in sizes]

    # ---- for preprocess --------------------------------------------------------------------

    def build(self) -> Any:
        """Lowers the whole program; returns the ir.Program object.

        Raises:
            LoweringError: when a node has no rule or a rule fails.
            UnsupportedSizeError: when a size does not follow from the sizes of the inputs.
        """
        with own_sizes(self._program):
            return self._build()

    def _build(self) -> Any:
        inputs = [self._add_input(node) for node in self._inputs()]
        for node in self._program.graph.nodes:
            if node.op == "call_function":
                self._lower(node)
        taken: set[int] = set()
        outputs = [self._add_output(node, taken) for node in self._outputs()]
        nodes = fuse_activations(fuse_grids(self._nodes, outputs), outputs)
        return ir.make(
            "Program",
            version=ir.IR_VERSION,
            tensors=self._tensors,
            nodes=nodes,
            inputs=inputs,
            outputs=outputs,
            symbols=self.symbols.symbols(),
            exprs=self.symbols.exprs(),
            bindings=self.symbols.bindings(),
            inPlace=in_place_pairs(self._tensors, nodes, inputs, outputs),
        )

    def _inputs(self) -> list[torch.fx.Node]:
        user_inputs = set(self._program.graph_signature.user_inputs)
        return [
            node
            for node in self._program.graph.nodes
            if node.op == "placeholder" and node.name in user_inputs
        ]

    def _outputs(self) -> list[torch.fx.Node]:
        for spec in self._program.graph_signature.output_specs:
            if spec.kind != OutputKind.USER_OUTPUT:
                raise LoweringError(f"output {spec.arg.name} of a partition is a {spec.kind.name}")
        results = self._program.graph.output_node().args[0]
        assert isinstance(results, (list, tuple))
        return [node for node in results if isinstance(node, torch.fx.Node)]

    def _add_input(self, node: torch.fx.Node) -> int:
        value = node_value(node)
        number = len(self._tensors)
        if isinstance(value, (int, torch.SymInt)):
            self._tensors.append(ir.make("Tensor", dtype=ir.DType.Int64, isScalar=True, dims=[]))
            self.symbols.bind(value, input=number, dim=-1)
        elif isinstance(value, torch.Tensor):
            self._add_tensor(list(value.shape), value.dtype, dim_order=value.dim_order())
            for dim, size in enumerate(value.shape):
                self.symbols.bind(size, input=number, dim=dim)
        else:
            raise LoweringError(f"input {node.name} of a partition is a {type(value).__name__}")
        self._values[node] = number
        return number

    def _add_output(self, node: torch.fx.Node, taken: set[int]) -> int:
        """The number of an output, a tensor of its own with the dim order that `node` declares."""
        self._current = node
        number = self.value(node)
        value = node_value(node)
        fresh = (
            number not in taken
            and not self._is_leaf(number)
            and self._tensors[number].dtype == _DTYPES[value.dtype]
        )
        if not fresh:
            number = self.temp(ir.Copy(), [number], list(value.shape), value.dtype)
            self._nodes[-1].name = f"{node.name}:copy"  # its name is taken in profiles
        taken.add(number)
        order = list(value.dim_order())
        self._tensors[number].dimOrder = [] if order == sorted(order) else order
        return number

    def _is_leaf(self, number: int) -> bool:
        return all(number not in node.outputs for node in self._nodes)

    def _lower(self, node: torch.fx.Node) -> None:
        self._current = node
        if node.target is operator.getitem:
            producer, index = node.args
            assert isinstance(producer, torch.fx.Node) and isinstance(index, int)
            results = self._results.get(producer, {})
            if index in results:
                self._values[node] = results[index]
            elif node.users:
                raise self._error(f"result {index} of {producer.name} is not computed")
            return
        rule = find_rule(node)
        if rule is None:
            if isinstance(node_value(node), (int, float, torch.SymInt, torch.SymFloat)):
                return  # size arithmetic: sizes are evaluated by the runtime
            raise self._error(f"there is no rule for {op_name(node) or node.target}")
        rule.lower(NodeView(node, self._constants), self)
        self._round(node)

    def _round(self, node: torch.fx.Node) -> None:
        """Rounds results that are declared in a half type and were computed in float32."""
        values = node_value(node)
        if node in self._values:
            self._values[node] = self._rounded(self._values[node], values)
        for index, number in self._results.get(node, {}).items():
            self._results[node][index] = self._rounded(number, values[index])

    def _rounded(self, number: int, value: torch.Tensor) -> int:
        tensor = self._tensors[number]
        if value.dtype not in HALF_DTYPES or tensor.dtype == _DTYPES[value.dtype]:
            return number
        if tensor.dataKey is not None and tensor.dtype == ir.DType.Float32:
            return number  # of a half type before `constant` made it float32
        return self.temp(ir.Copy(), [number], list(value.shape), value.dtype)

    def _add_tensor(
        self,
        sizes: Sequence[Size],
        dtype: torch.dtype,
        *,
        data_key: str | None = None,
        dim_order: Sequence[int] | None = None,
    ) -> int:
        if dtype not in _DTYPES:
            raise self._error(f"dtype {dtype} has no place in the IR")
        order = list(dim_order or [])
        tensor = ir.make(
            "Tensor",
            dtype=_DTYPES[dtype],
            dims=self.dims(sizes),
            dimOrder=[] if order == sorted(order) else order,
            dataKey=data_key,
        )
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _add_node(self, op: Any, inputs: Sequence[int | None], outputs: Sequence[int]) -> None:
        assert self._current is not None
        handle = self._current.meta.get("debug_handle")
        self._nodes.append(
            ir.make(
                "Node",
                opType=ir.OPS[type(op).__name__.removesuffix("T")],
                op=op,
                inputs=[-1 if number is None else number for number in inputs],
                outputs=list(outputs),
                name=self._current.name,
                debugHandles=[handle] if isinstance(handle, int) else [],
            )
        )

    def _error(self, message: str) -> LoweringError:
        where = f"{self._current.name} ({op_name(self._current)}): " if self._current else ""
        return LoweringError(f"ggml: {where}{message}")


def _data_key(data: bytes) -> str:
    """The name of a constant's bytes in the .pte. 96 bits of a hash: short, as are small files."""
    return f"ggml/{base64.urlsafe_b64encode(hashlib.sha256(data).digest()[:12]).decode()}"
