"""The atoms of one program as things to measure: keys, layouts, tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends.base import Backend
from orchestrator.backends.candidates import Atom, Candidates, runs_on
from orchestrator.backends.portable import NAME as KERNELS
from orchestrator.cost.extract import CHANNELS_LAST_RANK, AtomProgram, extract, label, signature
from orchestrator.cost.model import AnalyticCosts, estimates_of
from orchestrator.cost.task import Task
from orchestrator.graph.layouts import image_nodes, layouts_of
from orchestrator.graph.queries import constant_nodes, is_view
from orchestrator.planner import Layout

# Kernels are worth measuring only where they may be chosen.
_HOPELESS = 4.0


class AtomKeys:
    """The atoms of one program with the keys under which their times are stored."""

    def __init__(self, ep: ExportedProgram, candidates: Candidates) -> None:
        self.atoms = [atom for atom in candidates.atoms if not all(map(is_view, atom.nodes))]
        self._ep = ep
        self._constants = constant_nodes(ep)
        self._images = image_nodes(ep)
        self._keys: dict[tuple[str, Layout], str] = {}

    def layouts(self, atom: Atom) -> tuple[Layout, ...]:
        """Return the layouts that an atom can compute in."""
        return layouts_of(atom.nodes, self._images)

    def key(self, atom: Atom, layout: Layout) -> str:
        """Return the key of an atom in a layout."""
        place = (atom.id, layout)
        if place not in self._keys:
            self._keys[place] = signature(atom.nodes, self._constants, layout)
        return self._keys[place]

    def all_keys(self) -> Iterator[str]:
        """Yield every key."""
        return (self.key(atom, layout) for atom in self.atoms for layout in self.layouts(atom))

    def tasks(self, backends: Sequence[Backend], threads: int) -> Iterator[Task]:
        """Yield what to measure: every atom on everything that may win it, in each layout.

        backends: the delegates that may be used.
        """
        by_name: dict[str, Backend | None] = {backend.name: backend for backend in backends}
        estimated = AnalyticCosts(estimates_of(backends), threads)
        by_name[KERNELS] = None
        for atom in self.atoms:
            names = [name for name in runs_on(atom) if name in by_name]
            if _kernels_are_hopeless(atom, names, estimated):
                names.remove(KERNELS)
            for layout in self.layouts(atom):
                for name in names:
                    backend = by_name[name]
                    if backend is None:  # kernels take tensors as they lie in memory
                        if layout is not self.layouts(atom)[0]:
                            continue
                    elif layout not in backend.boundary_layouts(CHANNELS_LAST_RANK):
                        continue
                    yield Task(
                        self.key(atom, layout),
                        label(atom.nodes),
                        backend,
                        _extractor(self._ep, atom.nodes, layout),
                    )


def _extractor(
    ep: ExportedProgram, nodes: Sequence[Node], layout: Layout
) -> Callable[[], AtomProgram]:
    return lambda: extract(ep, nodes, layout)


def _kernels_are_hopeless(atom: Atom, names: Sequence[str], estimated: AnalyticCosts) -> bool:
    if KERNELS not in names or len(names) == 1:
        return False
    delegates = min(
        estimated.call_overhead_ns(name) + estimated.estimate_ns(atom.nodes, name)
        for name in names
        if name != KERNELS
    )
    return estimated.estimate_ns(atom.nodes, KERNELS) > _HOPELESS * delegates
