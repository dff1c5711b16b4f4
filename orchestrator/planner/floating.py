"""Atoms that could run at almost any time: small groups fed by the caller alone or feeding nothing.

A mask that every layer prepares anew, or an output that is reshaped for the caller, is ready long
before it is needed, or can wait for long. Each doubles the number of ideals and leaves no cuts. The
restricted search runs them next to their users (or makers), either in the open segment or detached:
in a call of their own before (or after) it. Real plans lose little by that: such an atom can no
longer share the call of some unrelated segment far away. How much at most is told by the relaxed
search, in which such atoms read for nothing and running detached takes no call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Floating = Literal["early", "late"]

# Larger groups are worth a place of their own in the order.
_MOST_IN_GROUP = 6


@dataclass(frozen=True)
class NearOrder:
    """A topological order with floating atoms next to their users or makers; atom indices.

    early: those that depend on no other atoms than early ones, and so can be moved ahead at will.
    late: those that only late ones depend on.
    """

    order: tuple[int, ...]
    early: frozenset[int]
    late: frozenset[int]


def near_order(
    order: Sequence[int], preds: Sequence[Sequence[int]], succs: Sequence[Sequence[int]]
) -> NearOrder:
    """Find the floating atoms of a graph and move them; `order` is any topological one."""
    slack = _slack(order, preds, succs)
    early = _floating(order, preds, slack)
    late = _floating(order[::-1], succs, slack) - early
    placed: dict[int, None] = {}

    def place(atom: int) -> None:
        """Place an atom after the early ones it needs, and before the late ones that need it."""
        waiting = [atom]
        while waiting:
            top = waiting[-1]
            missing = [p for p in preds[top] if p not in placed]
            if missing:
                waiting += missing[::-1]
                continue
            waiting.pop()
            if top not in placed:
                placed[top] = None
                waiting += [s for s in reversed(succs[top]) if s in late and can_follow(s)]

    def can_follow(atom: int) -> bool:
        return all(p in placed or p in early for p in preds[atom])

    for atom in order:
        if atom not in early and atom not in late:
            place(atom)
    for atom in order:
        place(atom)
    return NearOrder(tuple(placed), early, late)


def _slack(
    order: Sequence[int], preds: Sequence[Sequence[int]], succs: Sequence[Sequence[int]]
) -> list[int]:
    """By atom, by how many atoms the longest path through it is shorter than the longest of all."""
    down = [1] * len(order)
    up = [1] * len(order)
    for atom in order:
        down[atom] += max((down[p] for p in preds[atom]), default=0)
    for atom in reversed(order):
        up[atom] += max((up[s] for s in succs[atom]), default=0)
    longest = max(down, default=0)
    return [longest + 1 - one - other for one, other in zip(down, up, strict=True)]


def _floating(
    order: Sequence[int], preds: Sequence[Sequence[int]], slack: Sequence[int]
) -> frozenset[int]:
    """Atoms with slack whose ancestors are few and floating as well."""
    ancestors: dict[int, frozenset[int]] = {}
    for atom in order:
        if slack[atom] and all(p in ancestors for p in preds[atom]):
            group = frozenset({atom}).union(*(ancestors[p] for p in preds[atom]))
            if len(group) <= _MOST_IN_GROUP:
                ancestors[atom] = group
    return frozenset(ancestors)
