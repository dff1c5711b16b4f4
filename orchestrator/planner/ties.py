"""Which costs, and which plans, cannot be told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from .cost_graph import CostGraph, Option
from .elements import Price
from .plan import Plan
from .spreads import add_spreads, merge_spreads

# Tie-break weight: what is left of a difference within the spread, to decide between plans of as
# many calls.
_REST = 1e-4


def has_spreads(allowed: Sequence[Sequence[Option]]) -> bool:
    """Whether any cost has a spread, so that more than equal costs can be ties."""
    return any(option.price and option.price.spread_ns for options in allowed for option in options)


def levelled(
    allowed: Sequence[Sequence[Option]], part: float, held: Sequence[Sequence[int]] | None = None
) -> list[list[Option]]:
    """Make each atom's options cost as much as its cheapest where they cannot be told from it.

    An option costs more than the cheapest only by what exceeds the given part of the spread of
    their difference. Options of unknown cost stay as they are.

    held: bytes of memory that each option takes, in the order of `allowed`; among equals, those
        that take less then cost less.
    """
    rows = [[_levelled(option, options, part) for option in options] for options in allowed]
    if held is None:
        return rows
    most = sum(max(row, default=0) for row in held)
    # All of that memory together costs what cannot be told apart of all atoms together.
    spread = part * sum(max(map(_spread, options), default=0.0) for options in allowed)
    per_byte = spread / most if most else 0.0
    return [
        [_dearer(option, per_byte * size) for option, size in zip(row, sizes, strict=True)]
        for row, sizes in zip(rows, held, strict=True)
    ]


def _spread(option: Option) -> float:
    return option.price.spread_ns if option.price else 0.0


def _dearer(option: Option, ns: float) -> Option:
    if option.price is None:
        return option
    return replace(option, price=replace(option.price, ns=option.price.ns + ns))


def _levelled(option: Option, options: Sequence[Option], part: float) -> Option:
    price = option.price
    known = [each.price for each in options if each.price is not None]
    if price is None or not known:
        return option
    least = min(known, key=lambda each: each.ns)
    more = price.ns - least.ns
    tie = part * math.hypot(*add_spreads((price, least)).values())
    beyond = max(0.0, more - tie)
    return replace(option, price=Price(least.ns + beyond + _REST * (more - beyond)))


def is_tie(graph: CostGraph, best: Plan, other: Plan) -> bool:
    """Whether two plans differ by no more than the spread of what they do differently."""
    mine, theirs = [], []
    for index, atom in enumerate(graph.atoms):
        choices = [(plan.assignment[atom.id], plan.flows[atom.id]) for plan in (best, other)]
        if choices[0] != choices[1]:
            mine += _prices(graph, graph.options[index], choices[0])
            theirs += _prices(graph, graph.options[index], choices[1])
    spread = merge_spreads((add_spreads(theirs), add_spreads(mine, sign=-1)))
    return other.total_ns - best.total_ns <= math.hypot(*spread.values())


def _prices(graph: CostGraph, options: Sequence[Option], choice: object) -> list[Price]:
    for option in options:
        if (graph.backends[option.backend].name, option.flow) == choice and option.price:
            return [option.price]
    return []
