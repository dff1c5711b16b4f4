"""What the backends offer for one program: atoms, who supports each, and every rejection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends import portable
from orchestrator.backends.base import Backend, Candidate, Rejection, Support
from orchestrator.backends.checks import proposed
from orchestrator.graph.contraction import Contraction
from orchestrator.graph.layouts import (
    CHANNELS_LAST_ORDER,
    CONTIGUOUS_ONLY,
    layout_in_memory,
)
from orchestrator.graph.queries import (
    compute_nodes,
    dim_order,
    has_default_dim_order,
    is_dim_order_op,
    is_getitem,
    is_stored_as_asked,
)

EVERY_NODE = "*"


@dataclass(frozen=True)
class Atom:
    """Nodes that always run on the same backend.

    id: the name of its first node.
    nodes: in graph order.
    backends: names of the delegates that take all of them, in the user's order. ExecuTorch's own
        kernels are not among them.
    """

    id: str
    nodes: tuple[Node, ...]
    backends: tuple[str, ...]


@dataclass(frozen=True)
class BackendRejection:
    """A node that a backend does not take, and why; see `Rejection`.

    remedy: what it would take, as a sentence fragment; "" where nothing general can be said.
    """

    backend: str
    node: Node
    reason: str
    code: str = "unsupported"
    remedy: str = ""


@dataclass(frozen=True)
class Candidates:
    """Everything a planner needs to know about one program.

    atoms: in a topological order.
    constants: for each backend and node, the placeholders the backend wants inside its delegate.
    """

    atoms: tuple[Atom, ...]
    rejections: tuple[BackendRejection, ...]
    constants: Mapping[str, Mapping[Node, frozenset[Node]]]

    def nodes(self, atoms: Iterable[str]) -> Iterator[Node]:
        """Yield the nodes of some atoms, given by id."""
        wanted = set(atoms)
        return (node for atom in self.atoms if atom.id in wanted for node in atom.nodes)


def runs_on(atom: Atom) -> Iterator[str]:
    """Yield the names of what can run an atom, ExecuTorch's kernels last."""
    yield from atom.backends
    if not atom.backends or all(map(_has_kernel, atom.nodes)):
        yield portable.NAME


def _has_kernel(node: Node) -> bool:
    if portable.missing_kernel(node):
        return False
    if is_dim_order_op(node):
        return is_stored_as_asked(node)
    return has_default_dim_order(node)


def collect_candidates(
    ep: ExportedProgram,
    backends: Sequence[Backend],
    refused: Mapping[str, Mapping[str, str]] | None = None,
) -> Candidates:
    """Ask every backend about an edge-dialect program and merge the answers into atoms.

    A node with several results and its `getitem`s are one atom. Groups that backends propose
    become atoms where at least one backend takes the merged group whole and where contracting it
    leaves the graph acyclic; other groups are taken apart.

    refused: by backend, nodes that it is not to get, whatever it proposes, and why; "*" is all.
    """
    nodes = list(compute_nodes(ep))
    by_name = {backend.name: backend for backend in backends}
    offers = {backend.name: _with_getitems(proposed(backend, ep)) for backend in backends}
    for name, reasons in (refused or {}).items():
        for refusal, reason in reasons.items():
            named = {node for node in nodes if refusal in (node.name, EVERY_NODE)}
            offers[name] = _without(offers[name], named, reason, "failed")
    for backend in backends:
        offers[backend.name] = _in_its_layouts(offers[backend.name], backend)
    support = _apart_from_kernels(nodes, offers)
    contraction = Contraction(nodes)
    for node in nodes:
        if is_getitem(node):
            contraction.merge([node, *node.all_input_nodes])
    covered = {
        name: {node for candidate in offer.candidates for node in candidate.nodes}
        for name, offer in support.items()
    }
    for offer in support.values():
        for candidate in offer.candidates:
            _merge_if_some_backend_takes_it(contraction, candidate, covered.values())
    groups = contraction.groups_in_topological_order()
    atoms = []
    refused_alone: dict[str, list[Rejection]] = {backend.name: [] for backend in backends}
    for group in groups:
        takers: list[str] = []
        for name in _takers(group, support, covered):
            against = by_name[name].check_segment(group)
            if against is None:
                takers.append(name)
            else:  # what cannot be a call cannot be in one
                refused_alone[name] += [
                    Rejection(node, against) for node in group if not is_getitem(node)
                ]
        atoms.append(Atom(group[0].name, tuple(group), tuple(takers)))
    rejections = {
        name: (*offer.rejections, *refused_alone[name]) for name, offer in support.items()
    }
    return Candidates(tuple(atoms), _rejections(backends, rejections), _wanted_constants(support))


def _with_getitems(offer: Support) -> Support:
    """Let a getitem go wherever the node goes whose result it takes."""
    candidates = []
    for candidate in offer.candidates:
        extra = [user for node in candidate.nodes for user in node.users if is_getitem(user)]
        nodes = tuple(dict.fromkeys((*candidate.nodes, *extra)))
        candidates.append(Candidate(nodes, candidate.constants, candidate.divisible))
    rejections = [rejection for rejection in offer.rejections if not is_getitem(rejection.node)]
    return Support(candidates, rejections)


def _in_its_layouts(offer: Support, backend: Backend) -> Support:
    """Leave out what reads or makes tensors in dim orders that a backend does not take."""
    unfit = {
        node
        for candidate in offer.candidates
        for node in candidate.nodes
        if not all(_takes(backend, each) for each in (node, *node.all_input_nodes))
    }
    if not unfit:
        return offer
    reason = f"its tensors are in a dim order that {backend.name} does not take"
    return _without(offer, unfit, reason, "dim-order")


def _takes(backend: Backend, node: Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or dim_order(value) == tuple(range(value.dim())):
        return True
    layouts = backend.boundary_layouts(value.dim())
    return layouts != CONTIGUOUS_ONLY and layout_in_memory(value) in layouts


def _apart_from_kernels(
    nodes: Sequence[Node], support: Mapping[str, Support]
) -> Mapping[str, Support]:
    """Leave to kernels what reads a kernel's result in an order that no kernel makes.

    Kernels compute on contiguous tensors here, and what they make can be brought to channels-last
    alone. Broadcasting an image in channels-last may give yet another order.
    """
    while True:
        taken = {
            node for offer in support.values() for each in offer.candidates for node in each.nodes
        }
        made = {node for node in nodes if node not in taken and _is_in_another_order(node)}
        readers = {node for node in taken if not made.isdisjoint(node.all_input_nodes)}
        if not readers:
            return support
        reason = "it reads, in a dim order that no kernel makes, what a kernel makes"
        support = {
            name: _without(offer, readers, reason, "dim-order") for name, offer in support.items()
        }


def _is_in_another_order(node: Node) -> bool:
    """Whether a node makes a tensor that is neither contiguous nor in channels-last."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or is_dim_order_op(node):
        return False
    default, order = tuple(range(value.dim())), dim_order(value)
    if order in (default, CHANNELS_LAST_ORDER) or value.is_contiguous():
        return False
    is_image = value.dim() == len(CHANNELS_LAST_ORDER)
    return not (is_image and value.is_contiguous(memory_format=torch.channels_last))


def _without(offer: Support, nodes: Set[Node], reason: str, code: str) -> Support:
    kept = [candidate for candidate in offer.candidates if nodes.isdisjoint(candidate.nodes)]
    left = {node for candidate in kept for node in candidate.nodes}
    lost = dict.fromkeys(
        node for each in offer.candidates for node in each.nodes if node not in left
    )
    rejections = [Rejection(node, reason, code) for node in lost if not is_getitem(node)]
    return Support(kept, [*offer.rejections, *rejections])


def _merge_if_some_backend_takes_it(
    contraction: Contraction, candidate: Candidate, covered: Iterable[set[Node]]
) -> None:
    if len(candidate.nodes) < 2:
        return
    union = {member for node in candidate.nodes for member in contraction.group(node)}
    if any(union <= nodes for nodes in covered) and contraction.can_merge(candidate.nodes):
        contraction.merge(candidate.nodes)


def _takers(
    group: Sequence[Node], support: Mapping[str, Support], covered: Mapping[str, set[Node]]
) -> tuple[str, ...]:
    members = set(group)
    return tuple(
        name
        for name, offer in support.items()
        if members <= covered[name]
        and all(
            members.issuperset(candidate.nodes)
            for candidate in offer.candidates
            if not candidate.divisible and not members.isdisjoint(candidate.nodes)
        )
    )


def _rejections(
    backends: Sequence[Backend], rejections: Mapping[str, Sequence[Rejection]]
) -> tuple[BackendRejection, ...]:
    return tuple(
        BackendRejection(
            backend.name,
            each.node,
            each.reason,
            each.code,
            backend.remedies.get(each.code, ""),
        )
        for backend in backends
        for each in rejections[backend.name]
    )


def _wanted_constants(
    support: Mapping[str, Support],
) -> dict[str, dict[Node, frozenset[Node]]]:
    wanted: dict[str, dict[Node, frozenset[Node]]] = {}
    for name, offer in support.items():
        by_node: dict[Node, set[Node]] = defaultdict(set)
        for candidate in offer.candidates:
            for constant in candidate.constants:
                for node in candidate.nodes:
                    if constant in node.all_input_nodes:
                        by_node[node].add(constant)
        wanted[name] = {node: frozenset(constants) for node, constants in by_node.items()}
    return wanted
