"""Carrying a report inside a .pte, as named data.

Named data lies in a segment of its own that runtimes read only when asked for the key: it costs
no time and no memory at run time, and every ExecuTorch runtime ignores it.
It is compressed and leaves out what has its default, as programs for devices are small: those of a
few layers have some kilobytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.options import OptionError
from orchestrator.report.data import Report, ReportError
from orchestrator.report.json import to_json
from orchestrator.report.pte import read_named_data

if TYPE_CHECKING:
    from executorch.exir import EdgeProgramManager

KEY = "orchestrator.report"
# Far more than the report of any model that fits in memory; a bound for damaged files.
_MAX_BYTES = 1 << 28


@cache
def vocabulary() -> bytes:
    """Return what nearly every report says, which compression refers back to (RFC 1950, FDICT).

    It is part of the format: with another, files of before cannot be read, so that a change needs
    another key. The more common a text, the nearer to the end.
    """
    return (resources.files("orchestrator.report") / "vocabulary.txt").read_bytes()


def embed_report(
    edge: EdgeProgramManager, report: Report, others: Mapping[str, bytes] | None = None
) -> None:
    """Add a report to a program that is about to become a .pte by `edge.to_executorch()`.

    others: what else the program is to carry, by key; `read_named_data` reads it back.

    Raises:
        OptionError: something else has the report's key.
    """
    if KEY in (others or {}):
        raise OptionError(f"named_data has the key {KEY!r}, which is the report's; take another")
    packer = zlib.compressobj(zlib.Z_BEST_COMPRESSION, zdict=vocabulary())
    data = packer.compress(to_json(report, brief=True).encode()) + packer.flush()
    # The manager has no public way to add named data of one's own.
    for key, each in {KEY: data, **(others or {})}.items():
        edge._named_data_store.add_named_data(key, each)


def read_report(path: Path) -> Report:
    """Return the report inside a .pte.

    Raises:
        PteError: not an ExecuTorch program, or a damaged one.
        ReportError: a program without a report, or with one that this version cannot read.
        OSError: the file cannot be read.
    """
    data = read_named_data(path, KEY)
    if data is None:
        raise ReportError(f"{path} holds no report; it was not made by orchestrator.lower()")
    unpacker = zlib.decompressobj(zdict=vocabulary())
    try:
        text = unpacker.decompress(data, _MAX_BYTES)
    except zlib.error as error:
        raise ReportError(f"the report in {path} is damaged: {error}") from error
    if not unpacker.eof:
        raise ReportError(f"the report in {path} is damaged: it is cut off or too large")
    return Report.from_json(text)
