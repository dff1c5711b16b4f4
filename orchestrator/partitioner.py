"""One ExecuTorch partitioner for several backends.

It works wherever ExecuTorch takes a partitioner:

    to_edge_transform_and_lower(program, partitioner=[OrchestratorPartitioner(["ggml", "xnnpack"])])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from executorch.exir.backend.partitioner import DelegationSpec, Partitioner, PartitionResult
from executorch.exir.pass_base import ExportedProgramPassBase
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.recurrent_ops import PRESERVED, recurrent_op
from orchestrator.advice.questions import questions
from orchestrator.advice.what_if import Questions, advise
from orchestrator.backends import Backend, resolve_backends
from orchestrator.backends.candidates import Candidates, collect_candidates
from orchestrator.backends.checks import delegation_spec, preserved, tables_taken
from orchestrator.backends.patterns import may_run_on, patterns_found, with_patterns
from orchestrator.backends.portable import missing_kernel
from orchestrator.cost.model import AnalyticCosts, estimates_of
from orchestrator.dim_orders.channels_last import ChannelsLastPass
from orchestrator.dim_orders.quantized_images import QuantizedOrderPass
from orchestrator.frontend.assignments import AssignmentsPass
from orchestrator.frontend.nested_constants import NestedConstantsPass, reads_nested
from orchestrator.frontend.passes import no_tables
from orchestrator.frontend.passes.narrow_weights import narrow_weights
from orchestrator.frontend.recurrent_layers import with_recurrent_layers
from orchestrator.frontend.rewrites import Rewriting, StartOver, constant_bytes, rewrite
from orchestrator.graph.branches import Branch, branch_nodes, branches_of
from orchestrator.graph.quantized import dequantized_weights, note_zeros, zero_constants
from orchestrator.graph.queries import (
    aten_op,
    compute_nodes,
    is_custom_composite,
    mutated_buffers,
    op_name,
    origin,
)
from orchestrator.options import DEFAULT_BACKENDS, PlanOptions
from orchestrator.planner import (
    Constraints,
    CostGraph,
    Exclude,
    Plan,
    Segment,
    check_segments,
    price_plan,
)
from orchestrator.planning.choice import Choice, composite_key
from orchestrator.planning.make_plan import Planned, Solver, make_plan
from orchestrator.planning.shared_weights import SharedWeights
from orchestrator.preparation import Preparation, Seen
from orchestrator.report.build import describe_method
from orchestrator.report.data import MethodReport
from orchestrator.tuning.other_costs import corrected_graph
from orchestrator.tuning.program_factors import ProgramFactors

_Filters = dict[torch._ops.OpOverload, list[tuple[str, Callable[[Node], bool]]]]


class UndecomposedOpError(RuntimeError):
    """Ops that were preserved for a backend, which then did not take them.

    ops: the ATen ops to decompose after all.
    """

    def __init__(self, nodes: Sequence[Node], ops: Sequence[torch._ops.OpOverload]) -> None:
        self.ops = tuple(ops)
        names = ", ".join(f"{node.name} ({op_name(node)})" for node in nodes)
        super().__init__(
            f"no backend takes {names}, which were kept from being decomposed, and ExecuTorch has "
            f"no kernel for them; pass decompose={[str(op) for op in ops]} to "
            "OrchestratorPartitioner"
        )


@dataclass(frozen=True)
class PartitionedMethod:
    """What became of one program.

    planned: the plan with the priced graph behind it, for questions of the kind "what if".
    questions: those worth asking.
    """

    plan: Plan
    report: MethodReport
    planned: Planned
    questions: Questions = field(default_factory=Questions)

    def with_advice(
        self,
        factors: ProgramFactors | None = None,
        unconstrained: PartitionedMethod | None = None,
    ) -> MethodReport:
        """Ask the questions, which takes as long as some plans, and add the answers.

        factors: what timed programs have shown, which the answers then rest on.
        unconstrained: the same method planned without the choice; a choice of one backend changes
        the graph, and whoever follows advice does not plan by it.
        """
        described = self.report.plan
        if described is None:
            return self.report
        asked = unconstrained or self
        _, chosen = _corrected(self.planned, factors)
        graph, plan = _corrected(asked.planned, factors)
        advice = advise(
            graph, plan, asked.questions, self.planned.constraints, chosen_ns=chosen.total_ns
        )
        return replace(self.report, plan=replace(described, advice=advice))


def _corrected(planned: Planned, factors: ProgramFactors | None) -> tuple[CostGraph, Plan]:
    if factors is None:
        return planned.graph, planned.plan
    graph = corrected_graph(planned.graph, factors)
    return graph, price_plan(graph, planned.plan.segments, solver=planned.plan.solver)


class OrchestratorPartitioner(Partitioner):  # type: ignore[misc]  # executorch is untyped
    """Splits a program among several backends.

    backends: names or backend objects, the preferred one first; empty for ExecuTorch's kernels
        alone.
    options: how to plan; see `PlanOptions`.
    decompose: ATen ops never to preserve, whatever a backend would like.
    choice: a plan, or part of one, that was decided beforehand.
    solver: makes the plan from the priced graph instead.
    dry_run: plan and report, but delegate nothing.
    rewriting: for whoever can start over (`to_edge_with`): what earlier plans have shown. Without
        it, quantized weights that no delegate takes are expanded by kernels, in every run.
    refused: by backend, nodes that it could not compile, and why; see `collect_candidates`.
    weights: what the methods of the program hold, and the name of this one.

    Attributes:
        results: one entry per partitioned program, in the order of the calls.
        seen: what it noted of a program before it partitioned it.

    Raises:
        BackendError: an unknown backend, or one that cannot be used here.
    """

    def __init__(
        self,
        backends: Iterable[str | Backend] = DEFAULT_BACKENDS,
        options: PlanOptions | None = None,
        *,
        decompose: Iterable[torch._ops.OpOverload] = (),
        choice: Choice | None = None,
        solver: Solver | None = None,
        dry_run: bool = False,
        rewriting: Rewriting | None = None,
        refused: Mapping[str, Mapping[str, str]] | None = None,
        weights: tuple[SharedWeights, str] | None = None,
    ) -> None:
        super().__init__()
        self.backends = resolve_backends(backends, options)
        self.results: list[PartitionedMethod] = []
        self._restarts = rewriting is not None
        self._rewriting = rewriting or Rewriting()
        self._decompose = frozenset(decompose) | self._rewriting.ops
        self._options = options or PlanOptions()
        self._choice = choice or Choice()
        self._solve = solver
        self._dry_run = dry_run
        self._refused = refused or {}
        self._weights = weights
        self._for_kernels = False
        self.seen = Seen()

    def transform_for_pre_decomposition(self, exported_program: ExportedProgram) -> ExportedProgram:
        """Apply the rewrites that help every backend, such as folding batch norms.

        Recurrent layers that a backend wants preserved become ops that ExecuTorch leaves alone.

        Raises:
            ModelError, PlannerError: as `with_recurrent_layers`.
        """
        program = rewrite(
            exported_program,
            decompose=lambda node: (
                node.target in self._decompose or origin(node) in self._rewriting.origins
            ),
            expand=self._rewriting.weights,
            tables=self._tables_taken,
        )
        self.seen.growth = constant_bytes(program) - constant_bytes(exported_program)
        program, self.seen.narrowed = narrow_weights(
            program, self._options.weight_error, self._rewriting.weights
        )
        self.seen.zeros = zero_constants(program)
        chosen = self._wanted_preserved(program, self._choice.only)
        everybody = self._wanted_preserved(program, None)
        self.seen.kept |= {str(op): op for op in chosen.keys() & PRESERVED.keys()}
        return with_recurrent_layers(
            program,
            lambda node: bool(self._wanting(node, recurrent_op(node), chosen)),
            lambda node: bool(self._wanting(node, recurrent_op(node), everybody)),
            [backend.name for backend in self.backends],
        )

    def edge_passes(self) -> list[ExportedProgramPassBase]:
        """Return the passes to run on the edge-dialect program first (`transform_passes`).

        They do without what is read for nothing, have quantized layers read contiguous images, and
        keep the others in channels-last between the delegates that the choice leaves. Constants
        that are read in lists can be copied then.
        """
        passes = [AssignmentsPass(), QuantizedOrderPass()]
        if not self._for_kernels and not self._choice.contiguous:
            only = self._choice.only
            left = [each for each in self.backends if only is None or each.name in only]
            passes.append(ChannelsLastPass(left, self._options))
        return [*passes, NestedConstantsPass()]

    @property
    def preparation(self) -> Preparation:
        """What decides how programs are written when they get here; alike ones may be shared."""
        return Preparation(
            self.backends,
            self._decompose,
            self._rewriting,
            self._choice.only,
            self._choice.decomposed,
            self._options.pins,
            self._options.exclude,
            self._for_kernels,
            self._options.weight_error,
            self._choice.contiguous,
        )

    def saw(self, seen: Seen) -> None:
        """Go by what another partitioner noted, which had the program written alike."""
        self.seen = seen.copy()

    @property
    def limits_partitions(self) -> bool:
        """Whether nodes may have to go to kernels to keep a limit."""
        return self._options.max_partitions is not None

    def write_for_kernels(self) -> None:
        """Leave images but quantized ones as they are, and write tables as kernels take them."""
        self._for_kernels = True

    def ops_to_not_decompose(
        self, ep: ExportedProgram
    ) -> tuple[list[torch._ops.OpOverload], Callable[[Node], bool] | None]:
        """Return the ops that some backend wants preserved; the filter asks it node by node."""
        if not self.backends:
            return [], None
        wanted = self._wanted_preserved(ep, self._choice.only)
        filters = {op: asked for op, asked in wanted.items() if op not in PRESERVED}
        self.seen.kept |= {str(op): op for op in filters}

        def keep(node: Node) -> bool:
            # ExecuTorch asks a second time, after lowering, which ops should have gone to a
            # delegate. Those nodes are in the edge dialect, whose ops have no entry here: one that
            # is left by then has a kernel, or `partition` would have raised.
            # Bodies of control flow are not partitioned.
            op = node.target
            if not isinstance(op, torch._ops.OpOverload) or node.graph is not ep.graph:
                return False
            wanting = self._wanting(node, op, filters)
            if not wanting:
                return False
            key = composite_key(node)
            self.seen.composites[key] = self.seen.composites.get(key, frozenset()) | wanting
            return key not in self._choice.decomposed

        return list(filters), keep

    def _wanted_preserved(self, ep: ExportedProgram, only: Container[str] | None) -> _Filters:
        """Return, by op, the backends that want it preserved, each with its filter of nodes.

        only: names of the backends to ask; None for all.
        """
        filters: _Filters = {}
        for backend in self.backends:
            if only is not None and backend.name not in only:
                continue
            ops, node_filter = preserved(backend, ep)
            wanted = self._where_allowed(backend.name, node_filter)
            for op in ops:
                if op not in self._decompose:
                    filters.setdefault(op, []).append((backend.name, wanted))
        return filters

    def _wanting(self, node: Node, op: torch._ops.OpOverload | None, filters: _Filters) -> set[str]:
        """Return the backends that want a node, which calls `op`, preserved."""
        if op is None or origin(node) in self._rewriting.origins:
            return set()
        return {name for name, wanted in filters.get(op, ()) if wanted(node)}

    def _tables_taken(self, ep: ExportedProgram) -> Callable[[Node], bool]:
        """Return which embeddings some backend takes with the dequantize of their table."""
        if self._for_kernels:
            return no_tables(ep)
        only = self._choice.only
        filters = [
            self._where_allowed(backend.name, tables_taken(backend, ep))
            for backend in self.backends
            if only is None or backend.name in only
        ]
        return lambda node: any(takes(node) for takes in filters)

    def _where_allowed(
        self, backend: str, node_filter: Callable[[Node], bool]
    ) -> Callable[[Node], bool]:
        """Narrow a backend's filter to the nodes that pins and excludes leave to it."""
        options = self._options
        if not options.pins and not options.exclude:
            return node_filter
        return lambda node: may_run_on(node, backend, options) and node_filter(node)

    def partition(self, exported_program: ExportedProgram) -> PartitionResult:
        """Tag the nodes of an edge-dialect program with the delegates they go to.

        Raises:
            UndecomposedOpError: a backend did not take a node that was preserved for it.
            StartOver: the same, or no delegate takes weights as they are, and the flow can be run
                once more.
        PlannerError, OptionError: constraints that cannot be met.
        CostTableError, TargetError: costs that were asked for cannot be had.
        """
        note_zeros(exported_program, self.seen.zeros)
        tags: dict[str, DelegationSpec] = {}
        elsewhere: set[str] = set()
        notes = []
        prices: dict[Node, float] = {}  # by cond, of its costlier branch
        for branch in branches_of(exported_program):
            notes.append(self._plan_branch(branch, tags, elsewhere, prices))
        candidates = collect_candidates(exported_program, self.backends, self._refused)
        # Patterns that name something in a branch alone are no mistake.
        elsewhere -= patterns_found(self._options, candidates)
        options = with_patterns(
            self._options, {*self._options.pins, *self._options.exclude} - elsewhere
        )
        self._expand_what_is_kept_off(exported_program, candidates, options)
        planned = make_plan(
            exported_program,
            candidates,
            self.backends,
            options,
            self._choice,
            self._solve,
            prices,
            self._kept_together(exported_program, candidates),
        )
        if self._weights is not None:
            weights, method = self._weights
            weights.learn(method, exported_program, candidates, planned.plan)
        planned = replace(planned, composites=dict(self.seen.composites))
        plan = planned.plan.noting(*notes, *self._notes_on_weights())
        check_segments(planned.graph, plan.segments)
        tags |= self._tag(exported_program, candidates, plan.partitions)
        self._check_what_is_left(exported_program, candidates)
        report = describe_method(
            exported_program, candidates, plan, planned.graph, calls=planned.constraints.calls
        )
        report = replace(report, weight_error=self._options.weight_error)
        estimated = AnalyticCosts(estimates_of(self.backends), threads=1)
        asked = questions(candidates, planned.graph, estimated.estimate_ns)
        self.results.append(PartitionedMethod(plan, report, planned, asked))
        if self._dry_run:
            for node in (*exported_program.graph.nodes, *branch_nodes(exported_program)):
                node.meta.pop("delegation_tag", None)
            tags = {}
        return PartitionResult(tagged_exported_program=exported_program, partition_tags=tags)

    def _kept_together(
        self, ep: ExportedProgram, candidates: Candidates
    ) -> Callable[[CostGraph, Constraints], tuple[Exclude, ...]] | None:
        """Return what keeps weights where methods before this one have them."""
        if self._weights is None:
            return None
        weights, method = self._weights
        return lambda graph, asked: weights.constrained(method, ep, candidates, graph, asked)

    def _notes_on_weights(self) -> Iterator[str]:
        yield from self.seen.narrowed.notes(self._options.weight_error)
        names = sorted(self._rewriting.weights - self.seen.narrowed.kept)
        if names:
            some = ", ".join(names[:3]) + (", and others" if len(names) > 3 else "")
            yield (
                f"{len(names)} quantized weights are stored as floats ({some}), as no delegate "
                f"takes them as they are with their layers: {self.seen.growth / 1e6:.2f} MB more."
            )

    def _plan_branch(
        self,
        branch: Branch,
        tags: dict[str, DelegationSpec],
        patterns: set[str],
        prices: dict[Node, float],
    ) -> str:
        """Plan a branch by itself, tag its nodes, and price its cond; returns what to note.

        A limit on partitions leaves it to kernels. Weights are inputs of a branch, so that no
        delegate holds any.

        tags, patterns, prices: added to are the delegates', those that name something in the
            branch, and what the cond takes.
        """
        program = branch.program
        candidates = collect_candidates(program, self.backends, self._refused)
        found = patterns_found(self._options, candidates)
        patterns |= found
        options = replace(
            with_patterns(self._options, found),
            tune="cached" if self._options.tune == "measure" else self._options.tune,
            max_partitions=None,
            max_duplicated_bytes=None,
            max_private_bytes=None,
        )
        only = () if self.limits_partitions else self._choice.only
        planned = make_plan(
            program, candidates, self.backends, options, Choice(only=only), known_ns=prices
        )
        plan = planned.plan
        tags |= self._tag(program, candidates, plan.partitions, f"{branch.name}_")
        prices[branch.cond] = max(prices.get(branch.cond, 0.0), plan.total_ns)
        counts = Counter[str]()
        for segment in plan.segments:
            place = segment.backend if segment in plan.partitions else "kernels"
            counts[place] += len(list(candidates.nodes(segment.atoms)))
        where = ", ".join(f"{count} on {place}" for place, count in counts.items())
        return f"Nodes of {branch.name}, a branch of {branch.cond.name}: {where or 'none'}."

    def _tag(
        self,
        ep: ExportedProgram,
        candidates: Candidates,
        segments: Sequence[Segment],
        prefix: str = "",
    ) -> dict[str, DelegationSpec]:
        specs = {backend.name: delegation_spec(backend) for backend in self.backends}
        tags: dict[str, DelegationSpec] = {}
        for index, segment in enumerate(segments):
            tag = f"{prefix}{segment.backend}_{index}"
            tags[tag] = specs[segment.backend]
            for node in candidates.nodes(segment.atoms):
                node.meta["delegation_tag"] = tag
        _tag_constants(ep, candidates, segments)
        return tags

    def _check_what_is_left(self, ep: ExportedProgram, candidates: Candidates) -> None:
        """Look for what kernels cannot run, or could only run slowly, as it is written."""
        stranded = [
            node
            for node in compute_nodes(ep)
            if "delegation_tag" not in node.meta
            and (op_name(node) in self.seen.kept or is_custom_composite(node))
            and missing_kernel(node)
        ]
        if self._restarts:
            changed = self._rewriting.adding(stranded, self._weights_left(ep, candidates))
            if changed != self._rewriting:
                raise StartOver(changed)
        if stranded:
            raise UndecomposedOpError(stranded, tuple(dict.fromkeys(map(aten_op, stranded))))

    def _expand_what_is_kept_off(
        self, ep: ExportedProgram, candidates: Candidates, options: PlanOptions
    ) -> None:
        """Start over with floats for quantized weights that only delegates expand, and may not.

        Pins and excludes may keep them from all that take them, and no delegate may be called.
        """
        if not self._restarts:
            return
        allowed = {
            node
            for atom in candidates.atoms
            for node in atom.nodes
            if not (self._for_kernels and options.max_partitions == 0)
            and any(
                all(may_run_on(each, name, options) for each in atom.nodes)
                for name in atom.backends
            )
        }
        kept_off = {
            weight
            for node, weight in dequantized_weights(ep)
            if node not in allowed and missing_kernel(node)
        }
        changed = self._rewriting.adding((), kept_off)
        if changed != self._rewriting:
            raise StartOver(changed)

    def _weights_left(self, ep: ExportedProgram, candidates: Candidates) -> set[str]:
        """The quantized weights that no delegate takes."""
        only = self._choice.only
        taken = {
            node
            for atom in candidates.atoms
            if any(only is None or name in only for name in atom.backends)
            for node in atom.nodes
        }
        return {weight for node, weight in dequantized_weights(ep) if node not in taken}


def _tag_constants(
    ep: ExportedProgram, candidates: Candidates, segments: Sequence[Segment]
) -> None:
    """Move weights into the delegates that want them.

    ExecuTorch gives every further user of a tagged constant a copy, which named data stores once.
    It cannot where such a user has the constant in a list: that stays outside, if the pass that
    sees to it (`NestedConstantsPass`) was not run.
    Buffers that the program changes stay outside: they reach delegates as inputs and outputs, so
    no two delegates can disagree about them.
    """
    mutated = mutated_buffers(ep)
    owners: dict[Node, str] = {}
    for segment in segments:
        wanted = candidates.constants[segment.backend]
        for node in candidates.nodes(segment.atoms):
            for constant in wanted.get(node, frozenset()) - mutated:
                owners.setdefault(constant, node.meta["delegation_tag"])
    for constant, tag in owners.items():
        others = (user for user in constant.users if user.meta.get("delegation_tag") != tag)
        if not any(reads_nested(user, constant) for user in others):
            constant.meta["delegation_tag"] = tag
