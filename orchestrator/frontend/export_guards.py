"""Conditions on dynamic sizes that torch.export need not refuse a model for.

Exporting asks about sizes: whether one is 1, whether a tensor is dense. torch.export takes the
answer for the example as a condition, and refuses the model where a size that is allowed does not
meet it, though what it computes would be the same. Asked to, it writes conditions into the program
instead, as assertions; those that the model itself needs have to hold for every size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import sympy
import torch
from torch.export import ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

_VALUES = 256  # tried of each size, from its least on, beside its largest


def is_violation(error: Exception) -> bool:
    """Whether torch.export says that the sizes allowed do not all meet its conditions."""
    return str(error).startswith("Constraints violated")


def unmet_condition(program: ExportedProgram) -> str | None:
    """Return a condition of the model that sizes within their bounds do not meet; None if all do.

    That a size is another than 1, or than another size, is none: the example's happened to be.

    program: exported with `prefer_deferred_runtime_asserts_over_guards`.
    """
    for condition in _asserted(program):
        if isinstance(condition, sympy.Ne):
            continue
        for sizes in _samples(condition, program.range_constraints):
            if condition.subs(sizes) == sympy.false:
                return str(condition)
    return None


def _asserted(program: ExportedProgram) -> Iterator[sympy.Basic]:
    for node in program.graph.nodes:
        if node.target is torch.ops.aten._assert_scalar.default:
            value = getattr(node.args[0], "meta", {}).get("val")
            if isinstance(value, torch.SymBool):
                yield value.node.expr


def _samples(
    condition: sympy.Basic, ranges: Mapping[sympy.Symbol, ValueRanges[sympy.Expr]]
) -> Iterator[dict[sympy.Basic, int]]:
    """Sizes to try: of each all, with the others at their least and at their largest."""
    values = {
        symbol: list(_values(ranges[symbol]))
        for symbol in condition.free_symbols
        if symbol in ranges
    }
    for symbol, tried in values.items():
        for end in (0, -1):
            others = {other: each[end] for other, each in values.items()}
            yield from ({**others, symbol: value} for value in tried)


def _values(allowed: ValueRanges[sympy.Expr]) -> Iterable[int]:
    low = int(allowed.lower)
    last = low + _VALUES
    high = int(allowed.upper) if allowed.upper.is_Integer else last
    return [*range(low, min(high, last)), high]
