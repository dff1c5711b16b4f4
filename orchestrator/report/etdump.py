"""Reading the times out of a profile in ExecuTorch's ETDump format.

Only flatbuffers is needed. The layout is that of `devtools/etdump/etdump_schema_flatcc.fbs` in
ExecuTorch, whose field numbers FlatBuffers' rules keep stable.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from flatbuffers import number_types
from flatbuffers.table import Table

from orchestrator.report.data import ReportError
from orchestrator.report.pte import tables

_IDENTIFIER = b"ED00"
# A table's n-th field is looked up at this place in its virtual table.
_RUN_DATA = 4 + 2 * 1
_RUN_NAME, _EVENTS = (4 + 2 * field for field in (0, 3))
_PROFILE_EVENT = 4 + 2 * 0
_NAME, _INSTRUCTION, _DELEGATE_NAME, _START, _END = (4 + 2 * field for field in (0, 2, 4, 6, 7))


@dataclass(frozen=True)
class Event:
    """Something that took time.

    name: what the runtime calls it, such as "DELEGATE_CALL"; "" for an event of a delegate.
    delegate_name: what the delegate calls it; "" for an event of the runtime.
    instruction: number of the program's instruction; what is not about one has any.
    """

    name: str
    delegate_name: str
    instruction: int
    duration_ns: int


def read_runs(data: bytes) -> list[list[Event]]:
    """Return the events of every run of a method, in the order in which they ended.

    Raises:
        ReportError: no ETDump, or a damaged one.
    """
    if data[8:12] == _IDENTIFIER:
        data = data[4:]  # the runtime writes the size first
    if data[4:8] != _IDENTIFIER:
        raise ReportError("not a profile: the identifier of ExecuTorch's ETDump is missing")
    try:
        dump = Table(data, struct.unpack_from("<I", data, 0)[0])
        runs = [(_text(run, _RUN_NAME), _events(run)) for run in tables(dump, _RUN_DATA)]
    except (struct.error, IndexError, TypeError, ValueError, OverflowError) as error:
        raise ReportError(f"the profile is damaged: {error}") from error
    return [events for name, events in runs if name == "Execute"]


def _events(run: Table) -> list[Event]:
    events = []
    for event in tables(run, _EVENTS):
        offset = event.Offset(_PROFILE_EVENT)
        if offset:
            profiled = Table(event.Bytes, event.Indirect(event.Pos + offset))
            start, end = (
                profiled.GetSlot(field, 0, number_types.Uint64Flags) for field in (_START, _END)
            )
            events.append(
                Event(
                    _text(profiled, _NAME),
                    _text(profiled, _DELEGATE_NAME),
                    profiled.GetSlot(_INSTRUCTION, -1, number_types.Int32Flags),
                    max(0, end - start),
                )
            )
    return events


def _text(table: Table, field: int) -> str:
    offset = table.Offset(field)
    return table.String(table.Pos + offset).decode("utf-8", "replace") if offset else ""
