"""The priced graph that the planner solves: numbers and ids, no torch, no backend.

Atoms are indivisible units of work, tensors flow between them, backends run them. What a plan costs
is defined here and summed up in `pricing`:

* every atom costs what its backend asks for it in the layouts it computes in (`Atom.costs`);
* every delegate call costs its backend's `call_overhead_ns`;
* a tensor that some other segment (or the caller) needs is written to memory once, in one layout
  (`Transfer.write_ns`), and read once by each segment that uses it, however many atoms in there do
  (`Transfer.read_ns`); inside a segment a tensor is converted at most once (`Transfer.convert_ns`).

A backend that is no delegate (ExecuTorch's own kernels) is priced in the same way, but pays no call
overhead: its atoms run one by one between the delegate calls, and with free transfers it makes no
difference how they are grouped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .elements import (
    FREE_TRANSFER,
    INFEASIBLE,
    UNKNOWN,
    Atom,
    AtomCost,
    Backend,
    Constant,
    Cost,
    Flow,
    Layout,
    NoPrice,
    Price,
    Tensor,
    Transfer,
)
from .errors import InvalidGraphError
from .topology import find_cycle, topological_order


@dataclass(frozen=True)
class Option:
    """One way to run one atom. `price` is None where the cost is unknown."""

    backend: int
    flow: Flow
    price: Price | None


class CostGraph:
    """A validated cost graph. Atoms and tensors are also known by their index in these tuples.

    backends: in the order of preference that the greedy baseline follows.
    tensors: a dependency without data is a tensor of 0 bytes with no transfers.

    Raises InvalidGraphError naming the atom, tensor or backend at fault: duplicate or unknown ids,
    negative, infinite or NaN numbers, cycles. An atom that nothing can run is no error here but
    where a plan is asked for.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        atoms: Iterable[Atom],
        tensors: Iterable[Tensor] = (),
        constants: Iterable[Constant] = (),
    ) -> None:
        self.backends = tuple(backends)
        self.atoms = tuple(atoms)
        self.tensors = tuple(tensors)
        self.constants = tuple(constants)
        self.backend_index = _index("backend", [backend.name for backend in self.backends])
        self.atom_index = _index("atom", [atom.id for atom in self.atoms])
        self.tensor_index = _index("tensor", [tensor.id for tensor in self.tensors])
        _index("constant", [constant.id for constant in self.constants])
        self._check_numbers()
        self._connect()
        self.order = self._topological_order()
        self.options = tuple(self._options_of(index) for index in range(len(self.atoms)))

    def _connect(self) -> None:
        """Fill inputs and outputs (tensors by atom), producer and consumers (atoms by tensor), ...

        ... preds and succs (atoms by atom); indices all.
        """
        count = len(self.atoms)
        inputs: list[list[int]] = [[] for _ in range(count)]
        outputs: list[list[int]] = [[] for _ in range(count)]
        preds: list[set[int]] = [set() for _ in range(count)]
        succs: list[set[int]] = [set() for _ in range(count)]
        self.producer: list[int | None] = []
        self.consumers: list[tuple[int, ...]] = []
        for index, tensor in enumerate(self.tensors):
            what = f"tensor {tensor.id!r}"
            source = None if tensor.producer is None else self._atom(tensor.producer, what)
            users = tuple(dict.fromkeys(self._atom(name, what) for name in tensor.consumers))
            self.producer.append(source)
            self.consumers.append(users)
            for user in users:
                inputs[user].append(index)
            if source is None:
                continue
            outputs[source].append(index)
            succs[source].update(users)
            for user in users:
                preds[user].add(source)
        for constant in self.constants:
            for name in constant.atoms:
                self._atom(name, f"constant {constant.id!r}")
        self.inputs = tuple(tuple(row) for row in inputs)
        self.outputs = tuple(tuple(row) for row in outputs)
        self.preds = tuple(tuple(sorted(row)) for row in preds)
        self.succs = tuple(tuple(sorted(row)) for row in succs)

    def _topological_order(self) -> tuple[int, ...]:
        order = topological_order(self.succs)
        if len(order) != len(self.atoms):
            cycle = " -> ".join(repr(self.atoms[index].id) for index in find_cycle(self.succs))
            raise InvalidGraphError(
                f"the atoms form a cycle: {cycle}. Contract nodes only where the graph of atoms "
                "stays acyclic."
            )
        return tuple(order)

    def _atom(self, name: str, where: str) -> int:
        if name not in self.atom_index:
            raise InvalidGraphError(f"{where} names the atom {name!r}, which is not in the graph.")
        return self.atom_index[name]

    def _check_numbers(self) -> None:
        for backend in self.backends:
            _check_ns(backend.call_overhead_ns, f"the call overhead of backend {backend.name!r}")
            if backend.call_overhead_ns and not backend.is_delegate:
                raise InvalidGraphError(
                    f"backend {backend.name!r} makes no calls but has a call overhead of "
                    f"{backend.call_overhead_ns} ns; add it to the costs of its atoms instead."
                )
            if not backend.layouts:
                raise InvalidGraphError(
                    f"backend {backend.name!r} lists no layout; give one or more."
                )
        for tensor in self.tensors:
            self._check_tensor(tensor)
        for constant in self.constants:
            if constant.nbytes < 0:
                raise InvalidGraphError(
                    f"constant {constant.id!r} has {constant.nbytes} bytes; expected 0 or more."
                )

    def _check_tensor(self, tensor: Tensor) -> None:
        what = f"tensor {tensor.id!r}"
        if tensor.nbytes < 0:
            raise InvalidGraphError(f"{what} has {tensor.nbytes} bytes; expected 0 or more.")
        if not tensor.layouts or not tensor.allowed_in_memory():
            raise InvalidGraphError(f"{what} lists no layout; give one or more.")
        for layout in tensor.allowed_in_memory():
            if layout not in tensor.layouts:
                raise InvalidGraphError(
                    f"{what} allows {layout.value} in memory, which is not among its layouts."
                )
        for name, transfer in tensor.transfers.items():
            if name not in self.backend_index:
                raise InvalidGraphError(f"{what} has a transfer for {name!r}{self._not_known()}")
            for part, value in vars(transfer).items():
                if value is not None:
                    _check_ns(value, f"{part} of {what} on backend {name!r}")

    def _not_known(self) -> str:
        return f", which is not one of the backends {[backend.name for backend in self.backends]}."

    def _options_of(self, index: int) -> tuple[Option, ...]:
        """The ways to run an atom, without those that differ from a cheaper one in name only."""
        atom = self.atoms[index]
        unknown_names = [name for name in atom.costs if name not in self.backend_index]
        if unknown_names:
            raise InvalidGraphError(
                f"atom {atom.id!r} has a cost for {unknown_names[0]!r}{self._not_known()}"
            )
        best: dict[tuple[int, tuple[Layout, ...]], Option] = {}
        for number, backend in enumerate(self.backends):
            for flow, cost in _by_flow(atom.costs.get(backend.name, INFEASIBLE), backend):
                price = _checked_price(cost, f"atom {atom.id!r} on backend {backend.name!r}")
                if price is INFEASIBLE:
                    continue
                option = Option(number, flow, None if isinstance(price, NoPrice) else price)
                key = (number, self._forms(index, flow))
                if key not in best or _cheaper(option, best[key]):
                    best[key] = option
        return tuple(best.values())

    def _forms(self, index: int, flow: Flow) -> tuple[Layout, ...]:
        read = [self.tensors[tensor].form(flow.reads) for tensor in self.inputs[index]]
        written = [self.tensors[tensor].form(flow.writes) for tensor in self.outputs[index]]
        return (*read, *written)

    def transfer(self, tensor: int, backend: int) -> Transfer:
        """What moving a tensor in and out of a segment costs; both arguments are indices."""
        return self.tensors[tensor].transfers.get(self.backends[backend].name, FREE_TRANSFER)

    def capable(self, atom: str, backend: str) -> bool:
        """Whether the backend can run the atom, at whatever cost, also an unknown one."""
        number = self.backend_index[backend]
        return any(option.backend == number for option in self.options[self.atom_index[atom]])

    def with_costs(self, changes: Mapping[str, Mapping[str, AtomCost]]) -> CostGraph:
        """A copy in which some atoms (by id) cost something else on some backends (by name)."""
        for name in changes:
            self._atom(name, "the change of costs")
        atoms = [
            replace(atom, costs={**atom.costs, **changes.get(atom.id, {})}) for atom in self.atoms
        ]
        return CostGraph(self.backends, atoms, self.tensors, self.constants)

    def without_spreads(self) -> CostGraph:
        """A copy in which no atom's cost has a spread, so that only equal costs are ties."""
        changes: dict[str, dict[str, AtomCost]] = {}
        for atom, options in zip(self.atoms, self.options, strict=True):
            by_flow: dict[str, dict[Flow, Cost]] = {}
            for option in options:
                cost = UNKNOWN if option.price is None else Price(option.price.ns)
                by_flow.setdefault(self.backends[option.backend].name, {})[option.flow] = cost
            changes[atom.id] = dict(by_flow)
        return self.with_costs(changes)


def _index(kind: str, names: Sequence[str]) -> dict[str, int]:
    index = {name: position for position, name in enumerate(names)}
    if len(index) != len(names):
        twice = next(name for position, name in enumerate(names) if index[name] != position)
        raise InvalidGraphError(f"two {kind}s are called {twice!r}; ids must be unique.")
    return index


def _by_flow(cost: AtomCost, backend: Backend) -> list[tuple[Flow, Cost]]:
    if not isinstance(cost, Mapping):
        return [(Flow(layout, layout), cost) for layout in backend.layouts]
    flows = {key if isinstance(key, Flow) else Flow(key, key): each for key, each in cost.items()}
    return list(flows.items())


def _checked_price(cost: Cost, where: str) -> Price | NoPrice:
    if isinstance(cost, NoPrice):
        return cost
    price = cost if isinstance(cost, Price) else Price(float(cost))
    _check_ns(price.ns, f"the cost of {where}")
    _check_ns(price.spread_ns, f"the spread of the cost of {where}")
    return price


def _check_ns(value: float, what: str) -> None:
    if not math.isfinite(value) or value < 0:
        raise InvalidGraphError(
            f"{what} is {value} ns; expected a finite number, 0 or more. Use UNKNOWN for a cost "
            "that was not measured and INFEASIBLE for what cannot run."
        )


def _cheaper(left: Option, right: Option) -> bool:
    """Whether the left one is known to cost less."""
    if left.price is None or right.price is None:
        return left.price is not None
    return left.price.ns < right.price.ns
