"""Sizes inside a partition in terms of those of its inputs.

An exported program says of every size what it is in terms of the program's inputs. A delegate sees
its own inputs only: the size of one may be s // 2 + 1, and inside there may be s // 4 + 1. So each
size of an input that is no number becomes a symbol of the delegate's own, and what it is elsewhere
follows: where an expression holds those of the inputs, they are replaced in it; else the op is
asked, as a fake op in an environment of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import sympy
import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from ggml_delegate.node_view import node_value, op_name
from ggml_delegate.reasons import Reason
from ggml_delegate.symbols import (
    UNBOUNDED,
    UnsupportedSizeError,
    affine,
    bounds,
    free_symbols,
    is_expressible,
)

Size = int | torch.SymInt


@contextlib.contextmanager
def own_sizes(program: ExportedProgram) -> Iterator[None]:
    """Inside, the nodes of a partition have sizes that its inputs determine.

    Nothing changes where the program's own symbols can be told from the inputs' sizes.

    Args:
        program: of one partition; it is as it was afterwards.

    Raises:
        UnsupportedSizeError: a size does not follow from the inputs'; names the node.
    """
    nodes = list(program.graph.nodes)
    if _is_determined(program):
        yield
        return
    before = {node: node.meta["val"] for node in nodes if "val" in node.meta}
    inputs = set(program.graph_signature.user_inputs)
    table = OwnSizes()
    try:
        for node in nodes:
            if node in before and node.op == "placeholder":
                node.meta["val"] = (
                    table.input(before[node]) if node.name in inputs else before[node]
                )
        for node in nodes:
            if node in before and node.op == "call_function":
                node.meta["val"] = table.result(node, before[node])
        # Rules ask about sizes; the answer for the example's is no condition.
        with table.env.suppress_guards():
            yield
    finally:
        for node, value in before.items():
            node.meta["val"] = value


def undetermined(node: torch.fx.Node) -> Reason | None:
    """Why the sizes of a node's results do not follow from what it reads, or None."""
    sizes = [size for size in sizes_of(node_value(node)) if isinstance(size, torch.SymInt)]
    if not sizes:
        return None
    known = {
        size.node.expr
        for source in node.all_input_nodes
        for size in sizes_of(node_value(source))
        if isinstance(size, torch.SymInt)
    }
    bases = {affine(expr)[0] for expr in known}
    if all(size.node.expr in known or size.node.expr.free_symbols <= bases for size in sizes):
        return None
    table = OwnSizes()
    values = {source: table.input(node_value(source)) for source in node.all_input_nodes}
    try:
        table.result(node, node_value(node), values)
    except UnsupportedSizeError as error:
        return Reason("dynamic", str(error))
    return None


def sizes_of(value: Any) -> list[Size]:
    """The sizes in what a node stands for: those of its tensors, and numbers that may be sizes."""
    sizes: list[Size] = []
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, torch.Tensor):
            sizes += leaf.shape
        elif isinstance(leaf, torch.SymInt):
            sizes.append(leaf)
    return sizes


def _is_determined(program: ExportedProgram) -> bool:
    """Whether every symbol is a size of an input, times and plus a number."""
    inputs = set(program.graph_signature.user_inputs)
    used, known = set(), set()
    for node in program.graph.nodes:
        for size in sizes_of(node_value(node)):
            used |= free_symbols(size)
            if not is_expressible(size):
                return False
            if node.name in inputs and isinstance(size, torch.SymInt):
                known.add(affine(size.node.expr)[0])
    return used <= known


class OwnSizes:
    """The symbols of a delegate, and what the program's sizes are in terms of them."""

    def __init__(self) -> None:
        self.env = ShapeEnv()
        self._mode = FakeTensorMode(shape_env=self.env, allow_non_fake_inputs=True)
        self._known: dict[sympy.Expr, sympy.Expr] = {}  # the program's expression: our own
        self._as_they_stand: dict[sympy.Expr, sympy.Expr] = {}  # the same, of sizes as they stand

    def input(self, value: Any) -> Any:
        """What an input of the partition stands for; each size of a new kind gets a symbol."""
        for size in sizes_of(value):
            if isinstance(size, torch.SymInt):
                base, scale, offset = affine(size.node.expr)
                if base not in self._known:
                    self._known[base] = self._symbol(size, base, scale, offset)
                self._as_they_stand[size.node.expr] = scale * self._known[base] + offset
        return pytree.tree_map_only((torch.Tensor, torch.SymInt), self._replaced, value)

    def result(self, node: torch.fx.Node, declared: Any, values: Any = None) -> Any:
        """What a node stands for.

        Args:
            node: whose arguments have their own sizes already, in `values` or in their metadata.
            declared: what it stands for in the program.
            values: what its arguments stand for, by node.

        Raises:
            UnsupportedSizeError: its sizes do not follow from those of its arguments.
        """
        if any(self._own(size) is None for size in sizes_of(declared)):
            self._learn(node, declared, self._computed(node, values or {}))
        return pytree.tree_map_only((torch.Tensor, torch.SymInt), self._replaced, declared)

    def _symbol(self, size: torch.SymInt, base: sympy.Expr, scale: int, offset: int) -> sympy.Expr:
        low, high = bounds(size, base)
        least, most = bounds(size)
        low = max(low, -((offset - least) // scale), 0)
        high = max(low, min(high, (most - offset) // scale))
        # torch names its own by a letter and a number.
        name = f"size{len(self._known)}"
        symbol = sympy.Symbol(name, integer=True, **{"positive" if low else "nonnegative": True})
        env = self.env
        env.backed_var_to_val[symbol] = sympy.Integer((_example(size) - offset) // scale)
        env.var_to_range[symbol] = ValueRanges(low, int_oo if high >= UNBOUNDED else high)
        env.var_to_sources[symbol] = [ConstantSource(name)]
        return symbol

    def _own(self, size: Size) -> sympy.Expr | None:
        """A size of the program in terms of the delegate's symbols; None if it is not known."""
        if isinstance(size, int):
            return sympy.Integer(size)
        expr = size.node.expr
        if expr in self._as_they_stand:
            return self._as_they_stand[expr]
        own = expr.subs(self._known)
        return own if own.free_symbols.isdisjoint(expr.free_symbols) else None

    def _replaced(self, value: Any) -> Any:
        """The same tensor or number with sizes of the delegate's own."""
        if isinstance(value, torch.SymInt):
            return self._sized(value)
        if not any(isinstance(size, torch.SymInt) for size in value.shape):
            return value
        sizes = [self._sized(size) for size in value.shape]
        with self._faked():
            return torch.empty_permuted(
                sizes, value.dim_order(), dtype=value.dtype, device=value.device
            )

    def _sized(self, size: Size) -> Size:
        own = self._own(size)
        assert own is not None
        return self.env.create_symintnode(own, hint=_example(size))

    @contextlib.contextmanager
    def _faked(self) -> Iterator[None]:
        with (
            self._mode,
            enable_python_dispatcher(),
            self.env.suppress_guards(),
            torch.no_grad(),
        ):
            yield

    def _computed(self, node: torch.fx.Node, values: dict[torch.fx.Node, Any]) -> Any:
        def value(source: torch.fx.Node) -> Any:
            found = values[source] if source in values else source.meta["val"]
            return pytree.tree_map_only(torch.Tensor, self._in_mode, found)

        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), value)
        with self._faked():
            try:
                return node.target(*args, **kwargs)  # type: ignore[operator]
            except Exception as error:  # whatever a fake op may raise of sizes it cannot compare
                raise UnsupportedSizeError(
                    f"{node.name} ({op_name(node)}): its sizes do not follow from its inputs': "
                    f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"
                ) from error

    def _in_mode(self, value: torch.Tensor) -> torch.Tensor:
        if getattr(value, "fake_mode", None) is self._mode:
            return value
        with self._faked():
            return torch.empty_permuted(
                value.shape, value.dim_order(), dtype=value.dtype, device=value.device
            )

    def _learn(self, node: torch.fx.Node, declared: Any, computed: Any) -> None:
        """Notes what sizes turned out to be that were not known."""
        for size, own in zip(sizes_of(declared), sizes_of(computed), strict=True):
            if self._own(size) is not None:
                continue
            assert isinstance(size, torch.SymInt)
            if isinstance(own, int) or int(own.node.hint) != _example(size):
                raise UnsupportedSizeError(
                    f"{node.name} ({op_name(node)}): the size {size} does not follow from the "
                    f"sizes of what it reads, which give {own}"
                )
            self._as_they_stand[size.node.expr] = own.node.expr
            base, scale, offset = affine(size.node.expr)
            if scale == 1:
                self._known[base] = own.node.expr - offset


def _example(size: Size) -> int:
    """The value of a size in the example; of one that depends on data, one that it can have."""
    if isinstance(size, int):
        return size
    env, expr = size.node.shape_env, size.node.expr
    values = {}
    for symbol in expr.free_symbols:
        value = env.backed_var_to_val.get(symbol)
        if value is None:
            low, high = bounds(size, symbol)
            value = min(max(low, 2), high)
        values[symbol] = value
    return int(expr.xreplace(values))
