"""What prices the choices of one program, and the model that needs no measurement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch.fx import Node

from orchestrator.backends.base import Backend, Estimates
from orchestrator.backends.candidates import Atom
from orchestrator.backends.portable import ESTIMATES
from orchestrator.backends.portable import NAME as KERNELS
from orchestrator.cost.analytic import atom_family, estimate_ns
from orchestrator.graph.layouts import conversion, wants_channels_last
from orchestrator.planner import UNKNOWN, AtomCost, Cost, Flow, Layout, Price, Transfer


class CostModel(Protocol):
    """Prices the choices of one program; backends go by their names."""

    def call_overhead_ns(self, backend: str) -> float:
        """What a delegate call costs beside the work in it, in ns; 0 for kernels."""

    def atom(self, atom: Atom, backend: str, layouts: tuple[Layout, ...]) -> AtomCost:
        """What an atom costs on a backend that takes it.

        layouts: those that its tensors can have inside a segment; for one that changes the
            layout, the one that it reads.
        """

    def transfer(self, backend: str, nbytes: int, layouts: tuple[Layout, ...]) -> Transfer:
        """What moving a tensor of this size between memory and a segment costs."""


class Unpriced:
    """Knows no cost: for plans by capability alone."""

    def call_overhead_ns(self, backend: str) -> float:
        """Return 0."""
        return 0.0

    def atom(self, atom: Atom, backend: str, layouts: tuple[Layout, ...]) -> AtomCost:
        """Return UNKNOWN."""
        return UNKNOWN

    def transfer(self, backend: str, nbytes: int, layouts: tuple[Layout, ...]) -> Transfer:
        """Return a transfer that costs nothing."""
        return Transfer()


@dataclass(frozen=True)
class AnalyticCosts:
    """Estimates from shapes (see `analytic`), for any backend.

    estimates: by backend; see `estimates_of`. threads: that the program will run on. known_ns: of
        nodes whose time is known, see `analytic.estimate_ns`.
    """

    estimates: Mapping[str, Estimates]
    threads: int
    known_ns: Mapping[Node, float] = field(default_factory=dict)

    def estimate_ns(self, nodes: Sequence[Node], backend: str) -> float:
        """Return the time of some nodes on a backend; see `analytic.estimate_ns`."""
        return estimate_ns(nodes, self.estimates[backend], self.threads, self.known_ns)

    def call_overhead_ns(self, backend: str) -> float:
        """Return a typical overhead."""
        return self.estimates[backend].call_ns

    def atom(self, atom: Atom, backend: str, layouts: tuple[Layout, ...]) -> AtomCost:
        """Return the roofline's time; image ops of delegates compute in channels-last only."""
        estimates = self.estimates[backend]
        ns = self.estimate_ns(atom.nodes, backend)
        kind = atom_family(atom.nodes)
        spread = estimates.rates[kind].spread
        price = Price(ns, spread * ns, f"estimate of {backend}, {kind}")
        if backend == KERNELS:
            return price
        changes = conversion(atom.nodes)
        if changes is not None:
            by_flow: dict[Flow, Cost] = {changes: price}
            return by_flow
        if Layout.CHANNELS_LAST not in layouts:
            return price
        if any(map(wants_channels_last, atom.nodes)):
            in_order: dict[Layout, Cost] = {Layout.CHANNELS_LAST: price}
            return in_order
        return price

    def transfer(self, backend: str, nbytes: int, layouts: tuple[Layout, ...]) -> Transfer:
        """Return the price of changing a layout; tensors are read and written in place."""
        if len(layouts) < 2:
            return Transfer()
        rate = self.estimates[backend].convert_ns_per_byte
        return Transfer(convert_ns=nbytes * rate / max(self.threads, 1) ** 0.5)


def estimates_of(backends: Iterable[Backend]) -> dict[str, Estimates]:
    """Return the estimates of some delegates, by name, and of ExecuTorch's kernels."""
    return {backend.name: backend.estimates for backend in backends} | {KERNELS: ESTIMATES}
