"""From candidates to the graph that the planner solves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends import portable
from orchestrator.candidates import Atom, Candidates
from orchestrator.graph import is_view, nbytes
from orchestrator.planner import UNKNOWN, Backend, CostGraph, Tensor
from orchestrator.planner import Atom as PricedAtom


def cost_graph(ep: ExportedProgram, candidates: Candidates, backends: Sequence[str]) -> CostGraph:
    """Return the planner's view of a program, every cost unknown.

    backends: names of delegates, the preferred one first; ExecuTorch's kernels come last.

    An atom that a delegate takes and that has no kernel here cannot be left to the kernels. One
    that no delegate takes is, whether or not this runtime has its kernels: another may.
    """
    order = [Backend(name) for name in backends] + [Backend(portable.NAME, is_delegate=False)]
    atoms = [
        PricedAtom(atom.id, dict.fromkeys(_runs_on(atom), UNKNOWN), all(map(is_view, atom.nodes)))
        for atom in candidates.atoms
    ]
    owner = {node: atom.id for atom in candidates.atoms for node in atom.nodes}
    return CostGraph(order, atoms, _tensors(ep, owner))


def _runs_on(atom: Atom) -> Iterator[str]:
    yield from atom.backends
    if not atom.backends or not any(map(portable.missing_kernel, atom.nodes)):
        yield portable.NAME


def _tensors(ep: ExportedProgram, owner: Mapping[Node, str]) -> Iterable[Tensor]:
    constants = set(ep.graph_signature.inputs_to_parameters)
    for node in ep.graph.nodes:
        if node.op not in ("placeholder", "call_function") or node.name in constants:
            continue
        producer = owner.get(node)
        readers = dict.fromkeys(owner[user] for user in node.users if user in owner)
        consumers = tuple(reader for reader in readers if reader != producer)
        is_output = any(user.op == "output" for user in node.users)
        if consumers or is_output:
            yield Tensor(node.name, producer, consumers, nbytes(node), is_output)
