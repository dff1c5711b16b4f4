"""What a plan must respect: pins, excluded backends, limits, and calls that are refused."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .calls import Calls
from .cost_graph import CostGraph, Option
from .errors import ConstraintError
from .pricing import feasible_backends

# What `LimitLedger` counts: delegate calls, then bytes, then one bit per constant and backend.
_CALL_BITS = 32
_BYTE_BITS = 56
_FIELDS = _CALL_BITS + _BYTE_BITS
_CALLS = (1 << _CALL_BITS) - 1
_BYTES = (1 << _BYTE_BITS) - 1


@dataclass(frozen=True)
class Pin:
    """Atoms (ids) that must run on a backend. `name` is what the user wrote, for messages."""

    name: str
    atoms: tuple[str, ...]
    backend: str


@dataclass(frozen=True)
class Exclude:
    """Atoms (ids) that must not run on some backends. `name` is what the user wrote."""

    name: str
    atoms: tuple[str, ...]
    backends: tuple[str, ...]


@dataclass(frozen=True)
class Constraints:
    """All that a plan must respect.

    max_partitions: delegate calls; kernels do not count. max_duplicated_bytes: of constants
    (`Constant`) that more than one backend uses, summed over every backend but the first.
    max_private_bytes: see `private_bytes`. calls: which atoms may not be in one delegate call;
    what is learned of them serves every graph that is solved under these constraints.
    """

    pins: tuple[Pin, ...] = ()
    excludes: tuple[Exclude, ...] = ()
    max_partitions: int | None = None
    max_duplicated_bytes: int | None = None
    max_private_bytes: int | None = None
    calls: Calls | None = None

    @property
    def has_limits(self) -> bool:
        """Whether something limits the plan as a whole."""
        limits = (self.max_partitions, self.max_duplicated_bytes, self.max_private_bytes)
        return any(limit is not None for limit in limits)


def allowed_options(graph: CostGraph, constraints: Constraints) -> list[tuple[Option, ...]]:
    """By atom index, the options that pins and excludes leave, and that are not refused alone.

    Raises ConstraintError naming the pins or excludes that contradict each other or the graph, or
    what refuses an atom.
    """
    pinned: dict[int, Pin] = {}
    for pin in constraints.pins:
        _check(graph, f"pin {pin.name!r}", pin.atoms, (pin.backend,))
        for name in pin.atoms:
            atom = graph.atom_index[name]
            other = pinned.setdefault(atom, pin)
            if other.backend != pin.backend:
                raise ConstraintError(
                    f"pins {other.name!r} -> {other.backend!r} and {pin.name!r} -> {pin.backend!r} "
                    f"contradict each other: both match the atom {name!r}. Narrow one of them."
                )
            if not graph.capable(name, pin.backend):
                raise ConstraintError(
                    f"pin {pin.name!r} asks for {pin.backend!r}, which cannot run the atom "
                    f"{name!r}; backends that can: {feasible_backends(graph, atom)}."
                )
    excluded: dict[int, dict[int, Exclude]] = {}
    for exclude in constraints.excludes:
        _check(graph, f"exclude {exclude.name!r}", exclude.atoms, exclude.backends)
        for name in exclude.atoms:
            row = excluded.setdefault(graph.atom_index[name], {})
            for backend in exclude.backends:
                row.setdefault(graph.backend_index[backend], exclude)
    if constraints.calls is not None:
        for atom, exclude in _refused_alone(graph, constraints.calls):
            for backend in exclude.backends:
                excluded.setdefault(atom, {}).setdefault(graph.backend_index[backend], exclude)
    return [
        _left(graph, atom, pinned.get(atom), excluded.get(atom, {}))
        for atom in range(len(graph.atoms))
    ]


def _refused_alone(graph: CostGraph, calls: Calls) -> Iterator[tuple[int, Exclude]]:
    """The atoms (by index) that a backend refuses in any call."""
    for index, options in enumerate(graph.options):
        atom = graph.atoms[index].id
        for number in dict.fromkeys(option.backend for option in options):
            backend = graph.backends[number]
            if backend.is_delegate and (reason := calls.reason(backend.name, (atom,))) is not None:
                yield index, Exclude(reason, (atom,), (backend.name,))


def _left(
    graph: CostGraph, atom: int, pin: Pin | None, excluded: dict[int, Exclude]
) -> tuple[Option, ...]:
    options = graph.options[atom]
    name = graph.atoms[atom].id
    if pin is not None:
        backend = graph.backend_index[pin.backend]
        if backend in excluded:
            raise ConstraintError(
                f"pin {pin.name!r} -> {pin.backend!r} and exclude {excluded[backend].name!r} "
                f"contradict each other: both match the atom {name!r}."
            )
        options = tuple(option for option in options if option.backend == backend)
    left = tuple(option for option in options if option.backend not in excluded)
    if options and not left:
        names = sorted({exclude.name for exclude in excluded.values()})
        raise ConstraintError(
            f"excludes {names} leave no backend for the atom {name!r}; those that can run it: "
            f"{feasible_backends(graph, atom)}."
        )
    return left


def _check(graph: CostGraph, what: str, atoms: Sequence[str], backends: Sequence[str]) -> None:
    if not atoms:
        raise ConstraintError(f"{what} matches nothing; check its spelling.")
    for name in atoms:
        if name not in graph.atom_index:
            raise ConstraintError(f"{what} names the atom {name!r}, which is not in the graph.")
    for backend in backends:
        if backend not in graph.backend_index:
            known = [each.name for each in graph.backends]
            raise ConstraintError(f"{what} names the backend {backend!r}; known: {known}.")


def duplicated_bytes(graph: CostGraph, assignment: Mapping[str, str]) -> int:
    """Bytes of constants that the backends of an assignment (by atom id) hold more than once."""
    total = 0
    for constant in graph.constants:
        backends = {assignment[atom] for atom in constant.atoms}
        total += constant.nbytes * max(0, len(backends) - 1)
    return total


def private_bytes(graph: CostGraph, assignment: Mapping[str, str]) -> int:
    """Bytes that the delegates of an assignment (by atom id) hold in their own memory.

    A backend holds `Backend.private_per_byte` for each byte of a weight that it uses, and
    `Backend.private_per_state_byte` for each byte of mutable state that it writes.
    """
    backends = {backend.name: backend for backend in graph.backends}
    total = sum(backends[assignment[atom.id]].held_for(atom) for atom in graph.atoms)
    for constant in graph.constants:
        for backend in {assignment[atom] for atom in constant.atoms}:
            total += int(backends[backend].private_per_byte * constant.nbytes)
    return total


class LimitLedger:
    """Counts, along a search path, what the limits of constraints are about.

    The count holds the number of delegate calls below, above it the private bytes of weights that
    one atom uses alone, and above that one bit per shared constant and backend that uses it.
    """

    def __init__(self, graph: CostGraph, constraints: Constraints, atoms: Sequence[int]) -> None:
        self._max_calls = constraints.max_partitions
        self._max_copied = constraints.max_duplicated_bytes
        self._max_private = constraints.max_private_bytes
        self._calls = [int(backend.is_delegate) for backend in graph.backends]
        self._shares = [backend.private_per_byte for backend in graph.backends]
        self._sizes: list[int] = []
        self._backends = len(graph.backends)
        bits: list[list[int]] = [[] for _ in graph.atoms]
        counts_constants = self._max_copied is not None or self._max_private is not None
        for constant in graph.constants if counts_constants else ():
            place = _FIELDS + len(self._sizes) * self._backends
            self._sizes.append(constant.nbytes)
            for name in set(constant.atoms):
                bits[graph.atom_index[name]].append(place)
        self._bits = [bits[atom] for atom in atoms]
        self._own = [self._own_bytes(graph, atom) for atom in atoms]
        if self._max_calls is None:
            self._calls = [0 for _ in graph.backends]

    def _own_bytes(self, graph: CostGraph, atom: int) -> list[int]:
        """By backend, what it holds for one atom alone."""
        if self._max_private is None:
            return [0 for _ in graph.backends]
        return [backend.held_for(graph.atoms[atom]) for backend in graph.backends]

    def opened(self, used: int, backend: int) -> int:
        """The count after opening a segment."""
        return used + self._calls[backend]

    def closed(self, used: int) -> int:
        """The count after closing the open segment."""
        return used

    def ran_detached(self, used: int, atom: int, backend: int) -> int:
        """The count after running an atom (problem index) in a segment of its own."""
        return self.ran(self.opened(used, backend), atom, backend)

    def signature(self, atoms: Sequence[int]) -> Hashable:
        """What is counted of atoms (problem indices); equal where paths count alike."""
        return tuple((tuple(self._bits[atom]), tuple(self._own[atom])) for atom in atoms)

    def ran(self, used: int, atom: int, backend: int) -> int:
        """The count after running an atom (problem index) in the open segment."""
        used += self._own[atom][backend] << _CALL_BITS
        for place in self._bits[atom]:
            used |= 1 << place + backend
        return used

    def allows(self, used: int) -> bool:
        """Whether a plan may have come to this."""
        if self._max_calls is not None and used & _CALLS > self._max_calls:
            return False
        copied, private = self._of_shared(used >> _FIELDS)
        private += used >> _CALL_BITS & _BYTES
        return (self._max_copied is None or copied <= self._max_copied) and (
            self._max_private is None or private <= self._max_private
        )

    def covers(self, used: int, other: int) -> bool:
        """Whether whatever is allowed after the other is allowed after this one."""
        if used & _CALLS > other & _CALLS:
            return False
        if used >> _CALL_BITS & _BYTES > other >> _CALL_BITS & _BYTES:
            return False
        return not (used >> _FIELDS) & ~(other >> _FIELDS)

    def _of_shared(self, bits: int) -> tuple[int, int]:
        """Bytes of shared constants that are held more than once, and all private ones."""
        copied = private = 0
        for size in self._sizes:
            users = [number for number in range(self._backends) if bits >> number & 1]
            copied += size * max(0, len(users) - 1)
            private += sum(int(self._shares[number] * size) for number in users)
            bits >>= self._backends
        return copied, private
