"""State that delegates change where it lies, so that no copy of it is made.

ExecuTorch hands a buffer's new value, which some op gives, to the buffer by a copy at the end.
Where a delegate may write it into the buffer's own memory, that copy is of what is there already:
buffer and result become one value of the program, and the copy goes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from executorch.exir import ExecutorchBackendConfig, memory
from executorch.exir.delegate import executorch_call_delegate
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from executorch.exir.pass_base import PassResult
from executorch.exir.tensor import TensorSpec
from torch.export.graph_signature import ExportGraphSignature, OutputKind
from torch.fx import GraphModule, Node

from orchestrator.backends import Backend

InPlaceResults = Callable[[Any], Mapping[int, int]]
"""By the numbers of a lowered module's results, the arguments whose memory they may have."""


def in_place_config(
    config: ExecutorchBackendConfig | None, backends: Iterable[Backend], methods: Iterable[str]
) -> ExecutorchBackendConfig:
    """Return a configuration under which delegates change state where it lies.

    Args:
        config: the user's, or None for the default; its memory planning is kept.
        backends: those whose delegates the program may have.
        methods: the names of its methods.
    """
    known = {backend.backend_id: backend for backend in backends}

    def results(lowered: Any) -> Mapping[int, int]:
        backend = known.get(lowered.backend_id)
        return {} if backend is None else backend.in_place_results(lowered.processed_bytes)

    config = config or ExecutorchBackendConfig()
    planning: Any = config.memory_planning_pass
    if isinstance(planning, Mapping):
        default = ExecutorchBackendConfig().memory_planning_pass
        wrapped: Any = {
            name: InPlacePlanning(planning.get(name, default), results) for name in methods
        }
    else:
        wrapped = InPlacePlanning(planning, results)
    return replace(config, memory_planning_pass=wrapped)


class InPlacePlanning:
    """Memory planning, before which buffers and their new values are made one.

    planning: the pass that plans. results: see `InPlaceResults`.
    """

    def __init__(self, planning: Any, results: InPlaceResults) -> None:
        self._planning = planning
        self._results = results

    @property
    def enable_non_cpu_memory_planning(self) -> bool:
        """As of the pass that plans: ExecuTorch sets it."""
        return bool(getattr(self._planning, "enable_non_cpu_memory_planning", False))

    @enable_non_cpu_memory_planning.setter
    def enable_non_cpu_memory_planning(self, value: bool) -> None:
        if hasattr(self._planning, "enable_non_cpu_memory_planning"):
            self._planning.enable_non_cpu_memory_planning = value

    def run(
        self, graph_module: GraphModule, graph_signature: ExportGraphSignature | None = None
    ) -> PassResult:
        """Plan the memory of a program whose buffers are written back by copies."""
        if graph_signature is not None:
            update_in_place(graph_module, graph_signature, self._results)
        if hasattr(self._planning, "run"):
            return self._planning.run(graph_module, graph_signature)
        return self._planning(graph_module)

    def run_multimethod(self) -> None:
        """Plan what methods share."""
        if hasattr(self._planning, "run_multimethod"):
            self._planning.run_multimethod()


def update_in_place(
    graph_module: GraphModule, signature: ExportGraphSignature, results: InPlaceResults
) -> int:
    """Drop the copies into buffers of what a delegate may write there itself.

    Args:
        graph_module: with `spec` in the nodes' meta, and copies as
            `insert_write_back_for_buffers_pass` puts them; it is changed.
        signature: of the program; names of outputs are changed.
        results: see `InPlaceResults`.

    Returns:
        How many copies there were.
    """
    mutated = set(signature.buffers_to_mutate.values())
    buffers = {name for name, target in signature.inputs_to_buffers.items() if target in mutated}
    dropped: dict[str, str] = {}
    output = graph_module.graph.output_node()
    if not _returns_a_tensor(output, signature):
        return 0  # ExecuTorch's planning wants one
    for node in [node for node in graph_module.graph.nodes if _op(node) == _WRITE_BACK]:
        buffer, result = node.args[:2]
        if not isinstance(buffer, Node) or buffer.name not in buffers:
            continue
        if not isinstance(result, Node) or not _may_join(buffer, result, node, results):
            continue
        _join(buffer, result)
        dropped[node.name] = buffer.name
        # The output asks for no memory of its own, nor has the buffer's to follow what outputs do.
        returned: Any = output.args[0]
        output.meta["spec"] = [
            None if arg is node else spec
            for arg, spec in zip(returned, output.meta["spec"], strict=True)
        ]
        node.replace_all_uses_with(buffer)
        graph_module.graph.erase_node(node)
    if dropped:
        for spec in signature.output_specs:
            if getattr(spec.arg, "name", None) in dropped:
                spec.arg.name = dropped[spec.arg.name]
        graph_module.recompile()
    return len(dropped)


_WRITE_BACK = torch.ops.aten.copy_.default


def _returns_a_tensor(output: Node, signature: ExportGraphSignature) -> bool:
    """Whether a program gives the caller any tensor."""
    results: Any = output.args[0]
    return any(
        spec.kind == OutputKind.USER_OUTPUT
        and isinstance(arg, Node)
        and isinstance(arg.meta.get("spec"), TensorSpec)
        for spec, arg in zip(signature.output_specs, results, strict=True)
    )


def _op(node: Node) -> Any:
    return node.target._op if isinstance(node.target, EdgeOpOverload) else node.target


def _may_join(buffer: Node, result: Node, write_back: Node, results: InPlaceResults) -> bool:
    """Whether a delegate may give a buffer's new value in the buffer's memory.

    Nothing may read the old value afterwards, and the new one must not be handed to the caller,
    whose tensor would change with the buffer.
    """
    if result.target is not operator.getitem:
        return False
    call, number = result.args
    if not isinstance(call, Node) or call.target is not executorch_call_delegate:
        return False
    assert isinstance(number, int)
    lowered = getattr(call.graph.owning_module, str(call.args[0].target))  # type: ignore[union-attr]
    operand = results(lowered).get(number)
    if operand is None or call.args[1 + operand] is not buffer or call.args.count(buffer) != 1:
        return False
    if not _alike(buffer.meta.get("spec"), result.meta.get("spec")):
        return False
    order = {node: place for place, node in enumerate(call.graph.nodes)}
    old = [node for node in _readers(buffer) if node not in (call, write_back)]
    new = [node for node in _readers(result) if node is not write_back]
    return (
        all(order[node] < order[call] and not _writes(node) for node in old)
        and all(node.op != "output" and not _writes(node) for node in new)
        and buffer.graph.output_node() not in old
    )


def _readers(node: Node) -> Iterator[Node]:
    """Yield the nodes that read a node's value, be it by way of a view."""
    for user in node.users:
        yield user
        if user.target is memory.view:
            yield from _readers(user)


def _writes(node: Node) -> bool:
    """Whether a node is of an op that may change what it is given."""
    op = _op(node)
    if not isinstance(op, torch._ops.OpOverload):
        return False
    given = (each for each in op._schema.arguments if not each.is_out)
    return any(each.alias_info is not None and each.alias_info.is_write for each in given)


def _alike(one: Any, other: Any) -> bool:
    """Whether two values can be one."""
    return (
        isinstance(one, TensorSpec)
        and isinstance(other, TensorSpec)
        and one.is_static_shape_tensor
        and other.is_static_shape_tensor
        and list(one.shape) == list(other.shape)
        and one.dtype == other.dtype
        and list(one.dim_order) == list(other.dim_order)
        and not one.const
    )


def _join(buffer: Node, result: Node) -> None:
    """Make a result of a delegate call the buffer's value: nodes with one spec have one value."""
    call, number = result.args
    assert isinstance(call, Node) and isinstance(number, int)
    specs = list(call.meta["spec"])
    specs[number] = buffer.meta["spec"]
    call.meta["spec"] = tuple(specs)
    for user in call.users:
        if user.target is operator.getitem and user.args[1] == number:
            user.meta["spec"] = buffer.meta["spec"]
