"""From candidates to the graph that the planner solves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends import Backend, portable
from orchestrator.backends.candidates import Atom, Candidates, runs_on
from orchestrator.cost.model import CostModel, Unpriced
from orchestrator.graph.layouts import (
    BOTH_LAYOUTS,
    CONTIGUOUS_ONLY,
    image_nodes,
    layout_in_memory,
    layouts_of,
)
from orchestrator.graph.queries import is_view, mutated_buffers, nbytes
from orchestrator.planner import Atom as PricedAtom
from orchestrator.planner import AtomCost, Constant, CostGraph, Layout, Tensor
from orchestrator.planner import Backend as PricedBackend


def cost_graph(
    ep: ExportedProgram,
    candidates: Candidates,
    backends: Sequence[Backend],
    costs: CostModel | None = None,
) -> CostGraph:
    """Return the planner's view of a program; without a cost model every cost is unknown.

    backends: the delegates, the preferred one first; ExecuTorch's kernels come last.

    An atom that a delegate takes and that has no kernel here, or whose tensors are not contiguous,
    cannot be left to the kernels: many refuse dim orders, or inputs that differ in theirs. One that
    no delegate takes is, whether or not this runtime has its kernels: another may.
    """
    return _GraphBuilder(ep, candidates, backends, costs or Unpriced()).build()


_IMAGE_RANK = 4


class _GraphBuilder:
    def __init__(
        self,
        ep: ExportedProgram,
        candidates: Candidates,
        backends: Sequence[Backend],
        costs: CostModel,
    ) -> None:
        self._ep = ep
        self._candidates = candidates
        self._backends = tuple(backends)
        self._delegates = tuple(backend.name for backend in backends)
        self._layouts = {
            backend.name: backend.boundary_layouts(_IMAGE_RANK) for backend in backends
        } | {portable.NAME: BOTH_LAYOUTS}
        self._costs = costs
        self._images = image_nodes(ep)
        self._states = mutated_buffers(ep)
        self._written = set(ep.graph_signature.buffers_to_mutate)

    def build(self) -> CostGraph:
        order = [
            PricedBackend(
                backend.name,
                self._costs.call_overhead_ns(backend.name),
                layouts=self._layouts[backend.name],
                private_per_byte=backend.private_memory.per_weight_byte,
                private_per_state_byte=backend.private_memory.per_state_byte,
            )
            for backend in self._backends
        ]
        order.append(PricedBackend(portable.NAME, is_delegate=False, layouts=BOTH_LAYOUTS))
        atoms = [self._atom(atom) for atom in self._candidates.atoms]
        owner = {node: atom.id for atom in self._candidates.atoms for node in atom.nodes}
        return CostGraph(order, atoms, self._tensors(owner), self._constants(owner))

    def _atom(self, atom: Atom) -> PricedAtom:
        layouts = layouts_of(atom.nodes, self._images)
        costs: dict[str, AtomCost] = {
            name: self._costs.atom(atom, name, self._taken(name, layouts)) for name in runs_on(atom)
        }
        trivial = all(map(is_view, atom.nodes))
        state = sum(nbytes(node) for node in atom.nodes if node.name in self._written)
        return PricedAtom(atom.id, costs, trivial, self._own_weight_bytes(atom), state)

    def _taken(self, backend: str, layouts: tuple[Layout, ...]) -> tuple[Layout, ...]:
        """Return those of an atom's layouts that a backend takes."""
        return tuple(layout for layout in layouts if layout in self._layouts[backend]) or layouts

    def _own_weight_bytes(self, atom: Atom) -> dict[str, int]:
        """Return the bytes of weights that nothing else uses and that a delegate would hold."""
        found = {}
        for name in atom.backends:
            wanted = self._candidates.constants[name]
            constants = {each for node in atom.nodes for each in wanted.get(node, ())}
            constants -= self._states  # no delegate gets them for its own
            found[name] = sum(
                nbytes(each) for each in constants if set(each.users) <= set(atom.nodes)
            )
        return {name: size for name, size in found.items() if size}

    def _tensors(self, owner: Mapping[Node, str]) -> Iterable[Tensor]:
        weights = set(self._ep.graph_signature.inputs_to_parameters)
        for node in self._ep.graph.nodes:
            if node.op not in ("placeholder", "call_function") or node.name in weights:
                continue
            producer = owner.get(node)
            readers = dict.fromkeys(owner[user] for user in node.users if user in owner)
            consumers = tuple(reader for reader in readers if reader != producer)
            is_output = any(user.op == "output" for user in node.users)
            if consumers or is_output:
                yield self._tensor(node, producer, consumers, is_output)

    def _tensor(
        self, node: Node, producer: str | None, consumers: tuple[str, ...], is_output: bool
    ) -> Tensor:
        layouts = BOTH_LAYOUTS if node in self._images else CONTIGUOUS_ONLY
        size = nbytes(node)
        # Between delegates a tensor lies as the exported program says.
        memory = layout_in_memory(node.meta.get("val"))
        names = (*self._delegates, portable.NAME)
        return Tensor(
            node.name,
            producer,
            consumers,
            size,
            is_output,
            layouts=layouts,
            memory_layouts=(memory,) if memory in layouts else layouts[:1],
            transfers={name: self._costs.transfer(name, size, layouts) for name in names},
        )

    def _constants(self, owner: Mapping[Node, str]) -> Iterable[Constant]:
        """Yield the weights that more than one atom uses."""
        wanted = {
            constant
            for by_node in self._candidates.constants.values()
            for constants in by_node.values()
            for constant in constants
        }
        for node in self._ep.graph.nodes:
            if node in wanted - self._states:
                users = dict.fromkeys(owner[user] for user in node.users if user in owner)
                if len(users) > 1:
                    yield Constant(node.name, nbytes(node), tuple(users))
