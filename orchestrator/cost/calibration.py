"""What a machine takes around the atoms: running a method, calling a delegate, changing a layout.

Measured with small programs of known content: a chain of additions in one delegate call and in one
call each, and a depthwise convolution on contiguous and on channels-last pictures. Beside every
batch of atoms, one small addition is timed on each backend: what running a method and calling a
delegate take, in the caches as that very batch leaves them. So is one product of fixed size on each
delegate, by which the speed of the machine is told, as it changes with the time of day and with
what else runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from executorch.exir import to_edge
from torch import Tensor, nn
from torch.export import ExportedProgram

from orchestrator.backends.base import Backend
from orchestrator.cost.environment import Environment
from orchestrator.cost.extract import AtomProgram, extract
from orchestrator.cost.table import CostTable, Measurement
from orchestrator.cost.task import Task
from orchestrator.graph.queries import compute_nodes
from orchestrator.planner import Layout

_CHAIN_LENGTH = 8
_CHAIN_SIZE = 64
_IMAGE = (1, 64, 56, 56)
_IMAGE_BYTES = 4 * 64 * 56 * 56

BASELINE = "calibration/one small addition"
REFERENCE = "calibration/reference product"
# Rows, inputs and outputs: some 50 us on one core.
_PRODUCT = (32, 256, 256)
_CHAIN = "calibration/chain"
_CALLS = "calibration/chain, a call each"
_DEPTHWISE = {layout: f"calibration/depthwise, {layout.value}" for layout in Layout}
KEYS = (_CHAIN, _CALLS, *_DEPTHWISE.values())


@dataclass(frozen=True)
class Calibration:
    """Times around the atoms, in ns; backends by name, those that were not calibrated left out.

    call_ns: calling a delegate. convert_ns_per_byte: changing the layout of a tensor inside a
    delegate. program_factor: what ops take in a whole program over what they take alone;
    program_call_ns: what a call takes more there. Both are medians over the programs that were
    tuned.
    """

    call_ns: Mapping[str, float] = field(default_factory=dict)
    convert_ns_per_byte: Mapping[str, float] = field(default_factory=dict)
    program_factor: Mapping[str, float] = field(default_factory=dict)
    program_call_ns: Mapping[str, float] = field(default_factory=dict)


class _Additions(nn.Module):
    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        for _ in range(self._length):
            x = x + y
        return x


def _edge(module: nn.Module, *inputs: Tensor) -> ExportedProgram:
    with torch.no_grad():
        edge = to_edge(torch.export.export(module.eval(), inputs))
    program: ExportedProgram = edge.exported_program()
    return program


def calibration_tasks(backends: Sequence[Backend]) -> Iterator[Task]:
    """Yield what to measure on these delegates and on ExecuTorch's kernels.

    A delegate that does not take the programs is left out; its overheads stay typical ones.
    """
    chain = _additions(_CHAIN_LENGTH)
    channels = _IMAGE[1]
    image = _edge(nn.Conv2d(channels, channels, 3, padding=1, groups=channels), torch.randn(_IMAGE))
    for backend in backends:
        if not backend.propose(chain).rejections:
            yield _task(_CHAIN, backend, chain)
            yield _task(_CALLS, backend, chain, separate_calls=True)
        if not backend.propose(image).rejections:
            for layout, key in _DEPTHWISE.items():
                if layout in backend.boundary_layouts(len(_IMAGE)):
                    yield _task(key, backend, image, layout=layout)


def baseline_task(backend: Backend | None) -> Task | None:
    """Return the measurement of what is around an atom on a backend (None: ExecuTorch's kernels).

    None for a delegate that does not take the program.
    """
    one = _additions(1)
    if backend is not None and backend.propose(one).rejections:
        return None
    return _task(BASELINE, backend, one)


def reference_task(backend: Backend | None) -> Task | None:
    """Return the measurement of a product of fixed size.

    None for ExecuTorch's kernels, which take long for it, and for a delegate that does not take it.
    """
    if backend is None:
        return None
    rows, inputs, outputs = _PRODUCT
    product = _edge(nn.Linear(inputs, outputs), torch.randn(rows, inputs))
    return None if backend.propose(product).rejections else _task(REFERENCE, backend, product)


def _additions(count: int) -> ExportedProgram:
    vector = torch.ones(_CHAIN_SIZE)
    return _edge(_Additions(count), vector, vector.clone())


def _task(
    key: str,
    backend: Backend | None,
    ep: ExportedProgram,
    *,
    layout: Layout = Layout.CONTIGUOUS,
    separate_calls: bool = False,
) -> Task:
    def cut() -> AtomProgram:
        return extract(ep, list(compute_nodes(ep)), layout)

    return Task(key, key, backend, cut, separate_calls)


def read_calibration(table: CostTable, environments: Mapping[str, Environment]) -> Calibration:
    """Return what the table has of some backends.

    environments: by the names of delegates.
    """
    call_ns: dict[str, float] = {}
    convert: dict[str, float] = {}
    factors: dict[str, float] = {}
    more_ns: dict[str, float] = {}
    for name, environment in environments.items():
        found = _known(table.get(environment, name, KEYS))
        if _CHAIN in found and _CALLS in found:
            more = found[_CALLS] - found[_CHAIN]
            call_ns[name] = max(more / (_CHAIN_LENGTH - 1), 0.0)
        plain, last = (found.get(key) for key in _DEPTHWISE.values())
        if plain is not None and last is not None:
            convert[name] = max(plain - last, 0.0) / (2 * _IMAGE_BYTES)
        programs = table.factors(environment, name)
        if programs:
            factors[name] = statistics.median(each.factor for each in programs)
            more_ns[name] = statistics.median(each.call_ns for each in programs)
    return Calibration(call_ns, convert, factors, more_ns)


def _known(measurements: Mapping[str, Measurement]) -> dict[str, float]:
    return {key: found.median_ns for key, found in measurements.items() if not found.failed}
