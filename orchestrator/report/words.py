"""Numbers and lists as text; shared by the renderers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.report.data import AdviceReport, TensorReport

WIDTH = 100
_NO_BREAK = "\N{NO-BREAK SPACE}"

_NAMES = {"": "the whole model", ".": "top level"}
KERNELS = "ExecuTorch's kernels"


def plural(count: int, noun: str) -> str:
    """Return "1 node" or "2 nodes"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def bytes_text(count: int) -> str:
    """Return a size in decimal units, three digits."""
    if count < 1000:
        return f"{count} B"
    for unit, size in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if count < 999.5 * size or unit == "GB":
            break
    return f"{count / size:.3g} {unit}"


def time_text(ns: float | None, *, signed: bool = False) -> str:
    """Return a time in the unit that suits it, three digits; "-" for None."""
    if ns is None:
        return "-"
    sign = "-" if ns < 0 else "+" if signed else ""
    size = abs(ns)
    for unit, scale in (("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)):
        if size < 999.5 * scale or unit == "s":
            break
    value = size / scale
    digits = str(round(value)) if scale == 1 or value >= 999.5 else f"{value:#.3g}".rstrip(".")
    return f"{sign}{digits} {unit}"


def certainty_text(advice: AdviceReport) -> str:
    """Return what to know about a predicted gain, in brackets; "" if there is nothing."""
    if advice.assumed:
        return " (supposed price)"
    return " (within the spread of the costs)" if advice.tie else ""


def percent(part: float | None, total: float | None) -> str:
    """Return a share as "12.3 %"; "-" where there is none."""
    return f"{100 * part / total:.1f} %" if part is not None and total else "-"


def against(value: float | None, base: float | None) -> str:
    """Return by how much a value is above another, as "+2.6 %" or "51.5 x"; "" if not known."""
    if value is None or not base:
        return ""
    if value > 3 * base:
        return f"{value / base:.3g} x"
    return f"{100 * (value - base) / base:+.1f} %"


def ops_text(ops: Mapping[str, int]) -> str:
    """Return "52 aten.convolution.default, 35 aten.hardtanh.default", the most frequent first."""
    ranked = sorted(ops.items(), key=lambda item: (-item[1], item[0]))
    return listed(f"{count} {op}" for op, count in ranked)


def schemes_text(schemes: Mapping[str, int]) -> str:
    """Return "4 of int8 activations (dynamic), int4 weights in groups of 32; 1 of int8 weights"."""
    return "; ".join(f"{count} of {scheme}" for scheme, count in schemes.items())


def type_text(tensor: TensorReport) -> str:
    """Return "float32[1,3,224,224]"."""
    return f"{tensor.dtype}[{','.join(map(str, tensor.shape))}]"


def listed(items: Iterable[str]) -> str:
    """Join items so that lines break between them only."""
    return ", ".join(item.replace(" ", _NO_BREAK) for item in items)


def wrapped(text: str, label: str, width: int = WIDTH) -> list[str]:
    """Break a text into lines; the label stands before the first, as many blanks before others."""
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_on_hyphens=False,
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]


def shortened(text: str, width: int) -> str:
    """Cut a text that is too long, in the middle, where paths say least."""
    if len(text) <= width:
        return text
    left = (width - 2) // 2
    return f"{text[:left]}..{text[len(text) - (width - 2 - left) :]}"


def fitted(names: Sequence[str], width: int) -> str:
    """Join as many names as fit, and say how many do not: "features.0, head, +3"."""
    for count in range(len(names), 0, -1):
        more = f", +{len(names) - count}" if count < len(names) else ""
        text = ", ".join(names[:count]) + more
        if len(text) <= width:
            return text
        if count == 1:
            return shortened(names[0], width - len(more)) + more
    return ""


def modules_text(modules: Iterable[str], width: int | None = None) -> str:
    """Return module paths as one text; neighbours that differ in a last number are a range.

    width: that it is to fit in; None: all are named.
    """
    runs: list[list[str]] = []
    for path in modules:
        if runs and _follows(runs[-1][-1], path):
            runs[-1].append(path)
        else:
            runs.append([path])
    names = [
        _NAMES.get(run[0], run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs
    ]
    together = _siblings(names)
    return ", ".join(together) if width is None else fitted(together, width)


def _siblings(names: Iterable[str]) -> list[str]:
    """Put neighbours in one module together: "a.b.{c, d}"."""
    groups: list[tuple[str, list[str]]] = []
    for name in names:
        parent, dot, last = name.rpartition(".")
        mergeable = bool(dot) and " " not in name
        if mergeable and groups and groups[-1][0] == parent:
            groups[-1][1].append(last)
        else:
            groups.append((parent if mergeable else "", [last if mergeable else name]))
    return [
        ("" if not parent else f"{parent}.")
        + (last[0] if len(last) == 1 else "{" + ", ".join(last) + "}")
        for parent, last in groups
    ]


def _follows(before: str, after: str) -> bool:
    first, _, one = before.rpartition(".")
    second, _, two = after.rpartition(".")
    return first == second and one.isdigit() and two.isdigit() and int(two) == int(one) + 1
