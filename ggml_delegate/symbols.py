"""Symbolic sizes: sympy expressions of torch.export -> the IR's postfix expressions."""

from __future__ import annotations

from typing import Any

import sympy
import torch
from torch.utils._sympy.functions import (
    CleanDiv,
    FloorDiv,
    Max,
    Min,
    Mod,
    PowByNatural,
    PythonMod,
)
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from ggml_delegate import ir
from ggml_delegate.float_sizes import in_integers

# Stands for "no upper bound" in the IR.
UNBOUNDED = 1 << 32

_BINARY = {
    FloorDiv: ir.ExprOp.FloorDiv,
    CleanDiv: ir.ExprOp.FloorDiv,
    Mod: ir.ExprOp.Mod,
    PythonMod: ir.ExprOp.Mod,
    sympy.Mod: ir.ExprOp.Mod,
}
_NARY = {
    sympy.Add: ir.ExprOp.Add,
    sympy.Mul: ir.ExprOp.Mul,
    Max: ir.ExprOp.Max,
    sympy.Max: ir.ExprOp.Max,
    Min: ir.ExprOp.Min,
    sympy.Min: ir.ExprOp.Min,
}


class UnsupportedSizeError(ValueError):
    """A size expression that the IR cannot say."""


def is_expressible(size: int | torch.SymInt) -> bool:
    """Whether a size can be written in the IR."""
    if isinstance(size, int):
        return True
    try:
        _postfix(_integer_form(size), {})
    except UnsupportedSizeError:
        return False
    return True


def free_symbols(size: int | torch.SymInt) -> set[sympy.Symbol]:
    """The symbols in a size."""
    return set() if isinstance(size, int) else set(size.node.expr.free_symbols)


def upper_bound(size: int | torch.SymInt) -> int:
    """The largest value a size can take, UNBOUNDED when nothing limits it."""
    if isinstance(size, int):
        return size
    return min(bounds(size)[1], UNBOUNDED)


def lower_bound(size: int | torch.SymInt) -> int:
    """The smallest value a number can take; a large negative one when nothing limits it."""
    if isinstance(size, int):
        return size
    low = size.node.shape_env.bound_sympy(size.node.expr).lower
    return int(low) if low.is_Integer else -UNBOUNDED


def bounds(size: torch.SymInt, part: sympy.Expr | None = None) -> tuple[int, int]:
    """The smallest and the largest value that a size, or a part of its expression, can take.

    Where nothing limits it, that is +-UNBOUNDED.
    """
    expr, env = size.node.expr if part is None else part, size.node.shape_env
    limits = bound_sympy(expr, {symbol: _range(symbol, env) for symbol in expr.free_symbols})
    low = int(limits.lower) if limits.lower.is_Integer else -UNBOUNDED
    high = int(limits.upper) if limits.upper.is_Integer else UNBOUNDED
    return low, high


def _range(symbol: sympy.Symbol, env: Any) -> ValueRanges[sympy.Expr]:
    # torch.export never assumes less than 2 while it traces, and ExecuTorch drops the declared
    # range, so a bound of 2 says nothing about a size of 1.
    limits = env.var_to_range.get(symbol, ValueRanges.unknown_int())
    return ValueRanges(1, limits.upper) if limits.lower == 2 else limits


def affine(expr: sympy.Expr) -> tuple[sympy.Expr, int, int]:
    """A size as scale * base + offset with scale > 0: base, scale and offset.

    base is the whole where no number can be taken out of it.
    """
    offset, rest = expr.as_coeff_Add()
    scale, base = rest.as_coeff_Mul()
    if not (offset.is_Integer and scale.is_Integer and int(scale) > 0):
        return expr, 1, 0
    return base, int(scale), int(offset)


def _integer_form(size: torch.SymInt) -> sympy.Expr:
    return in_integers(size.node.expr, lambda part: bounds(size, part))


def _postfix(expr: sympy.Expr, symbols: dict[sympy.Symbol, int]) -> list[tuple[int, int]]:
    """(operator, value) tokens; symbols are numbered into `symbols` as they come."""
    if expr.is_Integer:
        return [(ir.ExprOp.Const, int(expr))]
    if expr.is_Symbol:
        return [(ir.ExprOp.Symbol, symbols.setdefault(expr, len(symbols)))]
    if expr.func in _BINARY and len(expr.args) == 2:
        left, right = (_postfix(arg, symbols) for arg in expr.args)
        return [*left, *right, (_BINARY[expr.func], 0)]
    if expr.func in _NARY:
        tokens = _postfix(expr.args[0], symbols)
        for arg in expr.args[1:]:
            tokens += [*_postfix(arg, symbols), (_NARY[expr.func], 0)]
        return tokens
    if expr.func in (sympy.Pow, PowByNatural):
        base, exponent = expr.args
        if exponent.is_Integer and 1 <= int(exponent) <= 4:
            tokens = _postfix(base, symbols)
            for _ in range(int(exponent) - 1):
                tokens += [*_postfix(base, symbols), (ir.ExprOp.Mul, 0)]
            return tokens
    raise UnsupportedSizeError(f"a size is {expr}, which has no integer form here")


class SymbolTable:
    """The symbols, expressions and bindings of one IR program."""

    def __init__(self) -> None:
        self._numbers: dict[sympy.Symbol, int] = {}
        self._limits: dict[sympy.Symbol, tuple[int, int]] = {}
        self._exprs: list[list[tuple[int, int]]] = []
        self._dims: dict[sympy.Expr, Any] = {}
        self._bindings: dict[sympy.Symbol, Any] = {}

    def dim(self, size: int | torch.SymInt) -> Any:
        """An ir.Dim.

        Raises:
            UnsupportedSizeError: when the expression has no integer form in the IR.
        """
        if isinstance(size, int) or size.node.expr.is_Integer:
            return ir.make("Dim", value=int(size), expr=-1)
        expr = size.node.expr
        if expr not in self._dims:
            tokens = _postfix(_integer_form(size), self._numbers)
            self._remember_limits(size)
            self._dims[expr] = (upper_bound(size), len(self._exprs))
            self._exprs.append(tokens)
        value, number = self._dims[expr]
        return ir.make("Dim", value=value, expr=number)

    def bind(self, size: int | torch.SymInt, *, input: int, dim: int) -> None:
        """Input `input` has this size in dimension `dim`: its symbol's value follows from it."""
        if isinstance(size, int):
            return
        symbol, scale, offset = affine(size.node.expr)
        if not symbol.is_Symbol:
            return
        if symbol in self._bindings and self._bindings[symbol].scale <= scale:
            return
        self._numbers.setdefault(symbol, len(self._numbers))
        self._remember_limits(size)
        self._bindings[symbol] = ir.make(
            "Binding",
            symbol=self._numbers[symbol],
            input=input,
            dim=dim,
            scale=scale,
            offset=offset,
        )

    def _remember_limits(self, size: torch.SymInt) -> None:
        # torch.export raises the least sizes so that none computed from them is 1 (of x[2:-1], to
        # 5), and says so only of some: they are nothing to refuse an input by.
        for symbol in size.node.expr.free_symbols:
            if symbol not in self._limits:
                low, high = bounds(size, symbol)
                self._limits[symbol] = (min(max(low, 0), 1), min(high, UNBOUNDED))

    def symbols(self) -> list[Any]:
        """ir.Symbols by number."""
        return [
            ir.make(
                "Symbol",
                name=str(symbol),
                min=self._limits[symbol][0],
                max=self._limits[symbol][1],
            )
            for symbol in self._numbers
        ]

    def exprs(self) -> list[Any]:
        """ir.Exprs by number."""
        return [
            ir.make(
                "Expr", tokens=[ir.make("ExprToken", op=op, value=value) for op, value in tokens]
            )
            for tokens in self._exprs
        ]

    def bindings(self) -> list[Any]:
        """ir.Bindings, one per symbol.

        Raises:
            UnsupportedSizeError: when no input determines a symbol.
        """
        for symbol in self._numbers:
            if symbol not in self._bindings:
                raise UnsupportedSizeError(
                    f"no input of the partition determines the size {symbol}"
                )
        return [self._bindings[symbol] for symbol in self._numbers]
