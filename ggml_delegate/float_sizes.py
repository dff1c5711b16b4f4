"""Sizes that are computed in floating point, as expressions of integers.

`interpolate(x, scale_factor=2)` makes a size of trunc(2.0 * float(s)), `int(n * 0.75)` and
`math.ceil(n / 2)` are of that kind too. For the sizes that there can be, such a number is the floor
or the ceiling of (p * n + q) / d: which is found here, and tried with every n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import sympy
from torch.utils._sympy.functions import (
    CeilToInt,
    FloatTrueDiv,
    FloorDiv,
    FloorToInt,
    IntTrueDiv,
    ToFloat,
    TruncToInt,
)

Bounds = Callable[[sympy.Expr], tuple[int, int]]

_ROUNDINGS: dict[Any, Callable[[float], int]] = {
    TruncToInt: math.trunc,
    FloorToInt: math.floor,
    CeilToInt: math.ceil,
}
# How many values of n are tried at most; what may have more is left alone.
_MOST_VALUES = 1 << 14
# Factors are taken for the simplest fraction near them: 0.1 for a tenth.
_MOST_DIVISOR = 1 << 16


def in_integers(expr: sympy.Expr, bounds: Bounds) -> sympy.Expr:
    """Returns an expression with the same values that computes with integers.

    Args:
        expr: the size.
        bounds: the least and the largest value of an expression; equal or beyond them, the size
            may be another. What has no such form is left as it is.
    """
    found = {part: _rounded(part, bounds) for part in expr.atoms(*_ROUNDINGS)}
    return expr.xreplace({part: form for part, form in found.items() if form is not None})


def _rounded(expr: sympy.Expr, bounds: Bounds) -> sympy.Expr | None:
    numbers = expr.args[0].atoms(ToFloat, IntTrueDiv)
    arguments = {number.args[0] for number in numbers if not number.args[0].is_number}
    if len(arguments) != 1:
        return None
    (n,) = arguments
    try:
        line, compute = _line(expr.args[0], n), _function(expr.args[0], n)
    except _UnknownError:
        return None
    low, high = bounds(n)
    divisor = math.lcm(line[0].denominator, line[1].denominator)
    factor, addend = (int(number * divisor) for number in line)
    up = expr.func is CeilToInt
    if high - low >= _MOST_VALUES:
        if low < 0 or addend < 0 or not _is_exact(expr.args[0]):
            return None
        high = low  # one for all
    for value in range(low, high + 1):
        exact = factor * value + addend
        exact = -(-exact // divisor) if up else exact // divisor
        if exact != _ROUNDINGS[expr.func](compute(value)):
            return None
    if up:
        return -FloorDiv(-factor * n - addend, sympy.Integer(divisor))
    return FloorDiv(factor * n + addend, sympy.Integer(divisor))


def _is_exact(expr: sympy.Expr) -> bool:
    """Whether doubles hold all that is computed on the way, whatever the size: n * 1.5, n / 4."""
    for part in sympy.preorder_traversal(expr):
        if part.func in (IntTrueDiv, FloatTrueDiv) and not _is_power_of_two(part.args[1]):
            return False
        if isinstance(part, ToFloat):
            continue
        if part.is_Number and not (
            abs(Fraction(float(part)).numerator) < _MOST_DIVISOR
            and Fraction(float(part)).denominator <= _MOST_DIVISOR
        ):
            return False
    return True


def _is_power_of_two(number: sympy.Expr) -> bool:
    return bool(number.is_Number) and math.frexp(float(number))[0] == 0.5


class _UnknownError(Exception):
    pass


def _line(expr: sympy.Expr, n: sympy.Expr) -> tuple[Fraction, Fraction]:
    """The factor of n and the addend that an expression in floating point means."""
    if expr.is_number:
        return Fraction(0), Fraction(float(expr)).limit_denominator(_MOST_DIVISOR)
    if expr == ToFloat(n):
        return Fraction(1), Fraction(0)
    parts = [_line(part, n) if part != n else (Fraction(1), Fraction(0)) for part in expr.args]
    if expr.func is sympy.Add:
        return sum((part[0] for part in parts), Fraction(0)), sum(
            (part[1] for part in parts), Fraction(0)
        )
    if expr.func is sympy.Mul:
        result = (Fraction(0), Fraction(1))
        for factor, addend in parts:
            if result[0] and factor:
                raise _UnknownError
            result = (result[0] * addend + factor * result[1], result[1] * addend)
        return result
    if expr.func in (IntTrueDiv, FloatTrueDiv) and parts[1][0] == 0 and parts[1][1] != 0:
        return parts[0][0] / parts[1][1], parts[0][1] / parts[1][1]
    raise _UnknownError


def _function(expr: sympy.Expr, n: sympy.Expr) -> Callable[[int], float]:
    """What computes the expression as PyTorch does, in doubles."""
    if expr.is_number:
        number = float(expr)
        return lambda _: number
    if expr in (n, ToFloat(n)):
        return float
    parts = [_function(part, n) for part in expr.args]
    if expr.func is sympy.Add and len(parts) == 2:
        return lambda value: parts[0](value) + parts[1](value)
    if expr.func is sympy.Mul and len(parts) == 2:
        return lambda value: parts[0](value) * parts[1](value)
    if expr.func in (IntTrueDiv, FloatTrueDiv):
        return lambda value: parts[0](value) / parts[1](value)
    raise _UnknownError
