"""Recurrent layers as ops that are preserved: `ggml_delegate::lstm` for `aten::lstm`, and so on.

torch and ExecuTorch know aten's only as loops, which they trace step by step: exporting takes
longer with every step, fixes their number, and leaves thousands of nodes to lower. ExecuTorch keeps
no op with several results from being decomposed. These ops have aten's schemas, names and
values, and results that are contiguous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.overrides import TorchFunctionMode

from ggml_delegate.node_view import PRESERVED_NAMESPACE
from ggml_delegate.program_editor import ProgramEditor, named_arguments

_NAMES = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_library: Any = torch.library.Library(PRESERVED_NAMESPACE, "DEF")  # type: ignore[no-untyped-call]


def _computed_by(op: torch._ops.OpOverload) -> Callable[..., tuple[Tensor, ...]]:
    def compute(*args: Any) -> tuple[Tensor, ...]:
        return tuple(r.clone(memory_format=torch.contiguous_format) for r in op(*args))

    return compute


def _sizes_of_results(
    input: Tensor,
    hx: Tensor | Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """The results' sizes: [steps, batch, directions * p] or, batch_first, [batch, steps, ...]."""
    states = [hx] if isinstance(hx, Tensor) else list(hx)
    width = states[0].shape[2] * (2 if bidirectional else 1)
    results = [input.new_empty([*input.shape[:2], width])]
    return tuple(results + [input.new_empty(state.shape) for state in states])


def _define(name: str) -> torch._ops.OpOverload:
    op = getattr(torch.ops.aten, name).input
    _library.define(str(op._schema).removeprefix("aten::"))
    _library.impl(f"{name}.input", _computed_by(op), "CompositeExplicitAutograd")
    torch.library.register_fake(
        f"{PRESERVED_NAMESPACE}::{name}.input", _sizes_of_results, lib=_library
    )
    preserved: torch._ops.OpOverload = getattr(getattr(torch.ops, PRESERVED_NAMESPACE), name).input
    return preserved


_Ops = dict[torch._ops.OpOverload, torch._ops.OpOverload]
PRESERVED: _Ops = {getattr(torch.ops.aten, name).input: _define(name) for name in _NAMES}
"""By aten's op, the one that is exported in its place, and not decomposed."""
STANDS_FOR: _Ops = {preserved: op for op, preserved in PRESERVED.items()}
"""The reverse."""
_FUNCTIONS = {getattr(torch, name): getattr(torch.ops.aten, name).input for name in _NAMES}
_FUNCTIONS |= {op: op for op in PRESERVED}


class DynamicStepsError(ValueError):
    """A recurrent layer over a number of steps that may change, which nothing takes."""


class RecurrentLayersPreserved(TorchFunctionMode):
    """While this is entered, in this thread, recurrent layers are exported as ops that stay.

    Those over packed sequences are exported as ever.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call the op that is preserved in place of torch.lstm and its like."""
        op = _FUNCTIONS.get(func)
        if op is not None and _is_padded(op, args):
            func = PRESERVED[op]
        return func(*args, **(kwargs or {}))


def _is_padded(op: torch._ops.OpOverload, args: Sequence[Any]) -> bool:
    """Whether the arguments are those of `op`, not those of its overload for packed sequences.

    There the sizes of the batches, a tensor, stand between input and states.
    """
    if op is torch.ops.aten.lstm.input:
        return len(args) > 1 and not isinstance(args[1], Tensor)
    return len(args) > 2 and not isinstance(args[2], Tensor)


def recurrent_op(node: Node) -> torch._ops.OpOverload | None:
    """aten's op of a recurrent layer, whichever op the node calls, else None."""
    if node.target in PRESERVED:
        return node.target
    return STANDS_FOR.get(node.target)  # type: ignore[call-overload, no-any-return]


def keep_recurrent_layers(
    program: ExportedProgram, wanted: Callable[[Node], bool]
) -> ExportedProgram:
    """Returns a program whose recurrent layers are preserved where wanted, and nowhere else.

    Args:
        program: ATen-dialect program; it is left as it was.
        wanted: whether to preserve a node of its graph. Bodies of control flow are decomposed.

    Raises:
        DynamicStepsError: a layer that is to be decomposed has a dynamic number of steps.
    """
    modules = [m for m in program.graph_module.modules() if isinstance(m, GraphModule)]
    if not any(recurrent_op(node) is not None for m in modules for node in m.graph.nodes):
        return program
    kept = {node.name for node in program.graph.nodes if recurrent_op(node) and wanted(node)}
    editor = ProgramEditor(program)
    owner = editor.graph.owning_module
    assert owner is not None
    for module in owner.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            if (op := recurrent_op(node)) is not None:
                preserve = module is owner and node.name in kept
                node.target = PRESERVED[op] if preserve else _decomposable(node, op)
        if isinstance(module, GraphModule) and module is not owner:
            module.recompile()
    return editor.finish()


def _decomposable(node: Node, op: torch._ops.OpOverload) -> torch._ops.OpOverload:
    arguments = named_arguments(node)
    source = arguments["input"]
    assert isinstance(source, Node)
    steps = source.meta["val"].shape[1 if arguments["batch_first"] else 0]
    if isinstance(steps, SymInt):
        raise DynamicStepsError(
            f"{node.name} ({op}) runs over {steps} steps, and a number that may change is not "
            "possible here"
        )
    return op
