"""Spares ExecuTorch's passes traces that change nothing.

Most passes trace a program anew, node by node with fake tensors, and half of the time to bring a
small program to the edge dialect goes there. A pass that only replaces ops is not run where there
are none of them; such passes that follow each other share one trace; and a graph that a trace has
just made is not traced again by a pass that changes nothing on the way. What is decomposed in any
case is not made functional by a trace before, and is not decomposed again where nothing is left to.
A delegate that is called with what it was made for is not run to see what it returns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from executorch.exir.graph_module import contains_any_call_fn_target_op
from executorch.exir.pass_base import ExportPass, _ExportPassBase
from executorch.exir.passes.dim_order_ops_registry import DimOrderOpsMap, MemoryFormatOpsMap
from executorch.exir.passes.legalize_portable_dim_order_pass import LegalizePortableDimOrderPass
from executorch.exir.passes.memory_format_ops_pass import DimOrderOpsRevertPass, MemoryFormatOpsPass
from executorch.exir.passes.normalize_transpose_pass import NormalizeTransposePass
from executorch.exir.passes.remove_mixed_type_operators import RemoveMixedTypeOperators
from executorch.exir.passes.replace_aten_with_edge_pass import OpReplacePass, should_lower_to_edge
from executorch.exir.passes.replace_broken_ops_with_function_ops_pass import (
    ReplaceBrokenOpsWithFunctionalOpsPass,
)
from executorch.exir.passes.scalar_to_tensor_pass import ScalarToTensorPass
from executorch.exir.passes.sym_to_tensor_pass import SymToTensorPass
from executorch.exir.program import _program
from torch._export.passes.replace_view_ops_with_view_copy_ops_pass import (
    ReplaceViewOpsWithViewCopyOpsPass,
)
from torch._higher_order_ops.executorch_call_delegate import (
    call_delegate_fake_tensor_mode,
    executorch_call_delegate,
)
from torch._higher_order_ops.utils import registered_hop_fake_fns
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.fx.passes.infra.pass_base import PassBase, PassResult


def _is_view(target: Any) -> bool:
    return isinstance(target, OpOverload) and (
        target.is_view or target is torch.ops.aten._unsafe_view.default
    )


# An op of each thing that these passes change. What they do without one is to trace.
_CHANGED_OPS: dict[type[PassBase], Callable[[Any], bool]] = {
    DimOrderOpsRevertPass: lambda op: isinstance(op, EdgeOpOverload) and op in MemoryFormatOpsMap,
    LegalizePortableDimOrderPass: lambda op: op in LegalizePortableDimOrderPass._target_ops,
    MemoryFormatOpsPass: lambda op: isinstance(op, EdgeOpOverload) and op in DimOrderOpsMap,
    NormalizeTransposePass: lambda op: op == torch.ops.aten.t.default,
    OpReplacePass: should_lower_to_edge,
    ReplaceViewOpsWithViewCopyOpsPass: _is_view,
}


def changes_only(kind: type[PassBase], op: Callable[[Any], bool]) -> None:
    """Have a backend's pass run only where a graph has an op that it asks for.

    op: whether an op is one without which the pass changes nothing.
    """
    _CHANGED_OPS[kind] = op


# Passes that look at one op at a time. Each hands what it makes of it to the next of its bases, so
# that a class derived from several does what they do one after the other.
_ONE_OP_AT_A_TIME = {
    MemoryFormatOpsPass,
    NormalizeTransposePass,
    OpReplacePass,
    RemoveMixedTypeOperators,
    ReplaceBrokenOpsWithFunctionalOpsPass,
    ScalarToTensorPass,
    SymToTensorPass,
}


def _run_where_needed(run: Callable[[Any, GraphModule], Any]) -> Callable[[Any, GraphModule], Any]:
    """`PassBase.__call__`, but for graphs that have none of the ops that a pass changes."""

    def call(self: PassBase, graph_module: GraphModule) -> Any:
        changes = _CHANGED_OPS.get(type(self))
        if changes is None or any(changes(node.target) for node in _calls(graph_module)):
            return run(self, graph_module)
        return PassResult(graph_module, modified=False)

    return call


def _calls(graph_module: GraphModule) -> Iterator[torch.fx.Node]:
    for module in graph_module.modules():
        if isinstance(module, GraphModule):
            yield from (node for node in module.graph.nodes if node.op == "call_function")


def in_one_trace(passes: Sequence[Any]) -> list[Any]:
    """Return passes that do what the given ones do, in order, with fewer traces."""
    groups: list[list[Any]] = []
    for each in passes:
        inner = getattr(each, "__wrapped__", each)
        joins = type(inner) in _ONE_OP_AT_A_TIME
        previous = groups[-1] if groups else []
        if joins and previous and type(previous[-1]) in _ONE_OP_AT_A_TIME:
            previous.append(inner)
        else:
            groups.append([inner if joins else each])
    return [_joined(tuple(map(type, group)))() if len(group) > 1 else group[0] for group in groups]


@functools.cache
def _joined(classes: tuple[type[Any], ...]) -> type[Any]:
    return type("And".join(each.__name__ for each in classes), classes, {})


_Passes = tuple[list[Any], list[Any]]


def _in_fewer_traces(passes_of: Callable[[Any], _Passes]) -> Callable[[Any], _Passes]:
    """`_get_aten_to_edge_passes`, with those that its callers run right after them.

    These have nothing to do any more when they are run.
    """

    def fewer(config: Any) -> _Passes:
        before, after = passes_of(config)
        more: list[Any] = [OpReplacePass()]
        if not config._skip_dim_order:
            more.append(MemoryFormatOpsPass())
        return in_one_trace([*before, *more]), after

    return fewer


# What a pass may do otherwise than ExportPass while it traces.
_HOOKS = (
    *("ExportInterpreter", "ExportTracer", "call_cond", "call_delegate", "call_getitem"),
    *("call_map", "call_operator", "call_scan", "call_submodule", "call_sym", "call_while"),
    *("inputs", "on_attr", "output", "placeholder", "_fx"),
)
# Where a graph that a trace has made keeps what it consisted of then.
_MADE = "_parts_when_traced"


def _traced_where_changed(
    trace: Callable[[Any, GraphModule], PassResult],
) -> Callable[[Any, GraphModule], PassResult]:
    """`ExportPass.call`, but for graphs that it would make again as they are."""

    def call(self: _ExportPassBase, graph_module: GraphModule) -> PassResult:
        changes_nothing = isinstance(self, ExportPass) and all(
            getattr(type(self), hook) is getattr(ExportPass, hook) for hook in _HOOKS
        )
        if changes_nothing and _as_it_was_made(graph_module):
            return PassResult(graph_module, modified=True)
        result = trace(self, graph_module)
        setattr(result.graph_module.graph, _MADE, _parts(result.graph_module))
        return result

    return call


def _as_it_was_made(graph_module: GraphModule) -> bool:
    before = getattr(graph_module.graph, _MADE, None)
    if before is None:
        return False
    now = _parts(graph_module)
    return len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))


def _parts(graph_module: GraphModule) -> list[Any]:
    """All that a trace depends on; FX gives a node new arguments where some of them change."""
    parts: list[Any] = []
    for module in graph_module.modules():
        if not isinstance(module, GraphModule):
            continue
        parts.append(module.graph)
        for node in module.graph.nodes:
            value = node.meta.get("val")
            parts += (node, node.target, node._args, node._kwargs)
            parts += value if isinstance(value, (tuple, list)) else (value,)
            if node.op == "get_attr":
                parts.append(_attribute(module, node.target))
    return parts


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


# What a program that was decomposed before has, for as long as it lives.
_DECOMPOSED = "_was_decomposed"
# Ops that tables name, but that traces of functional programs give again as they are.
_STAY = {torch.ops.aten.sym_size.int}
# What one has that is about to be decomposed, until it would be made functional.
_SOON_DECOMPOSED = "_is_decomposed_next"


def _run_where_any(run: Callable[..., ExportedProgram]) -> Callable[..., ExportedProgram]:
    """`ExportedProgram.run_decompositions`, but for functional programs with none of a table's ops.

    ExecuTorch runs it once with an empty table, so that a program is functional, then with what no
    backend wants preserved, then with all. Each makes the program functional, so that the first is
    left out where the second follows whatever the program is. ExecuTorch itself leaves out the
    second, by the same rule as here, where no backend says node by node what it wants. An empty
    table gives a new program in all other cases.
    """

    def decomposed(
        self: ExportedProgram, decomp_table: Any = None, *more: Any, **named: Any
    ) -> Any:
        may_skip = bool(decomp_table) and not more and not named
        if decomp_table == {} and self.__dict__.pop(_SOON_DECOMPOSED, False):
            return self
        if may_skip and getattr(self, _DECOMPOSED, False):
            changes = decomp_table.keys() - _STAY
            if not contains_any_call_fn_target_op(self.graph_module, changes):
                return self
        # Nodes keep the trace of what they were made from; those without one would get torch's own.
        with mock.patch.object(torch.fx.config, "do_not_emit_stack_traces", True):
            program = run(self, decomp_table, *more, **named)
        setattr(program, _DECOMPOSED, True)
        return program

    return decomposed


_Transforms = Callable[[ExportedProgram, list[Any]], ExportedProgram]


def _soon_decomposed(transform: _Transforms) -> _Transforms:
    """`_apply_pre_decomposition_transforms`, noting what ExecuTorch decomposes in any case.

    It makes the program functional right after this, then asks the first partitioner what to
    preserve: with a filter of nodes, which is asked later, what has none in it is decomposed.
    """

    def transformed(program: ExportedProgram, partitioners: list[Any]) -> ExportedProgram:
        result = transform(program, partitioners)
        for first in partitioners[:1]:
            _, keeps = first.ops_to_not_decompose(result)
            if keeps is not None:
                setattr(result, _SOON_DECOMPOSED, True)
        return result

    return transformed


def _as_when_partitioned(run: Callable[..., Any]) -> Callable[..., Any]:
    """What a delegate returns for fake tensors, without going through its program where that knows.

    ExecuTorch runs a delegate's program op by op whenever a trace comes upon its call. Given what
    the program's own inputs are, it returns what its own outputs are.
    """

    def results(lowered_module: Any, *args: Any) -> Any:
        program = lowered_module.original_module
        nodes = program.graph.find_nodes(op="placeholder")
        given = [node.meta.get("val") for node in nodes[len(nodes) - len(args) :]]
        (output,) = program.graph.find_nodes(op="output")
        values: list[Any] = [getattr(node, "meta", {}).get("val") for node in output.args[0]]
        tensors = (*args, *given, *values)
        if (
            len(program.graph_signature.user_inputs) != len(args)
            or len(program.graph_signature.user_outputs) != len(values)
            or not all(isinstance(each, FakeTensor) for each in tensors)
            or len({each.fake_mode for each in tensors}) > 1
            or not all(map(_alike, args, given))
            or any(map(free_unbacked_symbols, values))
        ):
            return run(lowered_module, *args)
        made = [
            torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device=each.device)
            for each in values
        ]
        return torch.utils._pytree.tree_unflatten(made, program.call_spec.out_spec)

    return results


def _alike(one: FakeTensor, other: FakeTensor) -> bool:
    """Whether two fake tensors are the same but for what they hold."""
    sizes = [(*each.shape, *each.stride()) for each in (one, other)]
    return one.dtype == other.dtype and all(
        getattr(getattr(a, "node", a), "expr", a) == getattr(getattr(b, "node", b), "expr", b)
        for a, b in zip(*sizes, strict=True)
    )


def spared_traces() -> Iterator[AbstractContextManager[Any]]:
    """The patches, for the version of ExecuTorch whose passes were read."""
    for each in _CHANGED_OPS:
        yield mock.patch.object(each, "__call__", _run_where_needed(each.__call__), create=True)
    passes_of = _program._get_aten_to_edge_passes
    yield mock.patch.object(_program, "_get_aten_to_edge_passes", _in_fewer_traces(passes_of))
    yield mock.patch.object(_ExportPassBase, "call", _traced_where_changed(_ExportPassBase.call))
    fakes = {executorch_call_delegate: _as_when_partitioned(call_delegate_fake_tensor_mode)}
    yield mock.patch.dict(registered_hop_fake_fns, fakes)
    run = ExportedProgram.run_decompositions
    yield mock.patch.object(ExportedProgram, run.__name__, _run_where_any(run))
    transform = _program._apply_pre_decomposition_transforms
    yield mock.patch.object(_program, transform.__name__, _soon_decomposed(transform))
