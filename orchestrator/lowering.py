"""From a PyTorch model to one .pte that runs on several backends."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from executorch.exir import EdgeProgramManager, ExecutorchBackendConfig
from torch.export import ExportedProgram

from ggml_delegate.builder import bytes_held_once
from orchestrator.backends import Backend, load_options, resolve_backends
from orchestrator.edge_programs import EdgePrograms
from orchestrator.failures import Refusals, lowering_error
from orchestrator.fallback import Fallbacks, is_fallback
from orchestrator.flow import plan_only, to_edge_with
from orchestrator.frontend.dynamic_sizes import sizes_without_bound
from orchestrator.frontend.export import Model
from orchestrator.frontend.quantize import Recipe, as_quantized_programs
from orchestrator.frontend.rewrites import Rewriting
from orchestrator.frontend.shared_state import SharedPrograms, share_state, shared_config
from orchestrator.frontend.state_in_place import in_place_config
from orchestrator.frontend.torch_state import as_in_lowering
from orchestrator.graph.queries import mutated_buffers
from orchestrator.kernels import fit_kernels
from orchestrator.options import DEFAULT_BACKENDS, HOST, PlanOptions, Strategy, Tune, TuneEvent
from orchestrator.partitioner import OrchestratorPartitioner
from orchestrator.planning.choice import Choice
from orchestrator.planning.make_plan import Planned
from orchestrator.planning.shared_weights import SharedWeights
from orchestrator.program import LoweredProgram, Signature
from orchestrator.report.build import as_lowered, with_notes
from orchestrator.report.data import Report
from orchestrator.report.embed import embed_report
from orchestrator.report.slow_kernels import slow_kernels
from orchestrator.tuning.program_factors import ProgramFactors
from orchestrator.tuning.timed_plans import TimedPlans
from orchestrator.tuning.tune import Made, make_tuned
from orchestrator.versions import versions


class LoweringWarning(UserWarning):
    """A program was made, but will not run everywhere, or not as it was meant to."""


def lower(
    model: Model,
    example_inputs: Iterable[Any] | torch.Tensor | None = None,
    *,
    backends: Iterable[str | Backend] = DEFAULT_BACKENDS,
    example_kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    constant_methods: Mapping[str, Any] | None = None,
    named_data: Mapping[str, bytes] | None = None,
    backend_config: ExecutorchBackendConfig | None = None,
    etrecord: str | os.PathLike[str] | None = None,
    strategy: Strategy = "cost",
    tune: Tune = "cached",
    threads: int | None = None,
    target: str = HOST,
    pins: Mapping[str, str] | None = None,
    exclude: Mapping[str, str | Sequence[str]] | Sequence[str] = (),
    max_partitions: int | None = None,
    max_duplicated_bytes: int | None = None,
    max_private_bytes: int | None = None,
    cost_table: str | os.PathLike[str] | None = None,
    weight_error: float = 0.0,
    tolerance: float = 0.0,
    budget_s: float | None = None,
    progress: Callable[[TuneEvent], None] | None = None,
    share_buffers: bool = True,
    share_weights: bool = False,
    fallback: bool = False,
    quantize: Recipe | None = None,
    calibration: Iterable[Any] = (),
) -> LoweredProgram:
    """Lower a model for several backends.

    model: a module with example inputs, an exported program, or a mapping of method names to
        exported programs.
    example_inputs: positional arguments of the module (a lone tensor counts as one argument).
    backends: names (see `orchestrator.backends.backend_names`) or backend objects, the preferred
        one first. Empty: everything runs on ExecuTorch's own kernels.
    example_kwargs, dynamic_shapes: as in `torch.export.export`.
    constant_methods: values that the program offers under a method name.
    named_data: bytes that the program carries beside its report, by key; they are ExecuTorch's
        named data, which `orchestrator.report.pte.read_named_data` reads back.
    backend_config: how ExecuTorch plans memory and serializes; its defaults if left out.
    etrecord: a file to write ExecuTorch's ETRecord to, from which its Inspector tells which lines
        of the model the events of a profile are about.
    strategy: "cost" for the cheapest split, "greedy" for the first backend that takes a node.
    tune: "off" to estimate costs from shapes, "cached" to use what the cost table has of this
        machine, "measure" to measure what it lacks and to time the best plans end to end.
    threads: that the program will run on; by default as many as this process may use.
    target: the device to plan for: this machine, or a name that costs were imported under.
    pins: backends by pattern over modules, ops and nodes: {"layers.3.*": "xnnpack"}.
    exclude: patterns of what not to delegate, or backends not to use by pattern.
    max_partitions, max_duplicated_bytes, max_private_bytes: limits on delegate calls, on bytes of
        weights that more than one backend holds, and on memory that delegates hold beside the file;
        per method.
    cost_table: a file with measured costs, instead of the one in the user's cache folder.
    weight_error: what an element of a weight may be off by, over the largest of its row: weights of
        floats are then stored in float16 or bfloat16 where that is near enough and a backend takes
        them, and scales of groups of integers too. The plan's notes tell what it bought.
    tolerance: by how much of the largest value float32 results may be off because a backend
        computes in less than float32; one that may be off by more is refused.
    budget_s: for tune="measure": how long to measure, in seconds.
    progress: called while measuring, see `TuneEvent`.
    share_buffers: whether methods share the mutable buffers that have one name, or are one tensor,
        in several of them: what one method writes, the others read.
    share_weights: whether a weight that several methods use goes to the delegate that the first of
        them has it in, if that can run what uses it: the file and the memory then have it once.
        Plans that were timed (tune="measure") are taken as they are.
    fallback: whether each method "name" that calls other delegates than XNNPACK's gets a method
        "name__fallback", which needs XNNPACK and kernels alone. The runtime here runs it in place
        of "name" where a delegate of "name" cannot be used. Weights that both have in XNNPACK, and
        mutable buffers, the program has once.
    quantize: how to quantize a module first, see `orchestrator.frontend.quantize.Recipe`; the
        module itself stays as it is, and the plan's notes tell what was left in floats.
    calibration: for quantize="static", inputs as the model will see them, each a tuple of
        positional arguments or a lone tensor.

    `PlanOptions` says more about the options from `strategy` on.

    Raises:
        BackendError: an unknown backend, or one that cannot be used here.
        ModelError: inputs that do not fit the kind of model, a model in training mode, or buffers
            that methods cannot share.
        OptionError, PlannerError: options that contradict each other or the model.
        CostTableError, TargetError: costs that were asked for cannot be had.
        LoweringError: ExecuTorch fails on the program. Where a backend does, others get the nodes.

    Warns:
        LoweringWarning: the program needs a kernel that the ExecuTorch runtime here lacks, or takes
            no sizes above the example's where `dynamic_shapes` has no upper bound; kernels take
            most of its time, for ops that no delegate takes; a backend failed on nodes.
    """
    options = PlanOptions(
        strategy=strategy,
        tune=tune,
        threads=threads,
        target=target,
        pins=dict(pins or {}),
        exclude=exclude,
        max_partitions=max_partitions,
        max_duplicated_bytes=max_duplicated_bytes,
        max_private_bytes=max_private_bytes,
        cost_table=cost_table,
        weight_error=weight_error,
        tolerance=tolerance,
        budget_s=budget_s,
        progress=progress,
    )
    resolved = resolve_backends(backends, options)
    programs, notes = as_quantized_programs(
        model, example_inputs, example_kwargs, dynamic_shapes, quantize, calibration
    )
    return lower_programs(
        programs,
        resolved,
        options,
        constant_methods=constant_methods,
        named_data=named_data,
        backend_config=backend_config,
        etrecord=etrecord,
        share_buffers=share_buffers,
        share_weights=share_weights,
        fallback=fallback,
        notes=notes,
    )


def lower_programs(
    programs: Mapping[str, ExportedProgram],
    backends: tuple[Backend, ...],
    options: PlanOptions,
    *,
    constant_methods: Mapping[str, Any] | None = None,
    named_data: Mapping[str, bytes] | None = None,
    backend_config: ExecutorchBackendConfig | None = None,
    etrecord: str | os.PathLike[str] | None = None,
    share_buffers: bool = True,
    share_weights: bool = False,
    fallback: bool = False,
    notes: Sequence[str] = (),
) -> LoweredProgram:
    """Lower exported programs, by method name, as `lower` describes it.

    notes: what each method's plan tells besides its own.

    Raises, warns: as `lower`; a warning is about the line that called the caller of this.
    """
    fallbacks = Fallbacks()
    if fallback:
        fallbacks = Fallbacks.of(tuple(programs), constant_methods or (), backends, options)
    everything = fallbacks.added_to(programs)
    shared = share_state(everything) if share_buffers else SharedPrograms(everything, {})
    programs = {name: shared.programs[name] for name in programs}
    with as_in_lowering(programs.values()), bytes_held_once():
        lowering = _Lowering(
            programs,
            backends,
            options,
            constant_methods,
            named_data,
            backend_config,
            etrecord is not None,
            shared,
            SharedWeights(programs, keeps_together=share_weights),
            fallbacks=fallbacks,
            prepared=EdgePrograms() if options.tune == "measure" else None,
            notes=notes,
        )
        made = make_tuned(programs, backends, options, lowering)
        if etrecord is not None:
            made.manager.get_etrecord().save(etrecord)
    _warn(made.program.report, lowering.refusals)
    _warn_of_unbounded_sizes(programs)
    return made.program


@dataclass(frozen=True)
class _Lowering:
    """All that stays the same while plans are tried."""

    programs: Mapping[str, ExportedProgram]
    backends: tuple[Backend, ...]
    options: PlanOptions
    constant_methods: Mapping[str, Any] | None
    named_data: Mapping[str, bytes] | None
    backend_config: ExecutorchBackendConfig | None
    generate_etrecord: bool
    shared: SharedPrograms
    weights: SharedWeights
    fallbacks: Fallbacks = field(default_factory=Fallbacks)
    refusals: Refusals = field(default_factory=Refusals)
    prepared: EdgePrograms | None = None
    notes: Sequence[str] = ()

    def make(
        self,
        choices: Mapping[str, Choice],
        timed: Mapping[str, TimedPlans],
        factors: Mapping[str, ProgramFactors] | None = None,
    ) -> Made:
        """Lower once, with what was decided about the methods' plans."""
        is_last = self.options.tune != "measure" or timed.keys() >= self.programs.keys()
        edge, partitioners = self._to_edge(choices, with_fallbacks=is_last)
        fallbacks = self.fallbacks.without_needless(edge) if is_last else Fallbacks()
        kept = {*self.programs, *fallbacks.originals}
        partitioners = {name: each for name, each in partitioners.items() if name in kept}
        results = {name: partitioner.results[-1] for name, partitioner in partitioners.items()}
        methods = []
        for name, result in results.items():
            # Programs that are made to be timed need no advice.
            final = name in timed or self.options.tune != "measure"
            described = result.report
            if final:
                shown, choice = (factors or {}).get(name), choices.get(name)
                unconstrained = None
                if shown is not None and choice is not None and choice.only is not None:
                    unconstrained = plan_only(self.programs[name], self.backends, self.options)
                described = result.with_advice(shown, unconstrained)
            method = as_lowered(described, name, edge.exported_program(name))
            if name in fallbacks.originals:
                method = with_notes(method, fallbacks.note(name))
            else:
                notes = (*self.notes, *self.shared.notes(name), *self.weights.notes(name))
                method = with_notes(method, *notes)
            methods.append(timed[name].add_to(method) if name in timed else method)
        report = Report(
            backends=tuple(backend.name for backend in self.backends),
            methods=tuple(methods),
            versions=versions(),
        )
        for name in partitioners:
            _keep_initial_state(edge.exported_program(name))
            fit_kernels(edge.exported_program(name))
        embed_report(edge, report, self.named_data)
        config = in_place_config(
            shared_config(self.backend_config, self.shared.methods), self.backends, partitioners
        )
        try:
            manager = edge.to_executorch(config)
        except Exception as error:  # whatever it is, it says nothing about the model
            raise lowering_error(error) from error
        program = LoweredProgram(
            buffer=manager.buffer,
            report=report,
            plan={name: result.plan for name, result in results.items()},
            signatures={name: Signature.of(self.shared.programs[name]) for name in results},
            load_options=load_options(self.backends, self.options.thread_count),
            libraries={each.backend_id: each.libraries() for each in self.backends},
        )
        planned = {name: results[name].planned for name in self.programs}
        return Made(program, planned, manager)

    def plan(self, choices: Mapping[str, Choice]) -> dict[str, Planned]:
        """Plan without lowering."""
        _, partitioners = self._to_edge(choices, dry_run=True)
        return {name: each.results[-1].planned for name, each in partitioners.items()}

    def _to_edge(
        self,
        choices: Mapping[str, Choice],
        *,
        dry_run: bool = False,
        with_fallbacks: bool = False,
    ) -> tuple[EdgeProgramManager, dict[str, OrchestratorPartitioner]]:
        def partitioner(name: str, rewriting: Rewriting) -> OrchestratorPartitioner:
            refused = self.refusals.of(name)
            if name in self.fallbacks.originals:
                return OrchestratorPartitioner(
                    self.fallbacks.backends,
                    self.fallbacks.options,
                    rewriting=rewriting,
                    refused=refused,
                )
            return OrchestratorPartitioner(
                self.backends,
                self.options,
                rewriting=rewriting,
                choice=choices.get(name),
                dry_run=dry_run,
                refused=refused,
                weights=(self.weights, name),
            )

        return to_edge_with(
            self.shared.programs if with_fallbacks else self.programs,
            partitioner,
            constant_methods=self.constant_methods,
            generate_etrecord=self.generate_etrecord and not dry_run,
            refusals=self.refusals,
            prepared=self.prepared,
        )


def _warn(report: Report, refusals: Refusals) -> None:
    """Warn of all that the user would not expect of the program."""
    for failure in dict.fromkeys(refusals.failures):
        warnings.warn(
            f"{failure}; the program runs without: report and plan say where these nodes went",
            LoweringWarning,
            stacklevel=4,
        )
    for method in report.methods:
        text = slow_kernels(method, report.backends)
        if text is not None and not is_fallback(method.name):
            warnings.warn(text, LoweringWarning, stacklevel=4)
    for method in report.methods:
        if method.missing_kernels:
            needs = ", ".join(
                f"{op} ({kernel})" for op, kernel in sorted(method.missing_kernels.items())
            )
            warnings.warn(
                f"method {method.name!r} will not load in the ExecuTorch runtime installed here: "
                f"no backend takes {needs}, and it has no kernel for it",
                LoweringWarning,
                stacklevel=4,
            )


def _warn_of_unbounded_sizes(programs: Mapping[str, ExportedProgram]) -> None:
    found = [
        f"dim {dim} of {name!r} in method {method!r} (at most {size})"
        for method, program in programs.items()
        for (name, dim), size in sizes_without_bound(program).items()
    ]
    if found:
        warnings.warn(
            "sizes without an upper bound can only be up to the example's, for which memory is "
            f"reserved: {', '.join(found)}; give the largest size in dynamic_shapes, as "
            'Dim("n", max=...), Dim.AUTO(max=...) or Dim.DYNAMIC(max=...)',
            LoweringWarning,
            stacklevel=4,
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
