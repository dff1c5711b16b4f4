"""What a cost graph is made of: backends, atoms, tensors and their prices, all in nanoseconds."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Layout(enum.Enum):
    """How a tensor lies in memory: the dim orders (0,1,2,3) and (0,2,3,1)."""

    CONTIGUOUS = "contiguous"
    CHANNELS_LAST = "channels_last"

    __hash__ = object.__hash__  # Enum's own is Python code; there is one object of each


class NoPrice(enum.Enum):
    """Why there is no number: not measured is not the same as impossible, nor as expensive."""

    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


INFEASIBLE = NoPrice.INFEASIBLE
UNKNOWN = NoPrice.UNKNOWN


@dataclass(frozen=True)
class Price:
    """A time: the median and the spread (half the width) of repeated measurements.

    source: what the time was found by. Prices of one source err alike, those without one and those
        of different sources independently.
    """

    ns: float
    spread_ns: float = 0.0
    source: str = ""

    def times(self, factor: float) -> Price:
        """Scale the time and its spread."""
        return Price(factor * self.ns, factor * self.spread_ns, self.source)


@dataclass(frozen=True)
class Flow:
    """The layouts in which an atom wants its inputs and gives its outputs.

    For a tensor that has only one layout (`Tensor.layouts`) it is that one.
    """

    reads: Layout = Layout.CONTIGUOUS
    writes: Layout = Layout.CONTIGUOUS


Cost = float | Price | NoPrice
# One cost for every layout that the backend computes in, or one per layout (the same for inputs and
# outputs) or per flow; what is left out is infeasible.
AtomCost = Cost | Mapping[Layout, Cost] | Mapping[Flow, Cost]


@dataclass(frozen=True)
class Backend:
    """A choice for every atom.

    is_delegate: False for kernels that the program runs op by op, with no delegate call; they
        pay no call overhead. layouts: those that it computes in. private_per_byte,
        private_per_state_byte: bytes of memory of its own that it holds per byte of weights, and of
        mutable state.
    """

    name: str
    call_overhead_ns: float = 0.0
    is_delegate: bool = True
    layouts: tuple[Layout, ...] = (Layout.CONTIGUOUS,)
    private_per_byte: float = 0.0
    private_per_state_byte: float = 0.0

    def held_for(self, atom: Atom) -> int:
        """Return what it holds for an atom, in bytes, but for weights that other atoms use too."""
        weights = self.private_per_byte * atom.weight_bytes.get(self.name, 0)
        return int(weights + self.private_per_state_byte * atom.state_bytes)


@dataclass(frozen=True)
class Transfer:
    """What it costs one backend to move one tensor between memory and a segment, in ns.

    `*_converting_ns` applies where the layout in memory differs from the one inside; None means the
    plain time plus `convert_ns`, which is the price of changing the layout within a segment.
    """

    read_ns: float = 0.0
    write_ns: float = 0.0
    convert_ns: float = 0.0
    read_converting_ns: float | None = None
    write_converting_ns: float | None = None

    def read(self, memory: Layout, inside: Layout) -> float:
        """Time to bring the tensor from memory into a segment."""
        if memory is inside:
            return min(self.read_ns, self._read_converting() + self.convert_ns)
        return min(self._read_converting(), self.read_ns + self.convert_ns)

    def write(self, inside: Layout, memory: Layout) -> float:
        """Time to bring the tensor from a segment into memory."""
        if memory is inside:
            return min(self.write_ns, self._write_converting() + self.convert_ns)
        return min(self._write_converting(), self.write_ns + self.convert_ns)

    def _read_converting(self) -> float:
        if self.read_converting_ns is None:
            return self.read_ns + self.convert_ns
        return self.read_converting_ns

    def _write_converting(self) -> float:
        if self.write_converting_ns is None:
            return self.write_ns + self.convert_ns
        return self.write_converting_ns


FREE_TRANSFER = Transfer()


@dataclass(frozen=True)
class Atom:
    """An indivisible unit of work.

    costs: by backend name; a backend that is left out cannot run the atom (as with INFEASIBLE).
    trivial: it only changes how a tensor is seen (view, squeeze), so that a segment of nothing
        else is not worth a call.
    weight_bytes: by backend name, of the weights that it would hold and that no other atom uses.
    state_bytes: of the mutable state that it writes, whatever runs it.
    """

    id: str
    costs: Mapping[str, AtomCost]
    trivial: bool = False
    weight_bytes: Mapping[str, int] = field(default_factory=dict)
    state_bytes: int = 0


@dataclass(frozen=True)
class Tensor:
    """A value that flows from one atom (None: the caller) to others.

    layouts: those it can have inside segments (anything but a 4-d tensor has one).
    memory_layouts: those allowed between segments; None means all of `layouts`, but only
        contiguous (or else the first) for what the caller gives or gets.
    transfers: by backend name; a backend that is left out moves it for nothing.
    """

    id: str
    producer: str | None
    consumers: tuple[str, ...] = ()
    nbytes: int = 0
    is_output: bool = False
    layouts: tuple[Layout, ...] = (Layout.CONTIGUOUS,)
    memory_layouts: tuple[Layout, ...] | None = None
    transfers: Mapping[str, Transfer] = field(default_factory=dict)

    def allowed_in_memory(self) -> tuple[Layout, ...]:
        """Layouts that it may have between segments."""
        if self.memory_layouts is not None:
            return self.memory_layouts
        if self.producer is None or self.is_output:
            fixed = Layout.CONTIGUOUS if Layout.CONTIGUOUS in self.layouts else self.layouts[0]
            return (fixed,)
        return self.layouts

    def form(self, wanted: Layout) -> Layout:
        """The layout it has inside a segment for an atom that works in `wanted`."""
        return wanted if wanted in self.layouts else self.layouts[0]


@dataclass(frozen=True)
class Constant:
    """A weight that several atoms use; every further backend that uses it holds a copy."""

    id: str
    nbytes: int
    atoms: tuple[str, ...]
