"""What a report says, apart from how it looks. Needs neither torch nor ExecuTorch.

Times are in nanoseconds, sizes in bytes; None stands for what was not priced or not measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


class ReportError(ValueError):
    """Bytes that should hold a report, or a profile of it, do not."""


@dataclass(frozen=True)
class TensorReport:
    """A tensor at a segment's boundary.

    shape: a dynamic size is a string, such as "s0".
    bytes: for the sizes in the example inputs.
    layout: in memory, "channels_last" or "contiguous".
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    bytes: int
    layout: str = "contiguous"


@dataclass(frozen=True)
class EdgeReport:
    """A value on its way from one atom to others.

    producer: an atom's id; "" for the caller. is_output: whether the caller gets it.
    """

    tensor: str
    producer: str
    consumers: tuple[str, ...]
    bytes: int = 0
    is_output: bool = False


@dataclass(frozen=True)
class AtomReport:
    """Nodes that always run together; the unit that the planner places.

    id: the name of its first node. ops: one per node, without what only takes one result of an op
        apart (getitem).
    backend, segment: where it runs; segment is an index into the method's segments.
    module: path in the user's model. source: file and line of the user's code.
    output: dtype and shape of its result.
    costs_ns: by backend that can run it, its cheapest price there; None if unknown.
    """

    id: str
    nodes: tuple[str, ...]
    ops: tuple[str, ...]
    backend: str
    segment: int
    module: str = ""
    source: str = ""
    output: str = ""
    costs_ns: Mapping[str, float | None] = field(default_factory=dict)
    predicted_ns: float | None = None
    measured_ns: float | None = None


@dataclass(frozen=True)
class SegmentReport:
    """One delegate call, or the kernels that run between two.

    nodes: names of its ops. ops: how often each op occurs. modules: the user's modules in it, as
        few paths as name them.
    weight_bytes: constants inside the delegate, before the backend repacks them.
    schemes: how its layers are quantized (`orchestrator.graph.schemes`), and how many each way.
    conversions: tensors whose layout changes on the way in, inside, or on the way out.
    predicted_ns: the whole; atoms_ns, overhead_ns and boundary_ns are its parts.
    """

    backend: str
    nodes: tuple[str, ...]
    ops: Mapping[str, int]
    inputs: tuple[TensorReport, ...] = ()
    outputs: tuple[TensorReport, ...] = ()
    weight_bytes: int = 0
    schemes: Mapping[str, int] = field(default_factory=dict)
    is_delegate: bool = True
    atoms: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    conversions: tuple[str, ...] = ()
    predicted_ns: float | None = None
    spread_ns: float | None = None
    atoms_ns: float | None = None
    overhead_ns: float | None = None
    boundary_ns: float | None = None
    measured_ns: float | None = None

    @property
    def input_bytes(self) -> int:
        """Bytes that come in at run time."""
        return sum(tensor.bytes for tensor in self.inputs)

    @property
    def output_bytes(self) -> int:
        """Bytes that go out at run time."""
        return sum(tensor.bytes for tensor in self.outputs)


@dataclass(frozen=True)
class RejectionReport:
    """Why one backend did not take one node.

    module: its path in the user's model. remedy: what it would take. code: the kind of reason, see
    `ggml_delegate.reasons.Code`.
    """

    backend: str
    node: str
    op: str
    reason: str
    module: str = ""
    remedy: str = ""
    code: str = "unsupported"


@dataclass(frozen=True)
class AlternativeReport:
    """A plan that was not chosen.

    kind: "single" (one backend, with kernels for what it does not take), "greedy" (by
        capability, in list order) or "cost" (another plan by cost). problem: why it has no price
        or cannot be made; remedy: what gives it one, as a sentence fragment. backends: the
        delegates of a plan that is not by cost, the preferred one first.
    """

    name: str
    kind: str
    partitions: int = 0
    predicted_ns: float | None = None
    measured_ns: float | None = None
    problem: str = ""
    remedy: str = ""
    backends: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """The same for plans that were made alike, whatever they are called."""
        return (self.kind, self.name) if self.kind == "cost" else (self.kind, *self.backends)

    @property
    def why_not(self) -> str:
        """The problem, with what helps."""
        return f"{self.problem} ({self.remedy})" if self.remedy else self.problem


@dataclass(frozen=True)
class AdviceReport:
    """A change and what it is predicted to gain (negative: to cost).

    kind: "support" (a backend takes what it rejects now), "pin", "exclude" or "partitions".
    assumed: whether the gain rests on a time that nobody measured.
    tie: whether it is within the spread of the costs.
    pins, max_partitions: the options of `lower` that follow it, where there are any.
    """

    kind: str
    text: str
    gain_ns: float
    backend: str = ""
    atoms: tuple[str, ...] = ()
    remedy: str = ""
    assumed: bool = False
    tie: bool = False
    pins: Mapping[str, str] = field(default_factory=dict)
    max_partitions: int | None = None


@dataclass(frozen=True)
class PlanReport:
    """How the plan came about and what else there was.

    solver: see `orchestrator.planner.Plan`. gap: how far the plan can be from the best, 0 to 1.
    unknown: atoms that were counted as 0 for want of a price. private_bytes: what delegates hold in
        memory of their own, beside the file that is mapped.
    """

    solver: str
    predicted_ns: float | None = None
    spread_ns: float | None = None
    lower_bound_ns: float | None = None
    gap: float | None = None
    measured_ns: float | None = None
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    alternatives: tuple[AlternativeReport, ...] = ()
    advice: tuple[AdviceReport, ...] = ()
    private_bytes: int | None = None


@dataclass(frozen=True)
class BranchCalls:
    """Delegate calls in the branches of a torch.cond.

    before: how many of the method's `calls` come before it. numbers: of calls that may come of it,
    depending on the branches taken.
    """

    before: int
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class MethodReport:
    """What became of one method.

    segments: in execution order. atoms: in a topological order.
    missing_kernels: by op, the kernels that the ExecuTorch runtime at hand lacks.
    calls: segments of the delegate calls in the order in which the program makes them, which may
        differ from the plan's where nothing depends on it; empty if not known.
    kernel_order: nodes that kernels run, likewise.
    branch_calls: one entry per torch.cond with delegates in its branches.
    converted: by conversion between dim orders (a node's name), the tensor that it converts.
    profile: where measured times come from; "" if nothing was measured.
    weight_error: what elements of weights may be off by, as `PlanOptions` has it.
    """

    name: str
    segments: tuple[SegmentReport, ...] = ()
    missing_kernels: Mapping[str, str] = field(default_factory=dict)
    rejections: tuple[RejectionReport, ...] = ()
    atoms: tuple[AtomReport, ...] = ()
    edges: tuple[EdgeReport, ...] = ()
    plan: PlanReport | None = None
    calls: tuple[int, ...] = ()
    kernel_order: tuple[str, ...] = ()
    branch_calls: tuple[BranchCalls, ...] = ()
    converted: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""
    weight_error: float = 0.0

    @property
    def partitions(self) -> tuple[SegmentReport, ...]:
        """The segments that are delegate calls."""
        return tuple(segment for segment in self.segments if segment.is_delegate)

    @property
    def kernels(self) -> Mapping[str, int]:
        """How often each op is left to ExecuTorch's kernels."""
        counts = Counter[str]()
        for segment in self.segments:
            if not segment.is_delegate:
                counts.update(segment.ops)
        return dict(counts.most_common())

    @property
    def node_count(self) -> int:
        """Number of ops, wherever they run."""
        return sum(len(segment.nodes) for segment in self.segments)


@dataclass(frozen=True)
class Report:
    """What became of a program: its methods, and the backends in the user's order."""

    backends: tuple[str, ...]
    methods: tuple[MethodReport, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    target: str = ""

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        from orchestrator.report.json import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """Return the report in a JSON object made by `to_json`.

        Raises:
            ReportError: not such an object, or one in another format.
        """
        from orchestrator.report.json import from_json

        return from_json(text)
