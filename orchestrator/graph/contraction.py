"""Merging nodes of a graph into groups, so that the graph of groups stays acyclic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import networkx as nx
from torch.fx import Node


class Contraction:
    """A partition of a graph's nodes into groups, at first one group per node.

    nodes: in a topological order. Edges to and from other nodes are not seen.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._position = {node: index for index, node in enumerate(nodes)}
        self._group = dict(self._position)  # a group is named after one of its nodes' positions
        self._members = {index: [node] for node, index in self._position.items()}

    def group(self, node: Node) -> Sequence[Node]:
        """Return the nodes merged with `node`, itself among them."""
        return self._members[self._group[node]]

    def can_merge(self, nodes: Iterable[Node]) -> bool:
        """Whether merging the groups of `nodes` leaves the graph of groups acyclic.

        It does unless some path leaves the merged group and comes back to it.
        """
        merged = {self._group[node] for node in nodes}
        seen = {successor for group in merged for successor in self._successors(group)} - merged
        stack = list(seen)
        while stack:
            for successor in self._successors(stack.pop()):
                if successor in merged:
                    return False
                if successor not in seen:
                    seen.add(successor)
                    stack.append(successor)
        return True

    def merge(self, nodes: Iterable[Node]) -> None:
        """Merge the groups of `nodes` into one."""
        first, *rest = sorted({self._group[node] for node in nodes})
        for group in rest:
            for node in self._members.pop(group):
                self._group[node] = first
                self._members[first].append(node)

    def groups_in_topological_order(self) -> list[list[Node]]:
        """Return every group, its nodes in graph order, each group after those it reads from.

        Raises:
            ValueError: the merges made a cycle.
        """
        links = nx.DiGraph()
        links.add_nodes_from(self._members)
        for group in self._members:
            links.add_edges_from((group, successor) for successor in self._successors(group))
        try:
            order = list(nx.lexicographical_topological_sort(links))
        except nx.NetworkXUnfeasible as error:
            raise ValueError(
                "merged nodes depend on each other through nodes outside their group"
            ) from error
        return [sorted(self._members[group], key=self._position.__getitem__) for group in order]

    def _successors(self, group: int) -> Iterator[int]:
        """Yield each group that reads from `group` once."""
        readers = {
            self._group[user]
            for node in self._members[group]
            for user in node.users
            if user in self._group
        }
        readers.discard(group)
        return iter(readers)
