"""Checking a .pte against the model it was made from, delegate call by delegate call.

Each call's outputs are compared with what its ops give in eager PyTorch for the very inputs that
the call got, so that errors of calls before it do not count. Quantized layers may be off by more
than those of floats; by how much, `orchestrator.graph.schemes` says.
"""

from __future__ import annotations

import math
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends.base import QuantizedErrors
from orchestrator.backends.registry import find_backend
from orchestrator.dry_run import edge_program
from orchestrator.frontend.export import as_programs
from orchestrator.graph.layouts import converted
from orchestrator.graph.queries import compute_nodes, dtype_name, is_getitem
from orchestrator.graph.schemes import Allowed, allowed_errors
from orchestrator.native import NativeProgram
from orchestrator.options import PlanOptions
from orchestrator.report.data import MethodReport
from orchestrator.report.embed import read_report

# Float32 kernels differ by the order of their sums: some 1e-6 of the largest value.
DEFAULT_TOLERANCE = 1e-4
# What backends may be off by was decided when the program was lowered.
_ANY_TOLERANCE = 0.999


class VerifyError(ValueError):
    """A program and a model cannot be compared."""


@dataclass(frozen=True)
class Check:
    """One tensor that was compared.

    what: its name; segment: of the delegate call that gave it, None for a result of the method.
    error: the largest absolute difference over the largest absolute value that was expected;
        infinite where either has NaN or the shapes differ.
    allowed: the largest error that passes. rule: what it is made of, of quantized layers.
    """

    what: str
    error: float = 0.0
    allowed: float = DEFAULT_TOLERANCE
    rule: str = ""
    segment: int | None = None
    backend: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is allowed."""
        return self.error <= self.allowed


@dataclass(frozen=True)
class Verification:
    """All checks of one method, in the order of the calls; the method's results come last."""

    method: MethodReport
    checks: tuple[Check, ...]

    @property
    def first_off(self) -> Check | None:
        """The first check that failed."""
        return next((check for check in self.checks if not check.passed), None)


def verify(
    file: str | os.PathLike[str],
    model: Any,
    inputs: Iterable[Any] | None = None,
    *,
    method: str = "forward",
    tolerance: float | None = None,
    num_threads: int = 0,
) -> Verification:
    """Compare a method of a program with its model, call by call.

    Where branches of torch.cond have delegates, only results are compared.

    file: a .pte made by `lower`. model: what it was made from: a module, an exported program, or a
        mapping of method names to exported programs.
    inputs: for the module, of the shapes that it was exported with; exported programs bring their
        own.
    tolerance: the largest error that passes; if left out, 1e-4 and what quantized layers may be off
        by.

    Raises:
        VerifyError: the program was made from another model or lacks what is needed.
        PteError, ReportError, ModelError, ExecuTorchError: as where these are raised.
    """
    path = Path(file)
    report = read_report(path)
    described = {each.name: each for each in report.methods}
    programs = as_programs(model, inputs)
    for what, names in ((str(path), described.keys()), ("the model", programs.keys())):
        if method not in names:
            raise VerifyError(f"{what} has no method {method!r}; it has {', '.join(names)}")
    program = programs[method]
    arguments = program.example_inputs if inputs is None else (tuple(inputs), {})
    if arguments is None:
        raise VerifyError("the exported program holds no example inputs; pass some")
    edge = _edge_program_of(described[method], program, report.backends)
    native = NativeProgram(path, num_threads=num_threads, values=True)
    leaves = pytree.tree_leaves(arguments)
    with torch.no_grad():
        outputs = native.run(method, leaves, relayout=True)
        recorded = _by_instruction(native.values())
        checks = list(_call_checks(described[method], edge, recorded, tolerance))
        expected = pytree.tree_leaves(program.module()(*arguments[0], **arguments[1]))
    allowed = _allowed_of_results(edge)
    beyond = _quantized_errors(described[method])
    rounded = QuantizedErrors(weights=described[method].weight_error)
    most = _largest([*beyond.values(), rounded])
    checks += [
        _check(
            Check(f"result {index}"), actual, wanted, tolerance, allowed.get(index, Allowed()), most
        )
        for index, (actual, wanted) in enumerate(zip(outputs, expected, strict=True))
        if isinstance(wanted, Tensor)
    ]
    return Verification(described[method], tuple(checks))


def _edge_program_of(
    method: MethodReport, program: ExportedProgram, backends: Sequence[str]
) -> ExportedProgram:
    """Find the way of planning that leads to the program's nodes: plans decide which ops are kept
    whole. Conversions of dim orders do not count: they compute nothing.

    Raises:
        VerifyError: none does.
    """
    wanted = {node for segment in method.segments for node in segment.nodes}
    for given in (
        PlanOptions(),
        PlanOptions(strategy="greedy", tune="off"),
        PlanOptions(tune="off"),
    ):
        options = replace(given, weight_error=method.weight_error, tolerance=_ANY_TOLERANCE)
        edge = edge_program(program, backends, options)
        names = {node.name for node in edge.graph.nodes}
        lacking = {name for name in wanted if _unconverted(name, names, method) not in names}
        if not lacking:
            return edge
    missing = min(lacking)
    raise VerifyError(
        f"the program was made from another model, or with pins or excludes: this one has no node "
        f"{missing!r}"
    )


def _unconverted(name: str, nodes: Container[str], method: MethodReport) -> str:
    """Return the name of a tensor if `nodes` has it, else of the tensor it was converted from.

    Plans differ in where they convert dim orders, which leaves the values as they are.
    """
    while name not in nodes and name in method.converted:
        name = method.converted[name]
    return name


def _allowed_of_results(edge: ExportedProgram) -> dict[int, Allowed]:
    """Return what is allowed of a method's results, by their numbers."""
    found = {node.name: each for node, each in allowed_errors(list(compute_nodes(edge))).items()}
    results = edge.graph_signature.user_outputs
    return {index: found[name] for index, name in enumerate(results) if name in found}


def _by_instruction(values: Sequence[tuple[int, Any]]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for instruction, value in values:
        found.setdefault(instruction, []).append(value)
    return found


def _call_checks(
    method: MethodReport,
    edge: ExportedProgram,
    recorded: Mapping[int, list[Any]],
    tolerance: float | None,
) -> Iterator[Check]:
    if method.branch_calls:
        return  # which calls are the branches' is not recorded
    nodes = {node.name: node for node in edge.graph.nodes}
    constants, beyond = dict(_constants(edge)), _quantized_errors(method)
    calls = _delegate_calls(method, recorded)
    for number, values in calls:
        segment = method.segments[number]
        tensors = (*segment.inputs, *segment.outputs)
        names = [_unconverted(tensor.name, nodes, method) for tensor in tensors]
        split = len(segment.inputs)
        known = dict(zip(names[:split], values[:split], strict=True))
        given = _evaluate(edge, set(segment.nodes), known, constants)
        allowed = allowed_errors(list(given))
        for name, actual in zip(names[split:], values[split:], strict=True):
            node = nodes[name]
            wanted = given[node] if node in given else known[name]
            check = Check(name, segment=number, backend=segment.backend)
            rule = allowed.get(node, Allowed())
            yield _check(check, actual, wanted, tolerance, rule, beyond[segment.backend])


def _delegate_calls(
    method: MethodReport, recorded: Mapping[int, list[Any]]
) -> Iterator[tuple[int, list[Any]]]:
    """Find the values of each delegate call: calls and kernels alternate in the known order."""
    waiting = list(method.calls)
    sizes = {
        number: len(method.segments[number].inputs) + len(method.segments[number].outputs)
        for number in waiting
    }
    kernels = set()  # instructions with fewer values than any call that may come next
    for instruction in sorted(recorded):
        values = recorded[instruction]
        if waiting and len(values) == sizes[waiting[0]] and _fits(method, waiting[0], values):
            yield waiting.pop(0), values
        else:
            kernels.add(instruction)
    if waiting:
        raise VerifyError(f"the program made {len(waiting)} delegate calls less than it should")


def _fits(method: MethodReport, number: int, values: Sequence[Any]) -> bool:
    segment = method.segments[number]
    for tensor, value in zip((*segment.inputs, *segment.outputs), values, strict=True):
        if isinstance(value, Tensor) and (
            dtype_name(value.dtype) != tensor.dtype or value.dim() != len(tensor.shape)
        ):
            return False
    return True


def _constants(edge: ExportedProgram) -> Iterator[tuple[str, Any]]:
    """Yield the values of the placeholders that are no inputs."""
    signature = edge.graph_signature
    for names in (signature.inputs_to_parameters, signature.inputs_to_buffers):
        for name, target in names.items():
            value = edge.state_dict.get(target, edge.constants.get(target))
            yield name, value
    for name, target in signature.inputs_to_lifted_tensor_constants.items():
        yield name, edge.constants[target]


def _evaluate(
    edge: ExportedProgram,
    names: set[str],
    known: Mapping[str, Any],
    constants: Mapping[str, Any],
) -> dict[Node, Any]:
    """Run some nodes in eager PyTorch, on what is known of the values that they take."""
    values: dict[Node, Any] = {}

    def value(node: Node) -> Any:
        if node in values:
            return values[node]
        if node.name in known:
            return known[node.name]
        if node.name in constants:
            return constants[node.name]
        source = converted(node)
        if source is not None:
            return value(source)
        raise VerifyError(f"the value of {node.name} was not recorded")

    for node in compute_nodes(edge):
        inside = node.name in names or (
            node.name not in known
            and any(source in values for source in node.all_input_nodes)
            and is_getitem(node)
        )
        if inside:
            args, kwargs = pytree.tree_map_only(Node, value, (node.args, dict(node.kwargs)))
            assert callable(node.target)
            values[node] = node.target(*args, **kwargs)
    return values


def _quantized_errors(method: MethodReport) -> dict[str, QuantizedErrors]:
    """What each backend of a method may be off by beyond the schemes."""
    names = {segment.backend for segment in method.partitions}
    return {name: find_backend(name).quantized_errors for name in names}


def _largest(errors: Iterable[QuantizedErrors]) -> QuantizedErrors:
    columns = zip(*(astuple(each) for each in (QuantizedErrors(), *errors)), strict=True)
    return QuantizedErrors(*map(max, columns))


def _check(
    check: Check,
    actual: Any,
    expected: Any,
    tolerance: float | None,
    rule: Allowed,
    beyond: QuantizedErrors,
) -> Check:
    error = _difference(actual, expected)
    if tolerance is not None:
        return replace(check, error=error, allowed=tolerance)
    largest = expected.abs().max().item() if _has_elements(expected) else 0.0
    more = asdict(beyond)
    allowed = rule.error(float(largest), DEFAULT_TOLERANCE, **more)
    return replace(check, error=error, allowed=allowed, rule=rule.text(**more))


def _has_elements(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() > 0


def _difference(actual: Any, expected: Any) -> float:
    if not isinstance(actual, Tensor) or not isinstance(expected, Tensor):
        return 0.0 if actual == expected else math.inf
    if actual.shape != expected.shape:
        return math.inf
    if not expected.numel():
        return 0.0
    left, right = actual.to(torch.float64), expected.to(torch.float64)
    off = (left - right).abs().max().item()
    scale = right.abs().max().item()
    if math.isnan(off) or math.isinf(scale):
        return 0.0 if torch.equal(left.nan_to_num(), right.nan_to_num()) else math.inf
    return off / scale if scale else off
