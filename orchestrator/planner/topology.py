"""Order and cycles of small integer graphs given as adjacency lists."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx


def topological_order(succs: Sequence[Sequence[int]]) -> list[int]:
    """Nodes in topological order, the smallest number first among the ready ones.

    Shorter than the graph if there is a cycle.
    """
    order = []
    try:
        for node in nx.lexicographical_topological_sort(_graph(succs)):
            order.append(node)
    except nx.NetworkXUnfeasible:
        pass
    return order


def find_cycle(succs: Sequence[Sequence[int]]) -> list[int]:
    """Nodes of one cycle, the first one repeated at the end; empty if there is none."""
    try:
        edges = nx.find_cycle(_graph(succs))
    except nx.NetworkXNoCycle:
        return []
    return [edges[0][0], *(edge[1] for edge in edges)]


def _graph(succs: Sequence[Sequence[int]]) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(succs)))
    graph.add_edges_from((node, successor) for node, row in enumerate(succs) for successor in row)
    return graph
