"""Prices from the cost table; what it lacks is estimated, on the scale of what it has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from orchestrator.backends.candidates import Atom, runs_on
from orchestrator.backends.portable import NAME as KERNELS
from orchestrator.cost.analytic import family
from orchestrator.cost.calibration import Calibration
from orchestrator.cost.environment import Environment
from orchestrator.cost.keys import AtomKeys
from orchestrator.cost.model import AnalyticCosts
from orchestrator.cost.table import CostTable, Measurement
from orchestrator.graph.layouts import conversion
from orchestrator.graph.queries import is_view
from orchestrator.planner import UNKNOWN, AtomCost, Cost, Layout, NoPrice, Price, Transfer

# No atom takes less: below that, the clock and the call around it are what was seen.
_LEAST_NS = 50.0


class MeasuredCosts:
    """Prices of one program's atoms from the cost table of an environment.

    What was not measured is estimated as in `AnalyticCosts`, times what measured atoms of the same
    backend and family in this program took over their estimates, so that the two can be compared.
    On kernels, times what the same atom took on delegates over its estimates there: kernels are
    left unmeasured where the estimates rule them out, and what was ruled out has to stay so.

    environments: by backend, ExecuTorch's kernels among them.

    Attributes:
        known, wanted: how many of the prices asked for so far were measured, and how many in all.
    """

    def __init__(
        self,
        keys: AtomKeys,
        table: CostTable,
        environments: Mapping[str, Environment],
        calibration: Calibration,
        estimated: AnalyticCosts,
    ) -> None:
        self.known = 0
        self.wanted = 0
        self._keys = keys
        self._calibration = calibration
        self._analytic = estimated
        wanted = set(keys.all_keys())
        self._times: Mapping[str, Mapping[str, Measurement]] = {
            name: table.get(environment, name, wanted) for name, environment in environments.items()
        }
        self._scales = self._find_scales()

    def call_overhead_ns(self, backend: str) -> float:
        """Return the overhead in whole programs, or else that was calibrated, or a typical one."""
        return self._call_ns(backend) + self._calibration.program_call_ns.get(backend, 0.0)

    def _call_ns(self, backend: str) -> float:
        """What a call takes that is made again and again, as where ops are measured."""
        measured = self._calibration.call_ns.get(backend)
        return self._analytic.call_overhead_ns(backend) if measured is None else measured

    def atom(self, atom: Atom, backend: str, layouts: tuple[Layout, ...]) -> AtomCost:
        """Return the measured price in each layout; one layout may be missing, or all estimated."""
        if all(map(is_view, atom.nodes)):
            return Price(0.0)
        self.wanted += 1
        prices = {layout: self._price(atom, backend, layout) for layout in layouts}
        if any(isinstance(price, Price) for price in prices.values()):
            self.known += 1
            if backend == KERNELS:  # its kernels take tensors as they lie in memory
                return next(price for price in prices.values() if isinstance(price, Price))
            changes = conversion(atom.nodes)
            return dict(prices) if changes is None else {changes: prices[changes.reads]}
        return self._estimate(atom, backend, layouts)

    def transfer(self, backend: str, nbytes: int, layouts: tuple[Layout, ...]) -> Transfer:
        """Return the calibrated price of changing a layout."""
        rate = self._calibration.convert_ns_per_byte.get(backend)
        if rate is None or len(layouts) < 2:
            return self._analytic.transfer(backend, nbytes, layouts)
        return Transfer(convert_ns=nbytes * rate)

    def _price(self, atom: Atom, backend: str, layout: Layout) -> Price | NoPrice:
        key = self._keys.key(atom, layout)
        found = self._times[backend].get(key)
        if found is None or found.failed:
            return UNKNOWN
        alone = Price(max(found.median_ns, _LEAST_NS), found.spread_ns, f"{backend} {key}")
        return alone.times(self._factor(backend))

    def _factor(self, backend: str) -> float:
        return self._calibration.program_factor.get(backend, 1.0)

    def _estimate(self, atom: Atom, backend: str, layouts: tuple[Layout, ...]) -> AtomCost:
        scale = self._scale(atom, backend)
        cost = self._analytic.atom(atom, backend, layouts)
        if isinstance(cost, Mapping):
            return {key: _scaled(price, scale) for key, price in cost.items()}  # type: ignore[return-value]
        return _scaled(cost, scale)

    def _find_scales(self) -> dict[_Place, float]:
        """What measured atoms took over their estimates.

        By backend and family, over all families (""), over all backends (""), and by atom.
        """
        ratios: dict[_Place, list[tuple[float, float]]] = defaultdict(list)
        for atom in self._keys.atoms:
            for name in runs_on(atom):
                prices = [self._price(atom, name, layout) for layout in self._keys.layouts(atom)]
                least = min((each.ns for each in prices if isinstance(each, Price)), default=0.0)
                if least <= self._factor(name) * _LEAST_NS:
                    continue  # too little to tell from the call around it
                estimate = max(self._analytic.estimate_ns(atom.nodes, name), 1.0)
                kind = family(atom.nodes[0])
                for place in ((name, kind), (name, ""), ("", kind), ("", ""), (atom.id,)):
                    ratios[place].append((least / estimate, estimate))
        return {place: _weighted_median(values) for place, values in ratios.items()}

    def _scale(self, atom: Atom, backend: str) -> float:
        kind, own = family(atom.nodes[0]), (atom.id,)
        first: list[_Place] = [(backend, kind), own]
        if backend == KERNELS:
            first.reverse()
        for place in (*first, (backend, ""), ("", kind), ("", "")):
            if place in self._scales:
                return self._scales[place]
        return 1.0


# Whose ratios to look at: a backend and a family of ops, or an atom.
_Place = tuple[str, str] | tuple[str]


def _scaled(cost: Cost, scale: float) -> Cost:
    return cost.times(scale) if isinstance(cost, Price) else cost


def _weighted_median(values: Iterable[tuple[float, float]]) -> float:
    """The value with half of the weight on either side; each comes with its weight."""
    ordered = sorted(values)
    half = sum(weight for _, weight in ordered) / 2
    below = 0.0
    for value, weight in ordered:
        below += weight
        if below >= half:
            return value
    raise ValueError("no values")
