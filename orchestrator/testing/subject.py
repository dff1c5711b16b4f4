"""A backend under test: what it says of the kit's models, and programs lowered with it alone."""

from __future__ import annotations

import copy
import functools
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from executorch.exir.lowered_backend_module import get_lowered_submodules
from executorch.exir.program._fake_program import get_fake_program
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends.base import Backend, Candidate, Support, load_options
from orchestrator.backends.checks import proposed
from orchestrator.backends.portable import missing_kernel
from orchestrator.dry_run import edge_program
from orchestrator.edge_programs import EdgePrograms
from orchestrator.flow import to_edge_with
from orchestrator.frontend.torch_state import as_in_lowering
from orchestrator.graph.queries import compute_nodes, has_default_dim_order, is_getitem
from orchestrator.lowering import LoweringWarning, lower
from orchestrator.native import NativeProgram
from orchestrator.options import KERNELS, PlanOptions
from orchestrator.partitioner import OrchestratorPartitioner
from orchestrator.planner import CostGraph, Plan, Segment, price_plan, split_into_segments
from orchestrator.program import LoweredProgram
from orchestrator.quiet import quiet_imports
from orchestrator.testing.cases import Case

Cut = Callable[[Sequence[str]], Iterable[Sequence[str]]]
"""Makes calls of atoms of the backend that follow each other."""


@dataclass(frozen=True)
class Lowered:
    """A program of one model."""

    program: LoweredProgram

    @property
    def calls(self) -> tuple[tuple[str, ...], ...]:
        """The nodes of each delegate call."""
        return tuple(part.nodes for part in self.program.report.methods[0].partitions)


@dataclass(frozen=True)
class Delegated:
    """A program after its delegates were compiled. planned: the nodes that were to be in them."""

    program: ExportedProgram
    planned: tuple[tuple[str, ...], ...]

    @property
    def nodes(self) -> Mapping[str, str]:
        """The ids of delegates by the nodes in them."""
        found = {}
        for _, module, _ in get_lowered_submodules(self.program.graph_module):
            for node in module.original_module.graph.nodes:
                if node.op == "call_function":
                    found[node.name] = module.backend_id
        return found


@dataclass(eq=False)
class Subject:
    """A backend, with what was made of it so far."""

    backend: Backend
    _edges: dict[Case, ExportedProgram] = field(default_factory=dict)
    _supports: dict[Case, Support] = field(default_factory=dict)
    _lowered: dict[tuple[Case, str], Lowered] = field(default_factory=dict)
    _delegated: dict[tuple[Case, Cut | None], Delegated] = field(default_factory=dict)
    _prepared: EdgePrograms = field(default_factory=EdgePrograms)
    _divided: Backend | None = None

    @classmethod
    def of(cls, backend: Backend) -> Subject:
        """Return the same subject for the same backend."""
        if backend not in _SUBJECTS:
            _SUBJECTS[backend] = cls(backend)
        return _SUBJECTS[backend]

    @property
    def tolerance(self) -> float:
        """By how much of the largest value results may be off."""
        return max(1e-4, self.backend.tolerance)

    @property
    def options(self) -> PlanOptions:
        """How programs are planned: all that the backend takes goes to it."""
        return PlanOptions(strategy="greedy", tune="off", tolerance=self.backend.tolerance)

    def edge(self, case: Case) -> ExportedProgram:
        """Return a model in the edge dialect, with its weights, as the backend is asked about.

        Where its answers are such that there is none, as it is without the backend.
        """
        if case not in self._edges:
            with quiet_imports():
                try:
                    edge = edge_program(case.exported(), [self.backend], self.options)
                except Exception:  # rules about propose say what is wrong
                    edge = edge_program(case.exported(), [], self.options)
            self._edges[case] = edge
        return self._edges[case]

    def fake(self, case: Case) -> ExportedProgram:
        """Return a copy of it without values of weights, as ExecuTorch asks about it."""
        fake: ExportedProgram = get_fake_program(self.edge(case))
        return fake

    def support(self, case: Case) -> Support:
        """Return what the backend says of a model."""
        if case not in self._supports:
            self._supports[case] = proposed(self.backend, self.edge(case))
        return self._supports[case]

    def taken(self, case: Case) -> list[Node]:
        """Return the nodes that it takes, in graph order."""
        nodes = {node for each in self.support(case).candidates for node in each.nodes}
        return [node for node in compute_nodes(self.edge(case)) if node in nodes]

    def lowered(self, case: Case, *, anew: bool = False) -> Lowered:
        """Return a model as `lower` makes it with this backend alone."""
        return self._lower(case, self.backend, "whole", {}, anew)

    def lowered_apart(self, case: Case) -> Lowered:
        """Return it with each node that can be alone in a call of its own."""
        return self._lower(case, self._alone(), "apart", {}, False)

    def lowered_with_gaps(self, case: Case) -> Lowered:
        """Return it with every third node left to kernels, where they have it."""
        taken = [node for node in self.taken(case) if not is_getitem(node)]
        if len(taken) < 2:
            return self.lowered_apart(case)
        left = [each for each in taken if not missing_kernel(each) and has_default_dim_order(each)]
        pins = {node.name: KERNELS for node in left[1::3]}
        return self._lower(case, self._alone(), "gaps", pins, False)

    def native(self, lowered: Lowered, threads: int = 0) -> NativeProgram:
        """Load a program, with the options that the backend asks for."""
        options = load_options([self.backend], threads or 2)
        return NativeProgram(lowered.program.buffer, num_threads=threads, backend_options=options)

    def delegated(self, case: Case, cut: Cut | None = None) -> Delegated:
        """Compile the delegates of a model, in the calls that a cut makes of the backend's atoms.

        Raises:
            LoweringError: the backend failed; the message names the nodes.
        """
        known = self._delegated.get((case, cut))
        if known is not None:
            return known
        backend = self.backend if cut is None else self._apart()

        def solve(graph: CostGraph) -> Plan:
            return price_plan(graph, _segments(graph, backend.name, cut), solver="kit")

        programs = {"forward": case.exported()}
        with quiet_imports(), as_in_lowering(programs.values()):
            edge, partitioners = to_edge_with(
                programs,
                lambda _, rewriting: OrchestratorPartitioner(
                    [backend], self.options, rewriting=rewriting, solver=solve
                ),
                prepared=self._prepared,
            )
        report = partitioners["forward"].results[-1].report
        calls = tuple(segment.nodes for segment in report.partitions)
        made = self._delegated[case, cut] = Delegated(edge.exported_program("forward"), calls)
        return made

    def _lower(
        self, case: Case, backend: Backend, way: str, pins: dict[str, str], anew: bool
    ) -> Lowered:
        known = self._lowered.get((case, way))
        if known is None or anew:
            with warnings.catch_warnings():
                # What does not compile is left to kernels here, and is a rule's of claims.
                warnings.simplefilter("ignore", LoweringWarning)
                program = lower(
                    case.exported(),
                    backends=[backend],
                    strategy="greedy",
                    tune="off",
                    tolerance=backend.tolerance,
                    pins=pins,
                )
            known = self._lowered[case, way] = Lowered(program)
        return known

    def _apart(self) -> Backend:
        if self._divided is None:
            self._divided = divided(self.backend)
        return self._divided

    def _alone(self) -> Backend:
        return alone(self.backend)


_SUBJECTS: WeakKeyDictionary[Backend, Subject] = WeakKeyDictionary()


@functools.cache
def meta_keys(case: Case) -> frozenset[str]:
    """Return what nodes of a model have in their `meta` that no backend was asked about."""
    with quiet_imports():
        edge = edge_program(case.exported(), [], PlanOptions(tune="off"))
    return frozenset(key for node in edge.graph.nodes for key in node.meta)


def divided(backend: Backend) -> Backend:
    """Return a backend that offers each node of what is divisible by itself."""
    other: Any = copy.copy(backend)

    def propose(ep: ExportedProgram) -> Support:
        support = proposed(backend, ep)
        return Support(
            [part for each in support.candidates for part in _parts(each)], support.rejections
        )

    other.propose = propose
    return other  # type: ignore[no-any-return]


def alone(backend: Backend) -> Backend:
    """Return a backend that has each node in a call of its own, unless it may not be parted."""
    other: Any = divided(backend)
    divided_answer = other.propose
    units: dict[Node, int] = {}

    def propose(ep: ExportedProgram) -> Support:
        support: Support = divided_answer(ep)
        for node in ep.graph.nodes:
            units.pop(node, None)
        for number, each in enumerate(support.candidates):
            joined = {units[node] for node in each.nodes if node in units}
            for node in each.nodes:
                units[node] = number
            for node, unit in units.items():
                if unit in joined:
                    units[node] = number
        return support

    def check_segment(nodes: Sequence[Node]) -> str | None:
        if len({units[node] for node in nodes if node in units}) > 1:
            return "the kit wants every node in a call of its own"
        return backend.check_segment(nodes)

    other.propose, other.check_segment = propose, check_segment
    return other  # type: ignore[no-any-return]


def _parts(candidate: Candidate) -> Iterator[Candidate]:
    if not candidate.divisible:
        yield candidate
        return
    for node in candidate.nodes:
        constants = tuple(each for each in candidate.constants if each in node.all_input_nodes)
        yield Candidate((node,), constants)


def _segments(graph: CostGraph, backend: str, cut: Cut | None) -> list[Segment]:
    """Give a backend all that it takes, in as few calls as can be, or in those of a cut."""
    places = {
        atom.id: backend if graph.capable(atom.id, backend) else KERNELS for atom in graph.atoms
    }
    if cut is None:
        return split_into_segments(graph, places)
    segments = []
    order = [graph.atoms[index].id for index in graph.order]
    for place, group in itertools.groupby(order, key=places.__getitem__):
        atoms = list(group)
        calls = cut(atoms) if place == backend else [atoms]
        segments += [Segment(place, tuple(each), place == backend) for each in calls]
    return segments
