"""Sizes that PyTorch computes in floating point, as expressions of integers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
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

from ggml_delegate.float_sizes import in_integers

N = sympy.Symbol("s0", integer=True, positive=True)
FLOAT = ToFloat(N)


def _form(expr: sympy.Expr, low: int = 1, high: int = 3000) -> sympy.Expr:
    return in_integers(expr, lambda _: (low, high))


@pytest.mark.parametrize("factor", [2.0, 1.5, 0.5, 1.3, 0.1, 1 / 3, 2.9999])
@pytest.mark.parametrize(
    ("rounding", "python"),
    [(TruncToInt, math.trunc), (FloorToInt, math.floor), (CeilToInt, math.ceil)],
)
def test_a_size_times_a_factor(
    factor: float, rounding: sympy.Function, python: Callable[[float], int]
) -> None:
    form = _form(rounding(sympy.Float(factor) * FLOAT))
    assert not form.has(ToFloat, sympy.Float)
    for n in (1, 2, 3, 7, 10, 30, 999, 1000, 3000):
        assert form.subs(N, n) == python(factor * n)


def test_a_part_of_a_size() -> None:
    form = _form(4 * CeilToInt(IntTrueDiv(N, sympy.Integer(2))) + N)
    assert [form.subs(N, n) for n in (1, 2, 5)] == [5, 6, 17]
    form = _form(TruncToInt(FloatTrueDiv(FLOAT, sympy.Float(3.0)) + sympy.Float(0.5)))
    assert [form.subs(N, n) for n in (1, 2, 5, 3000)] == [0, 1, 2, 1000]


def test_the_rounding_of_doubles_counts() -> None:
    """0.7 * 10 is 7 in doubles, but 0.7 * 90 is less than 63: seven tenths are not what it is."""
    assert (0.7 * 10, math.floor(0.7 * 90)) == (7.0, 62)
    expr = FloorToInt(sympy.Float(0.7) * FLOAT)
    assert _form(expr, high=89) == FloorDiv(7 * N, 10)
    assert _form(expr, high=90) == expr


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.25])
def test_without_a_bound_only_exact_factors_have_a_form(factor: float) -> None:
    form = _form(TruncToInt(sympy.Float(factor) * FLOAT), high=1 << 32)
    assert form.subs(N, 1_000_003) == int(factor * 1_000_003)
    inexact = TruncToInt(sympy.Float(1.3) * FLOAT)
    assert _form(inexact, high=1 << 32) == inexact


def test_other_expressions_stay_as_they_are() -> None:
    other = sympy.Symbol("s1", integer=True, positive=True)
    for expr in (
        TruncToInt(FLOAT * FLOAT * sympy.Float(0.5)),
        TruncToInt(sympy.Float(0.5) * FLOAT + ToFloat(other)),
        N + 1,
    ):
        assert _form(expr) == expr
