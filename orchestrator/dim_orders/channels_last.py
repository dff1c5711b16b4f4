"""Keeps images in channels-last between delegates.

Both ggml and XNNPACK compute images in channels-last and convert at their boundaries what comes
contiguous. The dim order of a tensor that crosses is what the graph says of it, and ExecuTorch
works that out anew from the ops: so the graph itself has to compute in channels-last. This pass
converts at the edges of the regions where it can, and everything between, wherever a plan then cuts
it, crosses as it lies.

Where to convert is a minimum cut: convolutions read and write channels-last, ops that no delegate
takes or that are not about images keep the dim order they have, the others do as their neighbours;
a tensor that is wanted in the other order by any reader is converted once and costs its size.

Nodes that a backend takes together or not at all have one order: a conversion between them would
leave a pattern that no backend knows. Quantized layers, between a dequantize and a quantize, keep
theirs (see `quantized_images`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

import networkx as nx
import torch
from executorch.exir.pass_base import ExportedProgramPassBase, ExportedProgramPassResult
from torch.export import ExportedProgram
from torch.fx import Node

from ggml_delegate.aten_ops import Trait, traits
from orchestrator.backends import Backend, Candidate
from orchestrator.backends.patterns import may_run_on
from orchestrator.graph.conversions import (
    converted_value,
    faked,
    insert_conversion,
    read_instead,
)
from orchestrator.graph.layouts import CHANNELS_LAST_ORDER
from orchestrator.graph.quantized import computed_from
from orchestrator.graph.queries import (
    compute_nodes,
    constant_nodes,
    dim_order,
    is_getitem,
    is_one,
    mutated_buffers,
    nbytes,
    op_name,
    tensor_results,
    tensors_of,
)
from orchestrator.options import PlanOptions

Label = Literal["contiguous", "channels-last"]
CONTIGUOUS: Label = "contiguous"
CHANNELS_LAST: Label = "channels-last"

_ORDERS: Mapping[Label, tuple[int, ...]] = {
    CONTIGUOUS: (0, 1, 2, 3),
    CHANNELS_LAST: CHANNELS_LAST_ORDER,
}
# Conversions are named after their tensors, for people.
_SUFFIXES: Mapping[Label, str] = {CONTIGUOUS: "contiguous", CHANNELS_LAST: "channels_last"}

_SEED = "aten.convolution.default"


class ChannelsLastPass(ExportedProgramPassBase):  # type: ignore[misc]  # executorch is untyped
    """An edge-dialect pass, for `transform_passes` of `to_edge_transform_and_lower`.

    backends: the delegates that will be asked. Those count that compute images in channels-last and
        convert what comes in the other order (`Backend.converts_dim_orders`); with fewer than two,
        nothing crosses from one to another and the pass does nothing.
    options: whose pins and excludes say which of them may get a node.
    """

    def __init__(self, backends: Sequence[Backend], options: PlanOptions | None = None) -> None:
        self._backends = tuple(backend for backend in backends if backend.converts_dim_orders)
        self._options = options or PlanOptions()

    def call(self, exported_program: ExportedProgram) -> ExportedProgramPassResult:
        """Insert conversions in place; outputs keep their dim order."""
        modified = len(self._backends) > 1 and convert(
            exported_program, self._backends, self._options
        )
        return ExportedProgramPassResult(exported_program, modified)


def convert(ep: ExportedProgram, backends: Sequence[Backend], options: PlanOptions) -> bool:
    """Keep images in channels-last where that needs least conversions; edits `ep` in place.

    Returns whether anything changed.
    """
    if not any(_is_seed(node) for node in compute_nodes(ep)):
        return False
    candidates = [
        candidate
        for backend in backends
        for candidate in backend.propose(ep).candidates
        if all(may_run_on(node, backend.name, options) for node in candidate.nodes)
    ]
    region = _Region(ep, candidates)
    while region.free:
        labels = _without_lone(region, _cheapest_labels(region))
        values = _Values(region, labels)
        misfits = values.propagate()
        if not misfits:
            return _insert_conversions(region, labels, values)
        region.fix(misfits)
    return False


def _is_image(value: Any) -> TypeGuard[torch.Tensor]:
    return isinstance(value, torch.Tensor) and value.dim() == 4


def _is_one_pixel(value: torch.Tensor) -> bool:
    """Whether the two orders put the elements in the same places, whatever the strides say."""
    _, channels, height, width = value.shape
    return is_one(channels) or (is_one(height) and is_one(width))


def _label_of(value: torch.Tensor) -> Label | None:
    """The order of an image; None if it is neither, or both."""
    if _is_one_pixel(value):
        return None
    order = dim_order(value)
    return next((label for label, wanted in _ORDERS.items() if order == wanted), None)


def _has_known_order(value: Any) -> bool:
    """Whether a value is no image, or one whose order is one of the two."""
    return not _is_image(value) or _is_one_pixel(value) or _label_of(value) is not None


def _value(node: Any) -> Any:
    return node.meta.get("val") if isinstance(node, Node) else None


def _is_seed(node: Node) -> bool:
    return op_name(node) == _SEED and _is_image(node.meta.get("val"))


class _Region:
    """The nodes whose order can be chosen: those that delegates take, around convolutions.

    free: these nodes, in graph order. `getitem`s go with the node they read.
    """

    def __init__(self, ep: ExportedProgram, candidates: Sequence[Candidate]) -> None:
        self.ep = ep
        nodes = list(compute_nodes(ep))
        # What is computed from weights alone is one: a dequantized weight, say.
        weights = constant_nodes(ep)
        self._constants = weights | computed_from(nodes, weights - mutated_buffers(ep))
        self._units = self._joined(candidates)
        taken = {node for candidate in candidates for node in candidate.nodes}
        able = {node for node in nodes if node in taken and self._is_able(node)}
        near = self._near_seeds(self._complete_units(able))
        self.free = [node for node in nodes if node in near]

    def _joined(self, candidates: Sequence[Candidate]) -> dict[Node, frozenset[Node]]:
        links: nx.Graph[Node] = nx.Graph()
        for candidate in candidates:
            if not candidate.divisible:
                members = [_owner(node) if is_getitem(node) else node for node in candidate.nodes]
                nx.add_path(links, [node for node in members if node not in self._constants])
        parts = map(frozenset, nx.connected_components(links))
        return {node: part for part in parts for node in part}

    def unit(self, node: Node) -> frozenset[Node]:
        """The nodes that have one order with a node, itself among them."""
        return self._units.get(node, frozenset((node,)))

    def _complete_units(self, nodes: set[Node]) -> set[Node]:
        return {node for node in nodes if self.unit(node) <= nodes}

    def _near_seeds(self, able: set[Node]) -> set[Node]:
        near = {member for node in able if _is_seed(node) for member in self.unit(node)}
        waiting = list(near)
        while waiting:
            for neighbour in _neighbours(waiting.pop()):
                if neighbour in able and neighbour not in near:
                    unit = self.unit(neighbour)
                    near |= unit
                    waiting += unit
        return near

    def _is_able(self, node: Node) -> bool:
        if node in self._constants:
            return False
        if not all(_has_known_order(value) for value in tensor_results(node)):
            return False
        if _is_seed(node):
            return node.args[0] not in self._constants and _has_known_order(_value(node.args[0]))
        follows = Trait.ORDER_FREE in traits(op_name(node))
        if not follows or not _is_image(tensor_results(node)[0]):
            return False
        for source in node.all_input_nodes:
            value = source.meta.get("val")
            if not isinstance(value, torch.Tensor) or not _has_known_order(value):
                return False
            if source in self._constants and value.dim() == 4 and not _is_one_pixel(value):
                return False  # it would have to be converted at every run
        return True

    def images(self, node: Node) -> Iterator[Node]:
        """The images that a node reads and whose order matters; not a convolution's weight."""
        sources = [node.args[0]] if op_name(node) == _SEED else node.all_input_nodes
        for source in sources:
            assert isinstance(source, Node)
            value = source.meta.get("val")
            if _is_image(value) and not _is_one_pixel(value) and source not in self._constants:
                yield source

    def fix(self, nodes: Iterable[Node]) -> None:
        """Leave nodes as they are after all."""
        misfits = {member for node in nodes for member in self.unit(node)}
        self.free = [node for node in self.free if node not in misfits]


def _owner(tensor: Node) -> Node:
    """The node that decides a tensor's order."""
    source = tensor.args[0] if is_getitem(tensor) else tensor
    assert isinstance(source, Node)
    return source


def _neighbours(node: Node) -> Iterator[Node]:
    """The nodes that read what a node makes, and that make what it reads, across getitems."""
    for user in node.users:
        yield from user.users if is_getitem(user) else (user,)
    for source in node.all_input_nodes:
        yield _owner(source)


def _readers(tensor: Node) -> list[Node]:
    return [user for user in tensor.users if not is_getitem(user)]


def _tensors(region: _Region) -> list[Node]:
    """The images that free nodes read or make, in graph order."""
    read = {source for node in region.free for source in region.images(node)}
    free = set(region.free)

    def is_made(node: Node) -> bool:
        value = node.meta.get("val")
        return _is_image(value) and not _is_one_pixel(value) and _owner(node) in free

    return [node for node in region.ep.graph.nodes if node in read or is_made(node)]


def _cheapest_labels(region: _Region) -> dict[Node, Label]:
    """The labels of the free nodes under which least bytes are converted."""
    free = set(region.free)
    graph = nx.DiGraph()
    graph.add_nodes_from((CHANNELS_LAST, CONTIGUOUS))

    def vertex(node: Node, tensor: Node) -> Any:
        # Whatever is not free wants, and makes, a tensor as it was.
        if node in free:
            return node
        return _label_of(tensor.meta["val"]) or CONTIGUOUS

    for node in region.free:
        graph.add_node(node)
        if _is_seed(node):
            graph.add_edge(CHANNELS_LAST, node)  # without a capacity: never cut
        for member in region.unit(node):
            graph.add_edge(node, member)
    for tensor in _tensors(region):
        maker = vertex(_owner(tensor), tensor)
        size = nbytes(tensor)
        _add_capacity(graph, maker, (tensor, "to contiguous"), size)
        _add_capacity(graph, (tensor, "to channels-last"), maker, size)
        for reader in _readers(tensor):
            wants = vertex(reader, tensor)
            graph.add_edge((tensor, "to contiguous"), wants)
            graph.add_edge(wants, (tensor, "to channels-last"))
    _, (side, _) = nx.minimum_cut(graph, CHANNELS_LAST, CONTIGUOUS)
    return {node: CHANNELS_LAST if node in side else CONTIGUOUS for node in region.free}


def _add_capacity(graph: nx.DiGraph[Any], start: Any, end: Any, size: int) -> None:
    graph.add_edge(start, end, capacity=size)


def _without_lone(region: _Region, labels: dict[Node, Label]) -> dict[Node, Label]:
    """The same, but units in channels-last on their own stay: they hand nothing over in it."""
    linked: set[Node] = set()
    for tensor in _tensors(region):
        maker = _owner(tensor)
        for reader in _readers(tensor):
            both = {labels.get(maker), labels.get(reader)}
            if both == {CHANNELS_LAST} and reader not in region.unit(maker):
                linked |= {maker, reader}
    return {
        node: CONTIGUOUS if _is_lone(region.unit(node), linked) else label
        for node, label in labels.items()
    }


def _is_lone(unit: Set[Node], linked: Set[Node]) -> bool:
    """Whether a unit, contiguous so far, hands no image to another in channels-last."""
    orders = {_label_of_all(node) for node in unit}
    return linked.isdisjoint(unit) and CONTIGUOUS in orders and CHANNELS_LAST not in orders


def _label_of_all(node: Node) -> Label | None:
    labels = {_label_of(value) for value in tensor_results(node) if _is_image(value)} - {None}
    return labels.pop() if len(labels) == 1 else None


@dataclass
class _Values:
    """What the nodes compute once the labels hold.

    changed: new fake values, by node. `converted`: those of conversions, by tensor and label.
    """

    region: _Region
    labels: Mapping[Node, Label]
    changed: dict[Node, Any] = field(default_factory=dict)
    converted: dict[tuple[Node, Label], torch.Tensor] = field(default_factory=dict)

    def propagate(self) -> set[Node]:
        """Compute them; returns the free nodes whose results are not in the order asked for."""
        misfits = set()
        for node in self.region.ep.graph.nodes:
            if is_getitem(node) and node.args[0] in self.changed:
                self.changed[node] = self.changed[node.args[0]][node.args[1]]
            if node not in self.labels:
                continue
            label = self.labels[node]
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), self.reader(label))
            with faked(node.meta["val"]), torch.no_grad():
                self.changed[node] = node.target(*args, **kwargs)
            images = [value for value in tensors_of(self.changed[node]) if _is_image(value)]
            if not all(_is_fit(value, label) for value in images):
                misfits.add(node)
        return misfits

    def value(self, tensor: Node) -> Any:
        """What a node computes, before any conversion."""
        return self.changed.get(tensor, tensor.meta.get("val"))

    def needs(self, tensor: Node, label: Label) -> bool:
        """Whether a reader that wants this order needs a conversion."""
        value = self.value(tensor)
        return _is_image(value) and not _is_one_pixel(value) and _label_of(value) != label

    def reader(self, label: Label) -> Any:
        """A function from a node to its value as a reader with this label gets it."""

        def read(tensor: Node) -> Any:
            value = self.value(tensor)
            if tensor in self.region._constants or not self.needs(tensor, label):
                return value
            if (tensor, label) not in self.converted:
                self.converted[tensor, label] = converted_value(
                    value, dtype=value.dtype, dim_order=_ORDERS[label]
                )
            return self.converted[tensor, label]

        return read


def _is_fit(value: torch.Tensor, label: Label) -> bool:
    """Whether an image that a free node makes may be handed over.

    One that lies alike in both orders has to say contiguous: backends disagree about it otherwise.
    """
    return dim_order(value) == _ORDERS[CONTIGUOUS if _is_one_pixel(value) else label]


def _insert_conversions(region: _Region, labels: Mapping[Node, Label], values: _Values) -> bool:
    """Rewrite the graph; returns whether it changed."""
    wanted: dict[tuple[Node, Label], list[Node]] = {}
    for tensor in region.ep.graph.nodes:
        if tensor in region._constants or not _is_image(tensor.meta.get("val")):
            continue
        for reader in _readers(tensor):
            label = labels.get(reader) or _label_of(tensor.meta["val"]) or CONTIGUOUS
            if values.needs(tensor, label):
                wanted.setdefault((tensor, label), []).append(reader)
    for node, value in values.changed.items():
        node.meta["val"] = value
    for (tensor, label), readers in wanted.items():
        dtype, order = tensor.meta["val"].dtype, _ORDERS[label]
        copy = insert_conversion(
            region.ep.graph, tensor, _SUFFIXES[label], dtype=dtype, dim_order=order
        )
        read_instead(readers, tensor, copy, region.ep.graph_signature)
    if wanted:
        region.ep.graph_module.recompile()
    return bool(wanted)
