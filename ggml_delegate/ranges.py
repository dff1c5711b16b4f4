"""Which values an integer tensor can hold, from the graph and the constants lifted out of it.

Inside the delegate integers have 32 bits, whatever the program says. Tensors that come in are
checked for that at run time, and so are sums and products; a rule takes these only where they are
expected to stay within 32 bits.
"""

from __future__ import annotations

import torch
from torch._subclasses import FakeTensor

from ggml_delegate.node_view import Constants, node_value, op_name
from ggml_delegate.symbols import upper_bound

INT32 = (-(1 << 31), (1 << 31) - 1)
Range = tuple[int, int]

# Ops whose results hold no other values than their first argument.
_KEEP = frozenset(
    f"aten.{name}"
    for name in (
        "alias_copy.default",
        "cat.default",
        "clone.default",
        "expand_copy.default",
        "gather.default",
        "index_select.default",
        "permute_copy.default",
        "repeat.default",
        "select_copy.int",
        "slice_copy.Tensor",
        "squeeze_copy.dims",
        "squeeze_copy.dim",
        "unsqueeze_copy.default",
        "view_copy.default",
        "amax.default",
        "amin.default",
    )
) | {"dim_order_ops._clone_dim_order.default"}
_CASTS = frozenset({"dim_order_ops._to_dim_order_copy.default", "aten._to_copy.default"})
_FULL = frozenset({"aten.full.default", "aten.full_like.default", "aten.scalar_tensor.default"})
_SUMS = frozenset({"aten.sum.dim_IntList", "aten.sum.default", "aten.cumsum.default"})
_PLACES = frozenset({"aten.argmax.default", "aten.argmin.default"})
_DEPTH = 24
# Constants with more elements than this are not looked through.
_MAX_ELEMENTS = 4096
_SMALL = (-(1 << 15), 1 << 15)


def is_int32(values: Range) -> bool:
    """Whether all values of a range fit 32 bits."""
    return INT32[0] <= values[0] and values[1] <= INT32[1]


def argument_range(argument: object, constants: Constants) -> Range | None:
    """The values of an integer tensor or number among a node's arguments; None for others."""
    return _Search(constants).argument(argument, _DEPTH)


def node_range(node: torch.fx.Node, constants: Constants) -> Range:
    """The values of an integer tensor; those of 32 bits when nothing more is known."""
    return _Search(constants).node(node, _DEPTH)


class _Search:
    """Looks for a tensor's values up to so many ops back, at each tensor once.

    Unrolled ops, such as adaptive pools that return places, are chains in which every node is used
    several times: along all paths there would be far too many steps.
    """

    def __init__(self, constants: Constants) -> None:
        self._constants = constants
        self._known: dict[tuple[torch.fx.Node, int], Range] = {}

    def argument(self, argument: object, depth: int) -> Range | None:
        if isinstance(argument, (bool, int)):
            return int(argument), int(argument)
        if isinstance(argument, torch.fx.Node) and _is_integer(argument):
            return self.node(argument, depth)
        return None

    def node(self, node: torch.fx.Node, depth: int) -> Range:
        key = (node, depth)
        if key not in self._known:
            self._known[key] = self._find(node, depth)
        return self._known[key]

    def _find(self, node: torch.fx.Node, depth: int) -> Range:
        value = node_value(node)
        if isinstance(value, torch.Tensor) and value.dtype == torch.bool:
            return 0, 1
        if node in self._constants:
            return _constant_range(self._constants.tensor(node))
        if depth == 0 or node.op != "call_function":
            return INT32
        name = op_name(node)
        sources = [source for source in node.all_input_nodes if _is_integer(source)]
        if name in _KEEP and sources:
            kept = sources if name == "aten.cat.default" else sources[:1]
            ranges = [self.node(source, depth - 1) for source in kept]
            return min(low for low, _ in ranges), max(high for _, high in ranges)
        if name in _CASTS and len(sources) == 1:
            return self.node(sources[0], depth - 1)
        return self._computed(node, name, depth)

    def _computed(self, node: torch.fx.Node, name: str, depth: int) -> Range:
        if name == "aten.arange.start_step":
            bounds = [a for a in node.args if isinstance(a, (int, torch.fx.Node))]
            limits = [_number_limits(bound) for bound in bounds[:2]]
            return min(low for low, _ in limits), max(high for _, high in limits)
        if name in _FULL and isinstance(node.args[-1], int):
            return int(node.args[-1]), int(node.args[-1])
        if name in _SUMS:
            (source,) = node.all_input_nodes
            if _is_integer(source):
                low, high = self.node(source, depth - 1)
                count = 1
                for size in node_value(source).shape:
                    count *= upper_bound(size)
                return min(low, 0) * count, max(high, 0) * count
        if name == "aten.where.self":
            chosen = [self.argument(argument, depth - 1) or INT32 for argument in node.args[1:]]
            return min(low for low, _ in chosen), max(high for _, high in chosen)
        mask = node.args[1] if name == "aten.bitwise_and.Scalar" else None
        if isinstance(mask, int) and mask >= 0:
            return 0, mask
        if name in _PLACES:
            (source,) = node.all_input_nodes
            return 0, max([upper_bound(size) for size in node_value(source).shape], default=1)
        if name in ("aten.add.Tensor", "aten.sub.Tensor", "aten.mul.Tensor") and not node.kwargs:
            ranges = [self.argument(argument, depth - 1) for argument in node.args]
            if len(ranges) == 2 and None not in ranges:
                return combine(name.split(".")[1], ranges[0], ranges[1])  # type: ignore[arg-type]
        return INT32


def _constant_range(tensor: torch.Tensor) -> Range:
    # Partitioners see constants as fake tensors. Numbers among them are taken for small ones; where
    # one is not, the runtime notices what exceeds 32 bits.
    if isinstance(tensor, FakeTensor):
        return _SMALL if tensor.dim() == 0 else INT32
    if not 0 < tensor.numel() <= _MAX_ELEMENTS:
        return INT32
    return int(tensor.min()), int(tensor.max())


def combine(operator: str, a: Range, b: Range) -> Range:
    """The values of `a operator b`; operator is add, sub or mul."""
    if operator == "add":
        return a[0] + b[0], a[1] + b[1]
    if operator == "sub":
        return a[0] - b[1], a[1] - b[0]
    products = [x * y for x in a for y in b]
    return min(products), max(products)


def _number_limits(bound: int | torch.fx.Node) -> Range:
    if isinstance(bound, int):
        return bound, bound
    value = node_value(bound)
    return (0, upper_bound(value)) if isinstance(value, torch.SymInt) else INT32


def _is_integer(node: torch.fx.Node) -> bool:
    value = node_value(node)
    return isinstance(value, torch.Tensor) and not value.dtype.is_floating_point
