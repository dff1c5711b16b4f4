"""From patterns over modules, ops and nodes to constraints on atoms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from fnmatch import fnmatchcase

from torch.fx import Node

from orchestrator.backends.candidates import Candidates
from orchestrator.backends.portable import NAME as KERNELS
from orchestrator.graph.conversions import CONVERSION
from orchestrator.graph.queries import module_path, op_name, origin_op
from orchestrator.options import OptionError, PlanOptions
from orchestrator.planner import ConstraintError, Constraints, Exclude, Pin


def matches(pattern: str, node: Node) -> bool:
    """Whether a pattern names a node, its op ("aten.linear.default", "linear") or a module.

    The op may be the one that the model called, of which the node's is a part. A module that is
    named stands for all modules in it.
    """
    if fnmatchcase(node.name, pattern):
        return True
    if any(fnmatchcase(name, pattern) for name in _op_names(node)):
        return True
    return any(fnmatchcase(path, pattern) for path in _paths(module_path(node)))


# An embedding of a quantized table goes by its name whether or not it is kept: a pattern that keeps
# it from the backends that would take it has it written so.
_EMBEDDINGS = {f"quantized_decomposed.embedding_{bits}" for bits in ("byte", "4bit", "2bit")}
_EMBEDDING = "aten.embedding.default"


def _op_names(node: Node) -> Iterator[str]:
    name = op_name(node)
    yield from _forms(name)
    if name != CONVERSION:  # which is noted as made from what it converts
        yield from _forms(origin_op(node))
    if name.rpartition(".")[0] in _EMBEDDINGS:
        yield from _forms(_EMBEDDING)


def _forms(name: str) -> Iterator[str]:
    yield name
    parts = name.split(".")
    if len(parts) > 1:
        yield parts[1]
        yield parts[1].removesuffix("_copy")
        yield f"{parts[0]}.{parts[1]}"


def _paths(path: str) -> Iterator[str]:
    """Yield a module's path and those of the modules around it, without the root."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def may_run_on(node: Node, backend: str, options: PlanOptions) -> bool:
    """Whether pins and excludes leave a node to a backend.

    Raises:
        ConstraintError: pins to different backends match the node.
    """
    pinned = {pattern: name for pattern, name in options.pins.items() if matches(pattern, node)}
    if len(set(pinned.values())) > 1:
        (one, first), (other, second) = list(pinned.items())[:2]
        raise ConstraintError(
            f"pins {one!r} -> {first!r} and {other!r} -> {second!r} contradict each other: both "
            f"match the node {node.name!r}. Narrow one of them."
        )
    if pinned and backend not in pinned.values():
        return False
    excluded = options.excluded([backend])
    return not any(
        backend in names and matches(pattern, node) for pattern, names in excluded.items()
    )


def plan_constraints(
    candidates: Candidates, options: PlanOptions, backends: Sequence[str]
) -> Constraints:
    """Return the planner's constraints for a program.

    backends: names of the delegates. A pattern that matches nothing becomes a constraint without
    atoms, which the planner refuses.

    Raises:
        OptionError: a pin or an exclude that names an unknown backend.
    """
    known = (*backends, KERNELS)
    for pattern, name in options.pins.items():
        _check_backend(f"pin {pattern!r}", name, known)
    excluded = options.excluded(backends)
    for pattern, names in excluded.items():
        for name in names:
            _check_backend(f"exclude {pattern!r}", name, known)
    return Constraints(
        pins=tuple(
            Pin(pattern, matching_atoms(candidates, pattern), name)
            for pattern, name in options.pins.items()
        ),
        excludes=tuple(
            Exclude(pattern, matching_atoms(candidates, pattern), names)
            for pattern, names in excluded.items()
        ),
        max_partitions=options.max_partitions,
        max_duplicated_bytes=options.max_duplicated_bytes,
        max_private_bytes=options.max_private_bytes,
    )


def patterns_found(options: PlanOptions, candidates: Candidates) -> set[str]:
    """Return the patterns of pins and excludes that name something."""
    patterns = {*options.pins, *options.exclude}
    return {pattern for pattern in patterns if matching_atoms(candidates, pattern)}


def with_patterns(options: PlanOptions, patterns: Set[str]) -> PlanOptions:
    """Return the options with no other patterns of pins and excludes than these."""
    exclude = options.exclude
    return replace(
        options,
        pins={pattern: name for pattern, name in options.pins.items() if pattern in patterns},
        exclude={pattern: names for pattern, names in exclude.items() if pattern in patterns}
        if isinstance(exclude, Mapping)
        else [pattern for pattern in exclude if pattern in patterns],
    )


def _check_backend(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise OptionError(f"{what} names the backend {name!r}; known: {', '.join(known)}")


def matching_atoms(candidates: Candidates, pattern: str) -> tuple[str, ...]:
    """Return the ids of the atoms that a pattern names, wholly or in part."""
    return tuple(
        atom.id for atom in candidates.atoms if any(matches(pattern, node) for node in atom.nodes)
    )
