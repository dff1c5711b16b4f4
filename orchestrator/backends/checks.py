"""What backends of others say, checked where they are asked: an error names backend and member."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from executorch.exir.backend.backend_details import BackendDetails
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import DelegationSpec
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends.base import (
    Backend,
    BackendError,
    Candidate,
    NodeFilter,
    Rejection,
    Support,
)
from orchestrator.graph.queries import compute_nodes, constant_nodes, is_getitem

_FEW = 3  # nodes that an error names


def checked_backend(item: object, made_by: object = None) -> Backend:
    """Return a backend that is one, with a name and the id of a delegate.

    made_by: what made it, for the error.

    Raises:
        BackendError: it is a class or another object, or lacks a name or an id.
    """
    if isinstance(item, type):
        raise BackendError(
            f"backends has the class {item.__name__}; expected a backend: {item.__name__}()"
        )
    if not isinstance(item, Backend):
        said = f"{made_by} made" if made_by is not None else "backends has"
        raise BackendError(
            f"{said} a {type(item).__name__}, which lacks parts of "
            "orchestrator.backends.base.Backend"
        )
    for member in ("name", "backend_id"):
        value = getattr(item, member, None)
        if not isinstance(value, str) or not value:
            raise BackendError(
                f"backend {type(item).__name__}: its {member} is {value!r}; expected text"
            )
    return item


def proposed(backend: Backend, ep: ExportedProgram) -> Support:
    """Ask a backend about a program, and check the answer against what `Backend.propose` promises.

    Results of a node that has several go with it, and need not be in the answer.

    Raises:
        BackendError: it is no answer, names what is no node to compute, leaves nodes out, or both
            takes and rejects one.
    """
    answer: Any = backend.propose(ep)
    where = f"backend {backend.name!r}: propose"
    if not isinstance(answer, Support):
        raise BackendError(f"{where} returned {_shown(answer)}; expected a Support")
    known, constants = dict.fromkeys(compute_nodes(ep)), constant_nodes(ep)
    taken: Counter[Node] = Counter()
    for candidate in _all(answer.candidates, Candidate, f"{where}, candidates"):
        if not candidate.nodes:
            raise BackendError(f"{where}: a candidate has no nodes")
        taken.update(set(_members(candidate.nodes, known, "call_function", where)))
        _members(candidate.constants, constants, "parameter, buffer or constant", where)
    rejections = _all(answer.rejections, Rejection, f"{where}, rejections")
    rejected = set(_members([each.node for each in rejections], known, "call_function", where))
    both = [node for node in known if node in taken and node in rejected]
    if both:
        raise BackendError(f"{where} both takes and rejects {_named(both)}")
    left = [n for n in known if n not in taken and n not in rejected and not is_getitem(n)]
    if left:
        raise BackendError(
            f"{where} leaves out {_named(left)}; expected every compute node among the candidates "
            "or the rejections"
        )
    return answer


def preserved(
    backend: Backend, ep: ExportedProgram
) -> tuple[Sequence[torch._ops.OpOverload], NodeFilter]:
    """Ask a backend which ops to preserve.

    Raises:
        BackendError: it names something else than ops of ATen, or has no filter.
    """
    answer: Any = backend.preserved_ops(ep)
    where = f"backend {backend.name!r}: preserved_ops"
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise BackendError(f"{where} returned {_shown(answer)}; expected ops and a filter")
    ops, node_filter = answer
    _all(ops, torch._ops.OpOverload, where)
    return ops, _callable(node_filter, where)


def tables_taken(backend: Backend, ep: ExportedProgram) -> NodeFilter:
    """Ask a backend which embeddings it takes with their tables.

    Raises:
        BackendError: it has no filter.
    """
    return _callable(backend.takes_tables(ep), f"backend {backend.name!r}: takes_tables")


def delegation_spec(backend: Backend) -> DelegationSpec:
    """Return what ExecuTorch is to know of the partitions of a backend.

    Raises:
        BackendError: no class of the name of its backend_id is loaded, which would lower them, or
            its options are no CompileSpecs.
    """
    known = {each.__name__ for each in _subclasses(BackendDetails)}
    if backend.backend_id not in known:
        raise BackendError(
            f"backend {backend.name!r}: its backend_id is {backend.backend_id!r}, and no subclass "
            f"of executorch.exir.backend.backend_details.BackendDetails has that name; loaded are "
            f"{', '.join(sorted(known))}"
        )
    specs = backend.compile_specs()
    if not isinstance(specs, list):
        raise BackendError(
            f"backend {backend.name!r}: compile_specs returned {_shown(specs)}; expected a list"
        )
    _all(specs, CompileSpec, f"backend {backend.name!r}: compile_specs")
    return DelegationSpec(backend.backend_id, specs)


def _subclasses(kind: type) -> Iterable[type]:
    return kind.__subclasses__()  # as ExecuTorch looks for them: not those of subclasses


def _callable(node_filter: Any, where: str) -> Callable[[Node], bool]:
    if not callable(node_filter):
        raise BackendError(
            f"{where} returned {_shown(node_filter)} for a filter; expected a function of a node"
        )
    return node_filter  # type: ignore[no-any-return]


def _all(items: Any, kind: type, where: str) -> Sequence[Any]:
    if not isinstance(items, Sequence):
        raise BackendError(f"{where}: {_shown(items)}; expected a sequence of {kind.__name__}")
    for item in items:
        if not isinstance(item, kind):
            raise BackendError(f"{where}: {_shown(item)}; expected a {kind.__name__}")
    return items


def _members(nodes: Any, known: Iterable[Node], kind: str, where: str) -> Sequence[Node]:
    for node in nodes:
        if not isinstance(node, Node):
            raise BackendError(f"{where} names {_shown(node)}; expected a node of the program")
        if node not in known:
            raise BackendError(
                f"{where} names the {node.op} {node.name!r}, which is no {kind} of the program's "
                "graph"
            )
    return nodes  # type: ignore[no-any-return]


def _named(nodes: Sequence[Node]) -> str:
    names = ", ".join(repr(node.name) for node in nodes[:_FEW])
    return names + (f" and {len(nodes) - _FEW} other nodes" if len(nodes) > _FEW else "")


def _shown(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
