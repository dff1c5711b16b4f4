"""Symbolic sizes: sympy expressions of torch.export -> the IR's postfix expressions."""

from __future__ import annotations

from typing import Any

import sympy
import torch
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod, PythonMod

from ggml_delegate import ir

# Stands for "no upper bound" in the IR.
UNBOUNDED = 1 << 32

_BINARY = {
    FloorDiv: ir.ExprOp.FloorDiv,
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
        _postfix(size.node.expr, {})
    except UnsupportedSizeError:
        return False
    return True


def bound_by(size: int | torch.SymInt) -> sympy.Symbol | None:
    """The symbol whose value follows from this size: scale * symbol + offset, scale > 0."""
    affine = _affine(size)
    return None if affine is None else affine[0]


def free_symbols(size: int | torch.SymInt) -> set[sympy.Symbol]:
    """The symbols in a size."""
    return set() if isinstance(size, int) else set(size.node.expr.free_symbols)


def upper_bound(size: int | torch.SymInt) -> int:
    """The largest value a size can take, UNBOUNDED when nothing limits it."""
    if isinstance(size, int):
        return size
    return _limits(size)[1]


def lower_bound(size: int | torch.SymInt) -> int:
    """The smallest value a number can take; a large negative one when nothing limits it."""
    if isinstance(size, int):
        return size
    low = size.node.shape_env.bound_sympy(size.node.expr).lower
    return int(low) if low.is_Integer else -UNBOUNDED


def _limits(size: torch.SymInt) -> tuple[int, int]:
    limits = size.node.shape_env.bound_sympy(size.node.expr)
    low = int(limits.lower) if limits.lower.is_Integer else 0
    high = int(limits.upper) if limits.upper.is_Integer else UNBOUNDED
    return max(low, 0), min(high, UNBOUNDED)


def _affine(size: int | torch.SymInt) -> tuple[sympy.Symbol, int, int] | None:
    if isinstance(size, int):
        return None
    expr = sympy.expand(size.node.expr)
    symbols = list(expr.free_symbols)
    if len(symbols) != 1:
        return None
    scale = expr.coeff(symbols[0], 1)
    offset = expr - scale * symbols[0]
    if not (scale.is_Integer and offset.is_Integer and int(scale) > 0):
        return None
    return symbols[0], int(scale), int(offset)


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
    if expr.is_Pow and expr.exp.is_Integer and 1 <= int(expr.exp) <= 4:
        tokens = _postfix(expr.base, symbols)
        for _ in range(int(expr.exp) - 1):
            tokens += [*_postfix(expr.base, symbols), (ir.ExprOp.Mul, 0)]
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
            tokens = _postfix(expr, self._numbers)
            self._remember_limits(size)
            self._dims[expr] = (upper_bound(size), len(self._exprs))
            self._exprs.append(tokens)
        value, number = self._dims[expr]
        return ir.make("Dim", value=value, expr=number)

    def bind(self, size: int | torch.SymInt, *, input: int, dim: int) -> None:
        """Input `input` has this size in dimension `dim`: its symbol's value follows from it."""
        affine = _affine(size)
        if affine is None:
            return
        symbol, scale, offset = affine
        if symbol in self._bindings and self._bindings[symbol].scale <= scale:
            return
        self._numbers.setdefault(symbol, len(self._numbers))
        assert isinstance(size, torch.SymInt)
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
        for symbol in size.node.expr.free_symbols:
            if symbol not in self._limits:
                limits = size.node.shape_env.bound_sympy(symbol)
                low = int(limits.lower) if limits.lower.is_Integer else 0
                high = int(limits.upper) if limits.upper.is_Integer else UNBOUNDED
                # torch.export never assumes less than 2 while it traces, and ExecuTorch drops the
                # declared range, so a bound of 2 says nothing about a size of 1.
                low = 1 if low == 2 else max(low, 0)
                self._limits[symbol] = (low, min(high, UNBOUNDED))

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
