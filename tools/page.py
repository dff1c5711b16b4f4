"""Puts tables that commands make into docs/coverage.md."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "coverage.md"


def write_table(name: str, text: str) -> None:
    """Replaces what stands between the two marks that bear a table's name."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, rest = PAGE.read_text().split(start)
    PAGE.write_text(f"{before}{start}{text}\n{end}{rest.split(end)[1]}")
