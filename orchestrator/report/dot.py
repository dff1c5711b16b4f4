"""A report as a Graphviz drawing: one box per atom, one frame per segment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.report.data import AtomReport, MethodReport, Report
from orchestrator.report.words import KERNELS, bytes_text, time_text

# Fills light enough for black text; the first is the first backend's.
_FILLS = ("#bcd4f6", "#f9d9ae", "#d9c8f0", "#bfe8df")
_KERNEL_FILL = "#e3e3e3"


def render_dot(report: Report) -> str:
    """Return the source of a directed graph for `dot -Tsvg`."""
    lines = ["digraph report {", '  rankdir=TB; node [shape=box style="filled,rounded"];']
    lines.append('  graph [fontname="sans-serif"]; node [fontname="sans-serif"];')
    for number, method in enumerate(report.methods):
        lines += [f"  {line}" for line in _method(number, method, report.backends)]
    return "\n".join([*lines, "}"]) + "\n"


def _method(number: int, method: MethodReport, backends: Sequence[str]) -> Iterator[str]:
    names = {atom.id: f"m{number}a{index}" for index, atom in enumerate(method.atoms)}
    yield f"subgraph cluster_m{number} {{"
    yield f"  label={_quoted(method.name)};"
    for index, segment in enumerate(method.segments):
        inside = [atom for atom in method.atoms if atom.segment == index]
        yield f"  subgraph cluster_m{number}s{index} {{"
        what = segment.backend if segment.is_delegate else KERNELS
        yield f"    label={_quoted(f'{index}: {what} {_time(segment.predicted_ns)}'.strip())};"
        fill = _fill(segment.backend, backends)
        for atom in inside:
            yield f"    {names[atom.id]} [label={_quoted(_label(atom))} fillcolor={_quoted(fill)}];"
        yield "  }"
    yield from (f"  {line}" for line in _edges(number, method, names))
    yield "}"


def _edges(number: int, method: MethodReport, names: dict[str, str]) -> Iterator[str]:
    for index, edge in enumerate(method.edges):
        source = names.get(edge.producer)
        if source is None:
            source = f"m{number}in{index}"
            yield f"{source} [label={_quoted(edge.tensor)} shape=ellipse fillcolor=white];"
        size = f" [label={_quoted(bytes_text(edge.bytes))}]" if edge.bytes else ""
        for consumer in edge.consumers:
            yield f"{source} -> {names[consumer]}{size};"
        if edge.is_output:
            result = f"m{number}out{index}"
            yield f"{result} [label={_quoted(edge.tensor)} shape=ellipse fillcolor=white];"
            yield f"{source} -> {result}{size};"


def _label(atom: AtomReport) -> str:
    ops = " + ".join(op.removeprefix("aten.").removesuffix(".default") for op in atom.ops)
    return "\n".join(text for text in (ops, atom.module, _time(atom.predicted_ns)) if text)


def _time(ns: float | None) -> str:
    return "" if ns is None else time_text(ns)


def _fill(backend: str, backends: Sequence[str]) -> str:
    if backend not in backends:
        return _KERNEL_FILL
    return _FILLS[list(backends).index(backend) % len(_FILLS)]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
