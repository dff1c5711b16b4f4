"""A report as plain text of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from orchestrator.report.data import (
    MethodReport,
    PartitionReport,
    RejectionReport,
    Report,
    TensorReport,
)

WIDTH = 100
_NO_BREAK = "\N{NO-BREAK SPACE}"
_KERNELS = "ExecuTorch's kernels"


def render_text(report: Report) -> str:
    """Return the report, one section per method; the last line ends in a newline."""
    lines: list[str] = []
    for method in report.methods:
        lines += [*_method(method, report.backends), ""]
    return "\n".join(lines[:-1]) + "\n"


def _method(method: MethodReport, backends: Sequence[str]) -> Iterator[str]:
    yield _headline(method, backends)
    for number, partition in enumerate(method.partitions):
        yield ""
        yield from _partition(number, partition)
    if method.kernels:
        yield ""
        yield f"{_KERNELS}: {_plural(sum(method.kernels.values()), 'node')}"
        yield from _wrapped(_ops(method.kernels), "  ops     ")
    for op, kernel in method.missing_kernels.items():
        yield from _wrapped(
            f"{op} needs the kernel {kernel}, which the ExecuTorch runtime installed here lacks",
            "  MISSING ",
        )
    for backend in backends:
        rejections = [item for item in method.rejections if item.backend == backend]
        if rejections:
            yield ""
            yield from _rejections(backend, rejections)


def _headline(method: MethodReport, backends: Sequence[str]) -> str:
    nodes = Counter[str]()
    for partition in method.partitions:
        nodes[partition.backend] += len(partition.nodes)
    calls = Counter(partition.backend for partition in method.partitions)
    parts = [
        f"{backend} {nodes[backend]} in {_plural(calls[backend], 'call')}"
        for backend in backends
        if nodes[backend]
    ]
    kernels = sum(method.kernels.values())
    if kernels:
        parts.append(f"{_KERNELS} {kernels}")
    return f"{method.name}: {_plural(method.node_count, 'node')}: " + ", ".join(parts or ["none"])


def _partition(number: int, partition: PartitionReport) -> Iterator[str]:
    weights = f", {_bytes(partition.weight_bytes)} of weights" if partition.weight_bytes else ""
    nodes = _plural(len(partition.nodes), "node")
    yield f"partition {number}: {partition.backend}, {nodes}{weights}"
    yield from _wrapped(_ops(partition.ops), "  ops     ")
    yield from _wrapped(_tensors(partition.inputs), "  in      ")
    yield from _wrapped(_tensors(partition.outputs), "  out     ")


def _rejections(backend: str, rejections: Sequence[RejectionReport]) -> Iterator[str]:
    nodes = {rejection.node for rejection in rejections}
    yield f"not taken by {backend}: {_plural(len(nodes), 'node')}"
    by_reason: dict[str, Counter[str]] = {}
    for rejection in rejections:
        by_reason.setdefault(rejection.reason, Counter())[rejection.op] += 1
    for reason, ops in sorted(by_reason.items(), key=lambda item: (-item[1].total(), item[0])):
        count = f"{ops.total()}x"
        yield from _wrapped(reason, f"  {count:>5} ")
        if not (len(ops) == 1 and next(iter(ops)) in reason):
            yield from _wrapped(_ops(ops), " " * 10)


def _tensors(tensors: Iterable[TensorReport]) -> str:
    described = [
        f"{tensor.name} {tensor.dtype}[{','.join(map(str, tensor.shape))}] {_bytes(tensor.bytes)}"
        for tensor in tensors
    ]
    return _listed(described) or "nothing"


def _ops(ops: Mapping[str, int]) -> str:
    ranked = sorted(ops.items(), key=lambda item: (-item[1], item[0]))
    return _listed(f"{count} {op}" for op, count in ranked)


def _listed(items: Iterable[str]) -> str:
    """Join items so that lines break between them only."""
    return ", ".join(item.replace(" ", _NO_BREAK) for item in items)


def _wrapped(text: str, label: str) -> list[str]:
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_on_hyphens=False,
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _bytes(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    for unit, size in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if count < 999.5 * size or unit == "GB":
            break
    return f"{count / size:.3g} {unit}"
