"""How far sums of prices may be off.

Prices of one source (`Price.source`) err alike, so that their spreads add up; those of different
sources, and those without one, err independently. That an op is estimated to be a tenth faster on
one backend is one claim, and no more certain for being made of a hundred layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from .elements import Price


def add_spreads(prices: Iterable[Price], sign: int = 1) -> dict[str, float]:
    """Add up spreads by source; what has no source is one entry, under the empty name."""
    found: dict[str, float] = {}
    for price in prices:
        before = found.get(price.source, 0.0)
        if price.source:
            found[price.source] = before + sign * price.spread_ns
        else:
            found[price.source] = math.hypot(before, price.spread_ns)
    return found


def merge_spreads(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Merge what `add_spreads` found of the parts of a whole."""
    return add_spreads(Price(0.0, ns, source) for part in parts for source, ns in part.items())
