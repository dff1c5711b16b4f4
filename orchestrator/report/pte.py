"""Reading named data out of a .pte without loading or running the program.

Only the standard library and flatbuffers are needed, so a report shows at once. The layout is
that of `schema/program.fbs` and `schema/extended_header.h` in ExecuTorch, whose field numbers
FlatBuffers' rules keep stable.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from flatbuffers import number_types
from flatbuffers.table import Table

_IDENTIFIERS = (b"ET12", b"ET13")
_HEADER_MAGIC = b"eh00"
# A table's n-th field is looked up at this place in its virtual table.
_SEGMENTS, _NAMED_DATA = (4 + 2 * field for field in (4, 7))
_KEY, _SEGMENT_INDEX = (4 + 2 * field for field in (0, 1))
_OFFSET, _SIZE = (4 + 2 * field for field in (0, 1))


class PteError(ValueError):
    """A file is not an ExecuTorch program, or a damaged one."""


def read_named_data(path: Path, key: str) -> bytes | None:
    """Return what a program stores under a key, or None if it has no such key.

    Raises:
        PteError: the file is no ExecuTorch program, or is cut off.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise PteError(f"{path} is empty; expected an ExecuTorch program (.pte)")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _find(data, key)
            except PteError as error:
                raise PteError(f"{path}: {error}") from None
            except (struct.error, IndexError, TypeError, OverflowError) as error:
                raise PteError(f"{path} is damaged: an offset points outside of it") from error


def _find(data: mmap.mmap, key: str) -> bytes | None:
    if data[4:8] not in _IDENTIFIERS:
        raise PteError("not an ExecuTorch program (.pte): the file identifier is missing")
    if data[8:12] != _HEADER_MAGIC:
        return None  # Programs without a header have no segments, hence no named data.
    base = struct.unpack_from("<Q", data, 24)[0]
    program = Table(data, struct.unpack_from("<I", data, 0)[0])
    for entry in tables(program, _NAMED_DATA):
        name = entry.Offset(_KEY)
        if name and entry.String(entry.Pos + name) == key.encode():
            index = entry.GetSlot(_SEGMENT_INDEX, 0, number_types.Uint32Flags)
            return _segment(data, tables(program, _SEGMENTS), index, base)
    return None


def _segment(data: mmap.mmap, segments: list[Table], index: int, base: int) -> bytes:
    segment = segments[index]
    start = base + segment.GetSlot(_OFFSET, 0, number_types.Uint64Flags)
    size = segment.GetSlot(_SIZE, 0, number_types.Uint64Flags)
    if base == 0 or start + size > len(data):
        raise PteError(f"cut off: {start + size} bytes expected, {len(data)} found")
    return data[start : start + size]


def tables(table: Table, field: int) -> list[Table]:
    """Return the tables in a field that is a list of them.

    field: the place in the virtual table.

    Raises:
        PteError: the list cannot be as long as it claims.
    """
    offset = table.Offset(field)
    if not offset:
        return []
    start, count = table.Vector(offset), table.VectorLen(offset)
    if count > len(table.Bytes) // 4:
        raise PteError(f"damaged: a list claims {count} entries")
    return [Table(table.Bytes, table.Indirect(start + 4 * index)) for index in range(count)]
