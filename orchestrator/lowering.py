"""From a PyTorch model to one .pte that runs on several backends."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from executorch.exir import (
    EdgeCompileConfig,
    EdgeProgramManager,
    ExecutorchBackendConfig,
    to_edge_transform_and_lower,
)
from torch.export import ExportedProgram

from ggml_delegate.torch_speed import composite_ops_looked_up_once
from orchestrator.backends import Backend, resolve_backends
from orchestrator.export import Model, as_programs
from orchestrator.graph import mutated_buffers
from orchestrator.partitioner import OrchestratorPartitioner, UndecomposedOpError
from orchestrator.program import LoweredProgram, Signature
from orchestrator.report.build import as_lowered
from orchestrator.report.data import Report
from orchestrator.report.embed import embed_report

DEFAULT_BACKENDS = ("ggml", "xnnpack")


class LoweringWarning(UserWarning):
    """A program was made, but will not run everywhere."""


def lower(
    model: Model,
    example_inputs: Iterable[Any] | torch.Tensor | None = None,
    *,
    backends: Iterable[str | Backend] = DEFAULT_BACKENDS,
    example_kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    constant_methods: Mapping[str, Any] | None = None,
    backend_config: ExecutorchBackendConfig | None = None,
    etrecord: str | os.PathLike[str] | None = None,
) -> LoweredProgram:
    """Lower a model for several backends.

    model: a module with example inputs, an exported program, or a mapping of method names to
        exported programs.
    example_inputs: positional arguments of the module (a lone tensor counts as one argument).
    backends: names (see `orchestrator.backends.backend_names`) or backend objects, the preferred
        one first. Empty: everything runs on ExecuTorch's own kernels.
    example_kwargs, dynamic_shapes: as in `torch.export.export`.
    constant_methods: values that the program offers under a method name.
    backend_config: how ExecuTorch plans memory and serializes; its defaults if left out.
    etrecord: a file to write ExecuTorch's ETRecord to, from which its Inspector tells which lines
        of the model the events of a profile are about.

    Raises:
        BackendError: an unknown backend, or one that cannot be used here.
        ModelError: inputs that do not fit the kind of model, or a model in training mode.

    Warns:
        LoweringWarning: the program needs a kernel that the ExecuTorch runtime here lacks.
    """
    resolved = resolve_backends(backends)
    programs = as_programs(model, example_inputs, example_kwargs, dynamic_shapes)
    # ExecuTorch re-runs the graph's in-place updates of buffers, which autograd would refuse.
    with torch.no_grad(), warnings.catch_warnings(), composite_ops_looked_up_once():
        # Raised inside torch when executorch copies a program.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Mutation on a buffer")  # seen to below
        edge, partitioners = _to_edge(
            programs, resolved, constant_methods, generate_etrecord=etrecord is not None
        )
        results = {name: partitioner.results[-1] for name, partitioner in partitioners.items()}
        report = Report(
            backends=tuple(backend.name for backend in resolved),
            methods=tuple(
                as_lowered(result.report, name, edge.exported_program(name))
                for name, result in results.items()
            ),
            versions=_versions(),
        )
        for name in programs:
            _keep_initial_state(edge.exported_program(name))
        embed_report(edge, report)
        manager = edge.to_executorch(backend_config)
        if etrecord is not None:
            manager.get_etrecord().save(etrecord)
    _warn_of_missing_kernels(report)
    return LoweredProgram(
        buffer=manager.buffer,
        report=report,
        plan={name: result.plan for name, result in results.items()},
        signatures={name: Signature.of(program) for name, program in programs.items()},
    )


def edge_compile_config() -> EdgeCompileConfig:
    """Return the configuration under which all backends agree on what a program means.

    Dim orders stay part of the program: it is how a model in channels-last says so, XNNPACK and
    the kernels both read them, and without them a change of memory format would be lost. The
    check for core ATen ops is off, as in ExecuTorch's own XNNPACK flow: ops outside that set can
    have a kernel or a delegate that takes them.
    """
    return EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=False)


def _warn_of_missing_kernels(report: Report) -> None:
    for method in report.methods:
        if method.missing_kernels:
            needs = ", ".join(
                f"{op} ({kernel})" for op, kernel in sorted(method.missing_kernels.items())
            )
            warnings.warn(
                f"method {method.name!r} will not load in the ExecuTorch runtime installed here: "
                f"no backend takes {needs}, and it has no kernel for it",
                LoweringWarning,
                stacklevel=3,
            )


def _keep_initial_state(program: ExportedProgram) -> None:
    """Have the .pte hold what buffers contain that the program changes.

    ExecuTorch stores only their shapes unless told otherwise. Its memory is zeroed when a method
    is loaded, so buffers of zeros (key-value caches, mostly) need no place in the file.
    """
    for node in mutated_buffers(program):
        target = program.graph_signature.inputs_to_buffers[node.name]
        value = program.state_dict.get(target, program.constants.get(target))
        if isinstance(value, torch.Tensor) and bool(value.count_nonzero()):
            node.meta["et_init_buffer"] = True


def _to_edge(
    programs: Mapping[str, ExportedProgram],
    backends: tuple[Backend, ...],
    constant_methods: Mapping[str, Any] | None,
    generate_etrecord: bool,
) -> tuple[EdgeProgramManager, dict[str, OrchestratorPartitioner]]:
    """Partition and lower; ops that no backend takes after all are decomposed in another round."""
    decompose: set[torch._ops.OpOverload] = set()
    while True:
        partitioners = {
            name: OrchestratorPartitioner(backends, decompose=decompose) for name in programs
        }
        try:
            edge = to_edge_transform_and_lower(
                dict(programs),
                partitioner={name: [partitioner] for name, partitioner in partitioners.items()},
                compile_config=edge_compile_config(),
                constant_methods=dict(constant_methods) if constant_methods else None,
                generate_etrecord=generate_etrecord,
            )
        except UndecomposedOpError as error:
            if decompose.issuperset(error.ops):
                raise
            decompose.update(error.ops)
        else:
            return edge, partitioners


def _versions() -> dict[str, str]:
    return {name: _version(name) for name in ("executorch-orchestrator", "executorch", "torch")}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
