"""Tensors of positions, for ops that are given where to start as a number known at run time only.

Such a number is read from a tensor (`pos.item()`). A delegate whose sizes or strides depended on it
would have to be made anew for each value; positions that stay in a tensor are one of its inputs.
"""

from __future__ import annotations

import operator
from collections.abc import Hashable

import torch
from torch.fx import Graph, Node

from ggml_delegate.program_editor import is_written
from orchestrator.frontend.passes.caller import Caller

aten = torch.ops.aten

FAR = 2**30
"""Stands for positions outside of every tensor, such as those below 0 (which would count from the
end). With any size added it still fits 32 bits."""

_ITEMS = {aten.item.default, aten._local_scalar_dense.default}
_SUMS = {operator.add: aten.add.Tensor, operator.sub: aten.sub.Tensor}
_CHECKS = {
    aten._assert_scalar.default,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
}
_COMPARISONS = {operator.eq, operator.ge, operator.gt, operator.le, operator.lt, operator.ne}
_ARITHMETIC = {operator.add, operator.mul, operator.sub}


class Positions:
    """Makes tensors of positions in a graph; the same ones are made once."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._made: dict[Hashable, Node] = {}
        self._items: dict[Node, None] = {}

    def rows(self, call: Caller, start: object, count: int | Node) -> Node:
        """The positions start, start + 1, and so on, as int64 of shape [count].

        Args:
            call: makes nodes.
            start: a number, or the node of one.
            count: how many.
        """
        key = ("rows", self._key(start), str(value_of(count)))
        if key not in self._made:
            first = self.first(call, start)
            if count != 1:
                steps = self.arange(call, count)
                first = steps if start == 0 else call(aten.add.Tensor, steps, first)
            self._made[key] = first
        return self._made[key]

    def arange(self, call: Caller, count: int | Node) -> Node:
        """0, 1 and so on, as int64."""
        key = ("arange", str(value_of(count)))
        if key not in self._made:
            device = torch.device("cpu")
            self._made[key] = call(
                aten.arange.default, count, dtype=torch.int64, device=device, pin_memory=False
            )
        return self._made[key]

    def size(self, call: Caller, tensor: Node, dim: int) -> int | Node:
        """A size of a tensor: the node of one, where it is dynamic."""
        size = tensor.meta["val"].shape[dim]
        if isinstance(size, int):
            return size
        key = ("size", str(size))
        if key not in self._made:
            self._made[key] = call(aten.sym_size.int, tensor, dim)
        return self._made[key]

    def causal_mask(self, call: Caller, start: object, queries: Node, keys: Node) -> Node:
        """What queries at `start` and after it see: keys up to their own position.

        queries, keys: [batch, count, heads, depth]. Returns bools of shape [queries, keys].
        """
        rows = self.rows(call, start, self.size(call, queries, 1))
        return self._up_to(call, rows, keys)

    def prefix_mask(self, call: Caller, start: object, queries: Node, keys: Node) -> Node:
        """Keys up to the position of the last query, as bools of shape [1, keys]."""
        rows = self.rows(call, start, self.size(call, queries, 1))
        key = ("last", rows)
        if key not in self._made:
            self._made[key] = call(aten.slice.Tensor, rows, 0, -1)
        return self._up_to(call, self._made[key], keys)

    def _up_to(self, call: Caller, last: Node, keys: Node) -> Node:
        key = ("mask", last, str(keys.meta["val"].shape[1]))
        if key not in self._made:
            places = self.arange(call, self.size(call, keys, 1))
            column = call(aten.unsqueeze.default, last, 1)
            self._made[key] = call(aten.le.Tensor, places, column)
        return self._made[key]

    def forget_unread(self) -> None:
        """Erase the numbers that were read from tensors, where nothing but checks is left of them.

        What uses the positions checks that they are in range, and ExecuTorch drops such checks.
        """
        for item in self._items:
            read = _readers(item)
            if read is None:
                continue
            for node in reversed([item, *read]):
                self._graph.erase_node(node)

    def _key(self, start: object) -> Hashable:
        if isinstance(start, Node) and start.target in _ITEMS:
            return _source_key(start)
        return start if isinstance(start, (int, Node)) else id(start)

    def first(self, call: Caller, start: object) -> Node:
        """A start as a tensor of shape [1]."""
        key = ("first", self._key(start))
        if key not in self._made:
            self._made[key] = self._number(call, start)
        return self._made[key]

    def _number(self, call: Caller, start: object) -> Node:
        if isinstance(start, Node) and start.target in _ITEMS:
            # Here and not later: an in-place op may change the tensor in between.
            with self._graph.inserting_before(start):
                return self._of_item(Caller(self._graph, start), start)
        if isinstance(start, Node) and start.target in _SUMS:
            terms = [self.first(call, each) for each in start.args]
            return self.from_start(call, call(_SUMS[start.target], *terms))
        whole = call(aten.full.default, [1], start, dtype=torch.int64, device=torch.device("cpu"))
        return self.from_start(call, whole) if isinstance(start, Node) else whole

    def _of_item(self, call: Caller, item: Node) -> Node:
        self._items[item] = None
        source = item.args[0]
        assert isinstance(source, Node)
        if source.meta["val"].dtype != torch.int64:
            source = call(aten.to.dtype, source, torch.int64)
        return self.from_start(call, call(aten.reshape.default, source, [1]))

    @staticmethod
    def from_start(call: Caller, x: Node) -> Node:
        """Positions as they are, but for those below 0 or above FAR, which become FAR."""
        near = call(aten.bitwise_and.Scalar, x, FAR - 1)
        return call(aten.masked_fill.Scalar, near, call(aten.ne.Tensor, x, near), FAR)

    def note(self, start: object) -> None:
        """Remember what a number was read from a tensor for, to forget it if that was all."""
        if not isinstance(start, Node):
            return
        if start.target in _ITEMS:
            self._items[start] = None
        elif start.target in _ARITHMETIC:
            for each in start.args:
                self.note(each)


def value_of(number: int | Node) -> int | torch.SymInt:
    """A number, or the value of a node of one."""
    value: int | torch.SymInt = number.meta["val"] if isinstance(number, Node) else number
    return value


def is_read_from_tensors(number: Node) -> bool:
    """Whether a number is one that a tensor held, perhaps with others added."""
    if number.target in _SUMS:
        return any(isinstance(each, Node) and is_read_from_tensors(each) for each in number.args)
    return number.target in _ITEMS


def _source_key(item: Node) -> Hashable:
    """Equal for items that read the same element of an input that nothing changes."""
    source = item.args[0]
    path: list[Hashable] = []
    while isinstance(source, Node) and source.target is aten.select.int:
        path.append(source.args[1:])
        source = source.args[0]
    if isinstance(source, Node) and source.op == "placeholder" and not is_written(source):
        return (source, tuple(path))
    return item


def _readers(number: Node) -> list[Node] | None:
    """All that a number is computed with for checks, in order; None if it is read otherwise."""
    found: dict[Node, None] = {}
    for user in number.users:
        if user.target in _CHECKS and not user.users:
            found[user] = None
        elif user.target in _COMPARISONS | _ARITHMETIC:
            more = _readers(user)
            if more is None:
                return None
            found |= dict.fromkeys([user, *more])
        else:
            return None
    place = {node: i for i, node in enumerate(number.graph.nodes)}
    return sorted(found, key=place.__getitem__)
