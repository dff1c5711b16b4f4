"""What prices the choices of one program, and the model that needs no measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestrator.backends.candidates import Atom
from orchestrator.cost.analytic import (
    CALL_OVERHEAD_NS,
    CONVERT_NS_PER_BYTE,
    DEFAULT_CALL_OVERHEAD_NS,
    atom_family,
    estimate_ns,
    relative_spread,
)
from orchestrator.dim_orders.layouts import conversion, wants_channels_last
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

    threads: that the program will run on. kernels: the name of ExecuTorch's kernels, which have no
        call overhead and change no layout.
    """

    threads: int
    kernels: str = "portable"

    def call_overhead_ns(self, backend: str) -> float:
        """Return a typical overhead."""
        if backend == self.kernels:
            return 0.0
        return CALL_OVERHEAD_NS.get(backend, DEFAULT_CALL_OVERHEAD_NS)

    def atom(self, atom: Atom, backend: str, layouts: tuple[Layout, ...]) -> AtomCost:
        """Return the roofline's time; image ops of delegates compute in channels-last only."""
        ns = estimate_ns(atom.nodes, backend, self.threads)
        kind = atom_family(atom.nodes)
        price = Price(ns, relative_spread(backend, kind) * ns, f"estimate of {backend}, {kind}")
        if backend == self.kernels:
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
        if backend == self.kernels or len(layouts) < 2:
            return Transfer()
        return Transfer(convert_ns=nbytes * CONVERT_NS_PER_BYTE / max(self.threads, 1) ** 0.5)
