"""A report as plain text of at most 100 columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.report.data import (
    AdviceReport,
    AlternativeReport,
    MethodReport,
    PlanReport,
    RejectionReport,
    Report,
    SegmentReport,
    TensorReport,
)
from orchestrator.report.style import Style
from orchestrator.report.words import (
    KERNELS,
    WIDTH,
    against,
    bytes_text,
    certainty_text,
    listed,
    modules_text,
    ops_text,
    percent,
    plural,
    schemes_text,
    shortened,
    time_text,
    type_text,
    wrapped,
)

# More segments than these are a table only, unless details are asked for.
_DETAILED_SEGMENTS = 8
# And from here on those that do the same share a row.
_LISTED_SEGMENTS = 16
_ADVICE_LINES = 8
_SOURCE_LINES = 6
_TENSORS = 6
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
# Stands for the op in a reason.
_OP = "\0"


def render_text(report: Report, *, color: bool = False, details: bool | None = None) -> str:
    """Return the report, one section per method; the last line ends in a newline.

    color: mark headings, backends and gains with ANSI colours.
    details: whether each segment's ops and tensors are listed; None: where there are few.
    """
    style = Style(report.backends, color)
    lines: list[str] = []
    for method in report.methods:
        lines += [*_method(method, report.backends, style, details), ""]
    return "\n".join(lines[:-1]) + "\n"


def _method(
    method: MethodReport, backends: Sequence[str], style: Style, details: bool | None
) -> Iterator[str]:
    yield _headline(method, backends, style)
    if method.plan is not None:
        yield from _plan(method.plan, method, style)
    yield from _segment_table(method, style)
    few = len(method.segments) <= _DETAILED_SEGMENTS
    for number, segment in enumerate(method.segments):
        if few if details is None else details:
            yield ""
            yield from _segment(number, segment, style)
            yield from _sources(number, method)
    for op, kernel in method.missing_kernels.items():
        text = f"{op} needs the kernel {kernel}, which the ExecuTorch runtime installed here lacks"
        yield ""
        yield from wrapped(text, "MISSING ")
    for backend in backends:
        rejections = [item for item in method.rejections if item.backend == backend]
        if rejections:
            yield ""
            yield from _rejections(backend, rejections, style)
    if method.plan is not None and method.plan.advice:
        yield ""
        yield from _advice(method.plan.advice, style)


def _headline(method: MethodReport, backends: Sequence[str], style: Style) -> str:
    nodes = Counter[str]()
    for partition in method.partitions:
        nodes[partition.backend] += len(partition.nodes)
    calls = Counter(partition.backend for partition in method.partitions)
    parts = [
        f"{style.backend(backend)} {nodes[backend]} in {plural(calls[backend], 'call')}"
        for backend in backends
        if nodes[backend]
    ]
    kernels = sum(method.kernels.values())
    if kernels:
        parts.append(f"{style.kernels(KERNELS)} {kernels}")
    name = style.bold(method.name)
    return f"{name}: {plural(method.node_count, 'node')}: " + ", ".join(parts or ["none"])


def _plan(plan: PlanReport, method: MethodReport, style: Style) -> Iterator[str]:
    if plan.predicted_ns is not None:
        yield f"predicted {time_text(plan.predicted_ns)}{_certainty(plan)}"
    if plan.measured_ns is not None:
        off = ""
        if plan.predicted_ns is not None:
            off = f", {against(plan.measured_ns, plan.predicted_ns)} against predicted"
        how = f"; {method.profile}" if method.profile else ""
        yield from wrapped(f"{time_text(plan.measured_ns)}{off}{how}", "measured  ")
    if plan.private_bytes is not None:
        yield f"memory    {bytes_text(plan.private_bytes)} of delegates' own, beside the file"
    for note in plan.notes:
        yield from wrapped(note, "note: ")
    known = plan.predicted_ns is not None or plan.measured_ns is not None
    priced = any(
        other.predicted_ns is not None or other.measured_ns is not None
        for other in plan.alternatives
    )
    if known and priced:
        yield ""
        yield from _alternatives(plan, len(method.partitions), style)


def _certainty(plan: PlanReport) -> str:
    spread = f" +- {time_text(plan.spread_ns)}" if plan.spread_ns else ""
    if plan.gap is None:
        return f"{spread}, {plan.solver}"
    if plan.gap < 5e-5:
        return f"{spread}, {plan.solver}: no plan costs less by these prices"
    bound = f"the lower bound is {time_text(plan.lower_bound_ns)}"
    return f"{spread}, {plan.solver}: at most {100 * plan.gap:.1f} % above the best, {bound}"


def _alternatives(plan: PlanReport, calls: int, style: Style) -> Iterator[str]:
    rows = [
        AlternativeReport("chosen", "", calls, plan.predicted_ns, plan.measured_ns),
        *plan.alternatives,
    ]
    times = [
        (title, field)
        for title, field in (("predicted", "predicted_ns"), ("measured", "measured_ns"))
        if any(getattr(row, field) is not None for row in rows)
    ]
    yield style.bold(f"{'plan':34}{'calls':>7}" + (f"{'':10}".join(f"{t:>12}" for t, _ in times)))
    for row in rows:
        if row.problem:
            yield f"{shortened(row.name, 33):34}{'':9}{shortened(row.why_not, 57)}"
            continue
        cells = f"{shortened(row.name, 33):34}{row.partitions:7}"
        for _, field in times:
            value, base = getattr(row, field), getattr(rows[0], field)
            cells += f"{time_text(value):>12}"
            cells += f"{'' if row is rows[0] else against(value, base):>10}"
        yield cells.rstrip()


def _segment_table(method: MethodReport, style: Style) -> Iterator[str]:
    if not method.segments:
        return
    times = [field for field in ("predicted_ns", "measured_ns") if _total(method, field)]
    folds = _folds(method.segments)
    yield ""
    head = f"{'#':>3} {'runs on':9}{'nodes':>6}"
    head += "".join(f"{field.removesuffix('_ns'):>10}" for field in times)
    head += f"{'share':>8}" if times else ""
    yield style.bold(f"{head}{'in':>8}{'out':>8}{'weights':>9}  modules")
    for first, members in folds:
        total = {field: sum(getattr(each, field) or 0.0 for each in members) for field in times}
        row = f"{first:3} {style.padded(members[0].backend, 9)}"
        row += f"{sum(len(each.nodes) for each in members):6}"
        row += "".join(f"{time_text(total[field] or None):>10}" for field in times)
        if times:
            row += f"{percent(total[times[-1]] or None, _total(method, times[-1])):>8}"
        row += f"{bytes_text(sum(each.input_bytes for each in members)):>8}"
        row += f"{bytes_text(sum(each.output_bytes for each in members)):>8}"
        weights = sum(each.weight_bytes for each in members)
        row += f"{bytes_text(weights) if weights else '-':>9}  "
        row += f"{len(members)} x " if len(members) > 1 else ""
        room = WIDTH - len(row) + style.hidden(members[0].backend)
        yield (row + modules_text(_common_modules(members), room)).rstrip()


def _folds(
    segments: Sequence[SegmentReport],
) -> list[tuple[int, list[SegmentReport]]]:
    """Put segments that do the same on the same backend together, where there are many.

    Each with the number of its first member.
    """
    if len(segments) <= _LISTED_SEGMENTS:
        return [(number, [segment]) for number, segment in enumerate(segments)]
    folds: dict[object, tuple[int, list[SegmentReport]]] = {}
    for number, segment in enumerate(segments):
        key = (segment.backend, tuple(sorted(segment.ops.items())))
        folds.setdefault(key, (number, []))[1].append(segment)
    return list(folds.values())


def _common_modules(members: Sequence[SegmentReport]) -> Sequence[str]:
    """The modules of a segment; of several, with "*" for the numbers in which they differ."""
    if len(members) == 1:
        return members[0].modules
    return tuple(dict.fromkeys(_NUMBER.sub("*", path) for each in members for path in each.modules))


def _total(method: MethodReport, field: str) -> float:
    return sum(getattr(segment, field) or 0.0 for segment in method.segments)


def _segment(number: int, segment: SegmentReport, style: Style) -> Iterator[str]:
    weights = f", {bytes_text(segment.weight_bytes)} of weights" if segment.weight_bytes else ""
    what = "partition" if segment.is_delegate else "kernels"
    backend = f" on {style.backend(segment.backend)}" if segment.is_delegate else ""
    yield f"{number}: {what}{backend}, {plural(len(segment.nodes), 'node')}{weights}"
    yield from wrapped(ops_text(segment.ops), "  ops     ")
    if segment.schemes:
        yield from wrapped(schemes_text(segment.schemes), "  layers  ")
    yield from wrapped(_tensors(segment.inputs), "  in      ")
    yield from wrapped(_tensors(segment.outputs), "  out     ")
    if segment.conversions:
        yield from wrapped(f"layout of {listed(segment.conversions)}", "  changes ")
    if segment.predicted_ns is not None and segment.overhead_ns is not None:
        parts = [
            f"{time_text(segment.atoms_ns)} ops",
            f"{time_text(segment.overhead_ns)} call",
            f"{time_text(segment.boundary_ns)} boundary",
        ]
        yield from wrapped(listed(parts), "  time    ")


def _sources(number: int, method: MethodReport) -> Iterator[str]:
    """The lines of the user's code that a segment comes from, the first few."""
    atoms = [atom for atom in method.atoms if atom.segment == number and atom.source]
    lines = list(dict.fromkeys(atom.source for atom in atoms))
    if lines:
        more = [f"{len(lines) - _SOURCE_LINES} more"] if len(lines) > _SOURCE_LINES else []
        yield from wrapped(listed([*lines[:_SOURCE_LINES], *more]), "  source  ")


def _tensors(tensors: Iterable[TensorReport]) -> str:
    described = []
    for tensor in tensors:
        layout = " channels-last" if tensor.layout == "channels_last" else ""
        described.append(f"{tensor.name} {type_text(tensor)}{layout} {bytes_text(tensor.bytes)}")
    more = len(described) - _TENSORS
    if more > 1:
        described[_TENSORS:] = [f"{more} more: see --json"]
    return listed(described) or "nothing"


def _rejections(backend: str, rejections: Sequence[RejectionReport], style: Style) -> Iterator[str]:
    nodes = {rejection.node for rejection in rejections}
    yield f"{style.bold('not taken by')} {style.backend(backend)}: {plural(len(nodes), 'node')}"
    # Reasons that differ in the op's name only are one.
    by_reason: dict[tuple[str, str], Counter[str]] = {}
    for rejection in rejections:
        key = (rejection.reason.replace(rejection.op, _OP), rejection.remedy)
        by_reason.setdefault(key, Counter())[rejection.op] += 1
    ranked = sorted(by_reason.items(), key=lambda item: (-item[1].total(), item[0]))
    for (reason, remedy), ops in ranked:
        count = f"{ops.total()}x"
        named = _OP in reason and len(ops) == 1
        yield from wrapped(
            reason.replace(_OP, next(iter(ops)) if named else "these ops"), f"  {count:>5} "
        )
        if not named:
            yield from wrapped(ops_text(ops), " " * 10)
        if remedy:
            yield from wrapped(remedy, "       -> ")


def _advice(advice: Sequence[AdviceReport], style: Style) -> Iterator[str]:
    yield style.bold("what if") + " (change of the predicted time)"
    for item in advice[:_ADVICE_LINES]:
        change = f"{time_text(-item.gain_ns, signed=True):>10}"
        lines = wrapped(item.text + certainty_text(item), " " * 12)
        yield style.gain(change, item.gain_ns) + "  " + lines[0].lstrip()
        yield from lines[1:]
        if item.remedy:
            yield from wrapped(item.remedy, " " * 12 + "-> ")
    if len(advice) > _ADVICE_LINES:
        yield f"{'':12}and {len(advice) - _ADVICE_LINES} more: see --json"
