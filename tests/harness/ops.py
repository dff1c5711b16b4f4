"""check_op: one op (or a few) through GgmlPartitioner and the native runtime, against eager."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from torch.export import ExportedProgram, export

from ggml_delegate.node_view import Constants, node_value
from ggml_delegate.partitioner import GgmlPartitioner
from ggml_delegate.recurrent_ops import RecurrentLayersPreserved
from ggml_delegate.registry import check_node
from orchestrator.frontend.torch_speed import repeated_work_spared
from orchestrator.native import NativeProgram
from tests.harness.accuracy import note, output_ops

_IGNORED = {"executorch_call_delegate", "getitem"}


class _Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


class _Recorder(GgmlPartitioner):
    """Notes what check_node says of each node of the program that the partitioner is given.

    Attributes:
        output_ops: by output, the op that it comes from.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[str, str] = {}
        self.output_ops: list[str] = []

    def partition(self, exported_program: ExportedProgram) -> Any:
        constants = Constants(exported_program)
        self.output_ops = output_ops(exported_program)
        for node in exported_program.graph.nodes:
            if node.op == "call_function" and isinstance(
                node_value(node), (torch.Tensor, tuple, list)
            ):
                reason = check_node(node, exported_program, constants)
                if reason is not None:
                    self.reasons[node.name] = reason
        return super().partition(exported_program)


def outputs_of(result: Any) -> list[Any]:
    """The leaves of what a model returned."""
    return list(torch.utils._pytree.tree_leaves(result))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference over the expected values' scale (at least 1)."""
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    if expected.numel() == 0:
        return 0.0
    actual, expected = actual.double(), expected.double()
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    scale = expected[expected.isfinite()].abs().max().item() if expected.isfinite().any() else 1.0
    difference = torch.where(same, 0.0, (actual - expected).abs())
    assert not difference.isnan().any(), "NaN where eager has none, or the reverse"
    return float(difference.max().item()) / max(1.0, scale)


def lower_ggml(
    model: torch.nn.Module, inputs: Sequence[Any], dynamic_shapes: Any = None
) -> tuple[Any, _Recorder, Any]:
    """(executorch program, what was rejected, edge program) of a model lowered for ggml alone."""
    with repeated_work_spared():
        edge, recorder = _to_edge(model, inputs, dynamic_shapes)
        return edge.to_executorch(), recorder, edge


def _to_edge(
    model: torch.nn.Module, inputs: Sequence[Any], dynamic_shapes: Any
) -> tuple[Any, _Recorder]:
    with repeated_work_spared():
        with RecurrentLayersPreserved():
            exported = export(model, tuple(inputs), dynamic_shapes=dynamic_shapes, strict=False)
        recorder = _Recorder()
        edge = to_edge_transform_and_lower(
            exported,
            partitioner=[recorder],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        return edge, recorder


def rejections(model: torch.nn.Module, inputs: Sequence[Any]) -> list[str]:
    """What ggml rejects of a model, which need not have kernels for the rest."""
    _, recorder = _to_edge(model, inputs, None)
    return list(recorder.reasons.values())


def undelegated(edge: Any) -> list[str]:
    """Names of the nodes with tensor results that no delegate has."""
    return [
        node.name
        for node in edge.exported_program().graph.nodes
        if node.op == "call_function"
        and node.target is not operator.getitem
        and getattr(node.target, "__name__", "") not in _IGNORED
        and isinstance(node_value(node), torch.Tensor)
    ]


def check_op(
    function: Callable[..., Any] | torch.nn.Module,
    inputs: Sequence[Any],
    *,
    rtol: float = 1e-5,
    dynamic_shapes: Any = None,
    more_inputs: Sequence[Sequence[Any]] = (),
    delegated: bool = True,
    reason: str | None = None,
    may_be_constant: bool = False,
) -> None:
    """Exports, lowers with GgmlPartitioner alone, runs natively and compares with eager.

    Args:
        function: a module or a function of tensors.
        inputs: example inputs, also the first that are run.
        rtol: bound on the largest absolute error over the output's scale (at least 1).
        dynamic_shapes: as for torch.export.export.
        more_inputs: further inputs to run, e.g. of other sizes.
        delegated: whether ggml must take every node; else at least one must be refused.
        reason: a part of the reason of some refusal.
        may_be_constant: the result does not depend on the inputs' values.
    """
    model = function if isinstance(function, torch.nn.Module) else _Function(function)
    model.eval()
    program, recorder, edge = lower_ggml(model, inputs, dynamic_shapes)
    left = undelegated(edge)
    if delegated:
        assert not left, f"left to kernels: {left}; rejected: {recorder.reasons}"
    else:
        assert recorder.reasons, "nothing was rejected"
        if reason is not None:
            assert any(reason in text for text in recorder.reasons.values()), recorder.reasons
    native = NativeProgram(program.buffer)
    for case in (inputs, *more_inputs):
        actual = outputs_of(native.run("forward", list(case)))
        with torch.no_grad():
            expected = outputs_of(model(*case))
        assert len(actual) == len(expected)
        ops = recorder.output_ops if len(recorder.output_ops) == len(actual) else [""] * len(actual)
        for op, got, want in zip(ops, actual, expected, strict=True):
            error = relative_error(got, want)
            if op and not left:
                note(op, error, rtol)
            assert error <= rtol, f"relative error {error:.3g} > {rtol:g}"
            if not may_be_constant and want.numel() > 1 and want.is_floating_point():
                assert want.std() > 0, "a constant output proves nothing"
