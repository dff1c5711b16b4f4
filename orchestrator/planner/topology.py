"""Order and cycles of small integer graphs given as adjacency lists."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import networkx as nx


def topological_order(preds: Sequence[Sequence[int]], succs: Sequence[Sequence[int]]) -> list[int]:
    """Nodes in topological order, the smallest number first among the ready ones.

    Shorter than the graph if there is a cycle.
    """
    missing = [len(row) for row in preds]
    ready = [node for node, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        node = heapq.heappop(ready)
        order.append(node)
        for successor in succs[node]:
            missing[successor] -= 1
            if missing[successor] == 0:
                heapq.heappush(ready, successor)
    return order


def find_cycle(succs: Sequence[Sequence[int]]) -> list[int]:
    """Nodes of one cycle, the first one repeated at the end; empty if there is none."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(succs)))
    graph.add_edges_from((node, successor) for node, row in enumerate(succs) for successor in row)
    try:
        edges = nx.find_cycle(graph)
    except nx.NetworkXNoCycle:
        return []
    return [edges[0][0], *(edge[1] for edge in edges)]
