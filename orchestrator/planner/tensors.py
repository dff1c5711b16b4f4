"""Where a tensor is while a plan grows atom by atom, and what moving it costs.

Where it is fits in a code of 9 bits:

* bits 0 and 1: the forms (layouts) it has inside the open segment, made or read or converted there;
* bit 2, FRESH: it will be in memory only after the open segment, which writes it for a detached one
  (see `floating`), or because it is made by one;
* the others: its state in memory. ABSENT: not there. PENDING: not there, no atom wants it any
  more, but the caller does. Else the number of a row of residuals: by layout, what it costs on top
  to have it in memory so. The choice of a layout is put off until a segment reads the tensor; then
  the residual is paid and the layout is fixed.

Code 0 stands for a tensor of the caller that nothing has touched, and for one that is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .elements import Layout, Transfer

SLOT_BITS = 9
FRESH = 4
SLOT_MASK = (1 << SLOT_BITS) - 1
UNITS_PER_NS = 64
ABSENT = 0
PENDING = 1
_NEVER = 1 << 200  # more than any sum of costs
_LAYOUTS = tuple(Layout)

# What happens to a tensor after the use in question.
KEEP = 0  # some atom still wants it
DROP = 1  # nobody does
DELIVER = 2  # no atom, but the caller does

#: What a move costs, and the code of the tensor then.
Move = tuple[int, int]


class TensorClass:
    """Tables for all tensors that have the same layouts, transfers and kinds of users.

    transfers, made, wanted: by backend; the latter two are masks of the forms in which atoms there
    can make and read the tensor. Costs are whole numbers, `unit` per 1/64 ns.
    """

    def __init__(
        self,
        layouts: tuple[Layout, ...],
        memory: tuple[Layout, ...],
        from_caller: bool,
        transfers: Sequence[Transfer],
        made: Sequence[int],
        wanted: Sequence[int],
        unit: int,
    ) -> None:
        def cost(ns: float) -> int:
            return whole_cost(ns, unit)

        self.form = forms_of(layouts)
        self._forms = range(len(layouts))
        self._allowed = [layouts.index(each) for each in memory]
        self._from_caller = from_caller
        self._read = [[[cost(t.read(m, f)) for f in layouts] for m in layouts] for t in transfers]
        self._write = [[[cost(t.write(f, m)) for m in layouts] for f in layouts] for t in transfers]
        self._convert = [cost(each.convert_ns) for each in transfers]
        self._wanted = wanted
        self._inside = [one | other for one, other in zip(made, wanted, strict=True)]
        untouched = tuple(0 if m in self._allowed else _NEVER for m in self._forms)
        self._rows: list[tuple[int, ...]] = [untouched, untouched]
        self._fixed = {
            m: self._row(tuple(0 if other == m else _NEVER for other in self._forms))
            for m in self._allowed
        }
        self._acquired: dict[tuple[int, int, int, int], tuple[Move, ...]] = {}
        self._closed: dict[tuple[int, int], Move] = {}
        self._lags: dict[tuple[int, int, int, int], int] = {}

    def _row(self, residuals: tuple[int, ...]) -> int:
        """The number of a row of residuals."""
        if residuals not in self._rows[2:]:
            self._rows.append(residuals)
        return self._rows.index(residuals, 2)

    def made(self, layout: int, fate: int) -> int:
        """The code of a tensor that an atom has just made in a layout."""
        code = 1 << self.form[layout]
        if fate == KEEP:
            return code
        return code | PENDING << 3 if fate == DELIVER else 0

    def acquire(self, backend: int, code: int, layout: int, fate: int) -> tuple[Move, ...]:
        """Ways for the open segment to have the tensor in a layout, none better than another."""
        key = (backend, code, layout, fate)
        if key not in self._acquired:
            self._acquired[key] = self._acquire(backend, code, self.form[layout], fate)
        return self._acquired[key]

    def _acquire(self, backend: int, code: int, form: int, fate: int) -> tuple[Move, ...]:
        inside, memory, fresh = code & 3, code >> 3, code & FRESH
        moves: list[tuple[int, int, int]] = []
        if inside >> form & 1:
            moves.append((0, inside, memory))
        else:
            if inside:
                moves.append((self._convert[backend], inside | 1 << form, memory))
            if (memory or not inside) and not fresh:
                moves += self._read_moves(backend, inside, memory, form)
        if fate == KEEP:
            return _best_moves([(c, self._normal(backend, s, m, fresh)) for c, s, m in moves])
        if fate == DELIVER:
            return _best_moves([(c, s | PENDING << 3 if not m else 0) for c, s, m in moves])
        return ((min(cost for cost, _, _ in moves), 0),) if moves else ()

    def _read_moves(
        self, backend: int, inside: int, memory: int, form: int
    ) -> list[tuple[int, int, int]]:
        moves = []
        for layout, fixed in self._fixed.items():
            residual = self._rows[memory][layout]
            if residual >= _NEVER:
                continue
            read = self._read[backend][layout]
            moves.append((residual + read[form], inside | 1 << form, fixed))
            if self._wanted[backend] == 3 and not inside:
                moves.append((residual + read[1 - form] + self._convert[backend], 3, fixed))
        return moves

    def _normal(self, backend: int, inside: int, memory: int, fresh: int = 0) -> int:
        """Give states that have the same future the same code."""
        if memory > PENDING and not fresh:
            row = self._rows[memory]
            for form in self._forms:
                if any(row[m] + self._read[backend][m][form] == 0 for m in self._allowed):
                    inside &= ~(1 << form)  # to have it read or not is the same
            if not inside and self._from_caller and row == self._rows[ABSENT]:
                return 0
        return inside | fresh | memory << 3

    def read_detached(
        self, backend: int, code: int, reader: int, layout: int, fate: int, late: bool
    ) -> tuple[Move, ...]:
        """Ways for a detached segment to read the tensor, while one on `backend` stays open.

        late: whether that segment runs after the open one, and so can read what is made in there
        (which is written for it now); else there is no way to.
        """
        inside, memory, fresh = code & 3, code >> 3, code & FRESH
        written = 0
        if fresh or (inside and not memory):
            if not late:
                return ()
            written, row = self.close(backend, code)
            memory, fresh = row >> 3, FRESH
        moves = []
        for cost, after in self._acquire(reader, memory << 3, self.form[layout], KEEP):
            fixed = after >> 3
            if not fixed:
                fixed = memory or next(iter(self._fixed.values()))
            kept = self._normal(backend, inside, fixed, fresh) if fate == KEEP else 0
            moves.append((written + cost, kept))
        return tuple(moves)

    def close(self, backend: int, code: int) -> Move:
        """Leave the tensor behind when the open segment closes."""
        key = (backend, code)
        if key not in self._closed:
            self._closed[key] = self._close(backend, code)
        return self._closed[key]

    def _close(self, backend: int, code: int) -> Move:
        inside, memory = code & 3, code >> 3
        if not inside:
            return (0, code & ~FRESH)
        if memory > PENDING:
            return (0, self._normal(backend, 0, memory))
        written = self._written(backend, inside)
        least = min(written)
        if memory == PENDING:
            return (least, 0)
        residuals = tuple(cost - least if cost < _NEVER else _NEVER for cost in written)
        return (least, self._row(residuals) << 3)

    def _written(self, backend: int, inside: int) -> list[int]:
        """By layout, the cost of writing the tensor so from what is inside."""
        forms = [form for form in self._forms if inside >> form & 1]
        return [
            min(self._write[backend][form][m] for form in forms) if m in self._allowed else _NEVER
            for m in self._forms
        ]

    def lag(self, backend: int, code: int, other: int, readers: int) -> int:
        """How much more the rest can cost at most from a code than from another one.

        In an open segment on the backend; `readers` bounds how many segments will read the tensor.
        To make up for it, one gets the forms that the other has inside, and pays for having the
        tensor in the layout in which the other has it, or reads it in another one from then on.
        """
        if code == other:
            return 0
        key = (backend, code, other, readers)
        if key not in self._lags:
            self._lags[key] = self._lag(backend, code, other, readers)
        return self._lags[key]

    def _lag(self, backend: int, code: int, other: int, readers: int) -> int:
        if PENDING in (code >> 3, other >> 3):
            return self.close(backend, code)[0] - self.close(backend, other)[0]
        moves = [(0, code)]
        for form in self._forms:
            if other >> form & 1 and not code >> form & 1:
                moves = [
                    (cost + more, after)
                    for cost, before in moves
                    for more, after in self._acquire(backend, before, form, KEEP)
                ]
        if not moves:
            return _NEVER
        theirs = self._in_memory(other)
        if theirs is not None:
            moves = [(cost + self._form_lag(backend, c, other), c) for cost, c in moves]
        mine = [(cost, self._in_memory(after), after & 3) for cost, after in moves]
        if theirs is None:
            # It is never written, or it is, in a layout and from forms that are not known yet.
            least = min(cost for cost, _, _ in mine)
            theirs = self._written(backend, self._inside[backend] | other & 3)
            mine = [(cost, theirs if row is None else row, s) for cost, row, s in mine]
        else:
            least = -_NEVER
        for layout in self._allowed:
            if theirs[layout] < _NEVER:
                lags = [
                    cost + self._memory_lag(backend, row, inside, layout, readers) - theirs[layout]
                    for cost, row, inside in mine
                ]
                least = max(least, min(lags))
        return least

    def _form_lag(self, backend: int, code: int, other: int) -> int:
        """What the open segment may pay more for a form if it cannot read it from memory."""
        if code >> 3 and not code & FRESH:
            return 0
        lag = 0
        for form in self._forms:
            if (self._wanted[backend] & ~code) >> form & 1:
                mine = self._acquire(backend, code, form, KEEP)
                theirs = self._acquire(backend, other, form, KEEP)
                if theirs:
                    lag += max(0, min(mine)[0] - min(theirs)[0]) if mine else _NEVER
        return lag

    def _memory_lag(
        self, backend: int, row: Sequence[int] | None, inside: int, layout: int, readers: int
    ) -> int:
        """What it costs at most to be read as if the tensor lay in memory in a layout."""
        if row is None:
            row = self._written(backend, inside)
        return min(
            row[m] + readers * len(self._forms) * self._mismatch(m, layout)
            for m in self._allowed
            if row[m] < _NEVER
        )

    def _in_memory(self, code: int) -> Sequence[int] | None:
        if code & 3 and not code >> 3:
            return None
        return self._rows[code >> 3]

    def _mismatch(self, layout: int, other: int) -> int:
        """What a reader loses at most by finding the tensor in a layout instead of another."""
        if layout == other:
            return 0
        pairs = [
            (table[layout][form], table[other][form])
            for table, wanted in zip(self._read, self._wanted, strict=True)
            for form in self._forms
            if wanted >> form & 1
        ]
        return max((mine - theirs for mine, theirs in pairs if mine > theirs), default=0)

    def least_write(self, backend: int, layout: int) -> int:
        """The least that writing the tensor to memory costs from what an atom has made."""
        row = self._write[backend][self.form[layout]]
        return min(row[m] for m in self._allowed)

    def least_read(self, backend: int) -> int:
        """The least that reading the tensor from memory costs a segment."""
        forms = [form for form in self._forms if self._wanted[backend] >> form & 1]
        row = [self._read[backend][m][form] for m in self._allowed for form in forms]
        return min(row, default=0)

    def least_crossing(self, maker: int, reader: int) -> int:
        """The least that writing the tensor on one backend and reading it on another costs."""
        made = [form for form in self._forms if self._inside[maker] >> form & 1]
        read = [form for form in self._forms if self._wanted[reader] >> form & 1]
        costs = [
            self._write[maker][one][m] + self._read[reader][m][other]
            for m in self._allowed
            for one in made
            for other in read
        ]
        return min(costs, default=0)

    def least_pass(self, maker: int, written: int, reader: int, layout: int) -> int:
        """The least that handing the tensor from one atom to another costs."""
        made, form = self.form[written], self.form[layout]
        if maker == reader and made == form:
            return 0
        costs = [self._write[maker][made][m] + self._read[reader][m][form] for m in self._allowed]
        if maker == reader:
            costs.append(self._convert[maker])
        return min(costs)

    def least_get(self, backend: int, code: int, reader: int, layout: int, joins: bool) -> int:
        """The least that an atom pays for the tensor, given its code and the open segment.

        joins: whether the atom may join the open segment.
        """
        form, inside = self.form[layout], code & 3
        if joins and inside >> form & 1:
            return 0
        row = self._in_memory(code)
        if row is None:
            row = self._written(backend, inside)
        costs = [row[m] + self._read[reader][m][form] for m in self._allowed]
        if joins and inside:
            costs.append(self._convert[backend])
        return min(costs)

    def worst_lag(self, backend: int, code: int, exits: ExitForms, readers: int) -> int:
        """The largest lag against any code that the tensor can have after a block."""
        others = []
        if exits.made is not None:
            others.append(exits.made)
        if exits.read is not None:
            others += [fixed << 3 | exits.read for fixed in self._fixed.values()]
        if exits.made is not None and exits.detached:
            others += [fixed << 3 | FRESH | exits.made for fixed in self._fixed.values()]
        return max((self.lag(backend, code, other, readers) for other in others), default=0)


class ExitForms(NamedTuple):
    """The forms (masks) that a tensor can have inside the segment that is open after a block.

    made: if it was made in there, None if it cannot have been. read: if it was read from memory,
    None if it cannot be in memory. detached: whether a detached segment may have read it.
    """

    made: int | None
    read: int | None
    detached: bool


def _best_moves(moves: Sequence[Move]) -> tuple[Move, ...]:
    """Drop moves that cost no less than another that leads to the same code or to more forms."""
    kept: list[Move] = []
    for cost, code in sorted(moves):
        if not any(code | other == other and code >> 3 == other >> 3 for _, other in kept):
            kept.append((cost, code))
    return tuple(kept)


def forms_of(layouts: tuple[Layout, ...]) -> tuple[int, ...]:
    """By layout that an atom works in, the form of a tensor that can have the given layouts."""
    return tuple(layouts.index(each) if each in layouts else 0 for each in _LAYOUTS)


def whole_cost(ns: float, unit: int) -> int:
    """A time as a whole number, `unit` per 1/64 ns."""
    return round(ns * UNITS_PER_NS) * unit
