"""What the orchestrator asks of a backend: one class, and the data it trades in.

A backend is one module with one subclass of `Backend`. It gives a name, the id of its delegate and
`propose`; everything else has a default, which fits a delegate that takes contiguous tensors, holds
its weights in memory of its own, and of which nothing was measured.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from executorch.exir.backend.compile_spec_schema import CompileSpec
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.planner import Layout
from orchestrator.versions import digest_of, digest_of_text, executorch_version

NodeFilter = Callable[[Node], bool]


class BackendError(ValueError):
    """A backend that was asked for is unknown or cannot be used here."""


@dataclass(frozen=True)
class Candidate:
    """Nodes that a backend would take as one unit.

    nodes: `call_function` nodes of the top-level graph.
    constants: placeholders of parameters, buffers and lifted constants that the backend wants
        inside its delegate (packed weights); other constants reach it as run-time inputs.
    divisible: whether the backend also takes any subset of `nodes`. A convolution with its
        activation is divisible, a quantize-dequantize pattern is not.
    """

    nodes: tuple[Node, ...]
    constants: tuple[Node, ...] = ()
    divisible: bool = True


@dataclass(frozen=True)
class Rejection:
    """A node that a backend does not take, and why.

    reason: a sentence fragment, for people. code: what kind of reason it is, for programs; see
    `ggml_delegate.reasons.Code` for those in use here.
    """

    node: Node
    reason: str
    code: str = "unsupported"


@dataclass(frozen=True)
class Support:
    """A backend's answer for one program: every compute node is in exactly one of the two."""

    candidates: Sequence[Candidate] = field(default_factory=tuple)
    rejections: Sequence[Rejection] = field(default_factory=tuple)


@dataclass(frozen=True)
class Rates:
    """What one thread of a backend does with a family of ops.

    gflops: 1e9 operations a second; multiply-adds count as two. gbytes: memory bandwidth in GB/s.
    op_ns: per op. spread: by what fraction a time may be less than estimated.
    """

    gflops: float
    gbytes: float
    op_ns: float
    spread: float


# The families are those of `cost.analytic`.
_USUAL_RATES: Mapping[str, Rates] = {
    "product": Rates(80.0, 16.0, 200.0, 0.25),
    "int8 product": Rates(80.0, 16.0, 200.0, 0.35),
    "depthwise": Rates(36.0, 16.0, 200.0, 0.35),
    "other": Rates(16.0, 16.0, 150.0, 0.6),
}


@dataclass(frozen=True)
class Estimates:
    """What a backend takes, where nothing was measured; the defaults are those of a usual delegate.

    rates: by family of ops ("product", "int8 product", "depthwise", "other"), for one thread,
        float32, on an x86-64 core with AVX-512 in a cloud. "int4 product" may be left out: products
        of rows of integers with weights of 4 bits, where they are not those of "int8 product".
    call_ns: what a delegate call takes beside the work in it.
    convert_ns_per_byte: of changing a tensor's dim order.
    parallel: whether threads share the work.
    fuses: whether what follows the first node of an atom takes no memory traffic of its own.
    half: how many times as long as in float32 ops take on tensors of half types.
    integers_per_ns: of a quantized weight, how many elements a product takes in per nanosecond,
        however few rows it has; for a delegate that expands them to floats, unless activations
        become integers in every run.
    integer_bytes: what an element of an int8 or uint8 activation makes a quantize or a dequantize
        move; more than 1 for a delegate that computes with wider integers than it hands over.
    table_bytes: what a look-up moves per byte of the rows of a quantized table; more than 1 where
        elements of a row lie apart.
    updates_in_place: whether an op that changes a part of an input, which is returned, moves that
        part alone: see `Backend.in_place_results`.
    expanded_ops: how many of its own ops a backend takes an op as, by name, where not as one.
    """

    rates: Mapping[str, Rates] = field(default_factory=lambda: _USUAL_RATES)
    call_ns: float = 1_500.0
    convert_ns_per_byte: float = 0.175
    parallel: bool = True
    fuses: bool = True
    half: float = 1.0
    integers_per_ns: float = math.inf
    integer_bytes: float = 1.0
    table_bytes: float = 1.0
    updates_in_place: bool = False
    expanded_ops: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PrivateMemory:
    """What a loaded delegate holds in memory of its own, beside the file that is mapped.

    per_weight_byte: bytes, per byte of a weight inside the delegate. per_state_byte: bytes, per
        byte of mutable state (a buffer that the model changes) that the delegate writes; 0 if it
        works on the memory that ExecuTorch has planned for the state.
    """

    per_weight_byte: float = 1.0
    per_state_byte: float = 0.0


@dataclass(frozen=True)
class QuantizedErrors:
    """What a backend does otherwise than eager PyTorch, by what it costs a layer.

    groups: of a weight with scales by group. per_tensor: of an activation that is quantized in
    every run, with one scale for all its rows. weights: of a weight that the user let be off, which
    is no backend's doing.
    """

    groups: float = 0.0
    per_tensor: float = 0.0
    weights: float = 0.0


class Backend(ABC):
    """A place where nodes of a program can run.

    `propose`, `preserved_ops`, `takes_tables` and `check_segment` must depend on metadata only:
    ExecuTorch plans on programs whose weights are fake tensors.

    Attributes:
        name: what users write, for example "xnnpack".
        backend_id: the name under which the delegate is registered, for example "XnnpackBackend".
        converts_dim_orders: whether its delegates take images in either dim order, compute in
            channels-last and convert inside what comes in the other one; see `ChannelsLastPass`.
        takes_grouped_integers: whether it multiplies by the integers of
            `orchestrator::dequantize_groups` without expanding the weight in every run.
        estimates: for prices where nothing was measured; of the machine that lowers, where rates
            depend on its instructions.
        private_memory: what its delegates hold once they are loaded.
        quantized_errors: how far quantized layers are off, over their largest values, beyond what
            their scheme says: see `QuantizedErrors`. `verify` allows it.
        remedies: by a rejection's code, what it would take for the node to be accepted, as a
            sentence fragment; "" where that would be of no use.
        tolerance: by how much of the largest value its float32 results may be off because it
            computes in less than float32. It is used only where the user allows as much
            (`PlanOptions.tolerance`).
        limits_threads: whether its delegates compute with no more threads than they are told to.
        is_reproducible: whether what its `preprocess` makes has the same bytes each time.
        is_proven: whether its delegate is known not to crash or hang. Programs of others are run in
            a process of their own before they are timed, and their results are compared with eager
            PyTorch's.
    """

    name: str
    backend_id: str
    converts_dim_orders: ClassVar[bool] = False
    takes_grouped_integers: ClassVar[bool] = False
    estimates: Estimates = Estimates()
    private_memory: ClassVar[PrivateMemory] = PrivateMemory()
    quantized_errors: ClassVar[QuantizedErrors] = QuantizedErrors()
    remedies: ClassVar[Mapping[str, str]] = {}
    tolerance: float = 0.0
    limits_threads: ClassVar[bool] = True
    is_reproducible: ClassVar[bool] = True
    is_proven: ClassVar[bool] = False

    @abstractmethod
    def propose(self, ep: ExportedProgram) -> Support:
        """Say which nodes of an edge-dialect program this backend would take."""

    def available(self) -> str | None:
        """Return why this backend cannot lower programs here, or None if it can."""
        return None

    def libraries(self) -> Sequence[Path]:
        """Return the shared libraries that register its delegate once they are loaded, in order.

        None where the native runtime has the delegate anyway.
        """
        return ()

    def runnable(self) -> str | None:
        """Return why its programs cannot run in this process, or None if they can.

        A backend that can lower here and not run here, as for a phone, is planned by costs that
        were imported.
        """
        from orchestrator.native import load_libraries, missing_backends

        load_libraries(self.libraries())
        if not missing_backends([self.backend_id]):
            return None
        return f"the delegate {self.backend_id!r} is not in this process"

    def preserved_ops(
        self, ep: ExportedProgram
    ) -> tuple[Sequence[torch._ops.OpOverload], NodeFilter]:
        """Name the ATen ops to preserve, and a filter over the nodes of `ep` that have one.

        The filter is called on ATen-dialect nodes and must promise that `propose` takes the
        node once it is in the edge dialect.
        """
        return (), lambda node: False

    def takes_tables(self, ep: ExportedProgram) -> NodeFilter:
        """Return a filter over the embeddings of `ep` whose tables constants are dequantized to.

        It tells those that its delegate takes with the dequantize, of which it reads only rows.
        What no backend takes becomes one of ExecuTorch's quantized embeddings. The filter is called
        on ATen-dialect nodes, and promises what that of `preserved_ops` does.
        """
        return lambda node: False

    def check_segment(self, nodes: Sequence[Node]) -> str | None:
        """Return why nodes cannot share one call, though each of them is taken; None if they can.

        A plan has no call for which this returns a reason. A node that cannot even be alone in a
        call is rejected, for the same reason.

        nodes: of a call, all of them, in graph order. What is refused must stay refused with more
        nodes: smaller sets of them are asked about as well, to find out what is to be kept apart.
        """
        return None

    def compile_specs(self) -> list[CompileSpec]:
        """Return the options that ExecuTorch hands to the backend's `preprocess`."""
        return []

    def boundary_layouts(self, rank: int) -> tuple[Layout, ...]:
        """Return the layouts in which its delegates take and give tensors of a rank."""
        return (Layout.CONTIGUOUS,)

    def load_options(self, threads: int) -> Mapping[str, int | bool | str]:
        """Return the options to load its delegates with, by their names in the delegate.

        "num_threads" is given to every delegate in any case.

        threads: that the program is to run on.
        """
        return {}

    def in_place_results(self, processed: bytes) -> Mapping[int, int]:
        """Say which results of a delegate may have the memory of one of its arguments.

        Where both are at one address when the delegate is called, it must leave there the result,
        and read the argument's value before. A buffer that is such an argument, and whose new value
        is the result, is not copied.

        processed: what the backend's `preprocess` made of the partition.

        Returns:
            The numbers of the arguments by the numbers of the results, of one dtype, sizes and dim
            order.
        """
        return {}

    def versions(self) -> str:
        """Name the software that its times depend on; times of other software are not mixed in.

        By default ExecuTorch, and the distributions that the backend's module comes from, or what
        the module's file holds if it comes from none.
        """
        package = type(self).__module__.partition(".")[0]
        found = importlib.metadata.packages_distributions().get(package, [])
        named = [f"{each} {importlib.metadata.version(each)}" for each in sorted(set(found))]
        if not named:
            file = inspect.getsourcefile(type(self))
            named = [f"{package} {digest_of([Path(file)]) if file else type(self).__qualname__}"]
        return ", ".join([executorch_version(), *named])

    def fingerprint(self) -> str:
        """Name all that its times and plans depend on: software, options, device, precision.

        By default `versions`, and what `compile_specs` holds.
        """
        specs = self.compile_specs()
        if not specs:
            return self.versions()
        texts = [f"{spec.key}={bytes(spec.value).hex()}" for spec in specs]
        return f"{self.versions()}, options {digest_of_text(texts)}"


def load_options(
    backends: Iterable[Backend], threads: int
) -> dict[str, Mapping[str, int | bool | str]]:
    """Return the options to load delegates with, by their ids, for `NativeProgram`.

    threads: that the program is to run on.
    """
    return {each.backend_id: each.load_options(threads) for each in backends}
