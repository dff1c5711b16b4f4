"""What a report says, apart from how it looks. Needs neither torch nor ExecuTorch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1


class ReportError(ValueError):
    """Bytes that should hold a report do not."""


@dataclass(frozen=True)
class TensorReport:
    """A tensor at a partition's boundary.

    shape: a dynamic size is a string, such as "s0".
    bytes: for the sizes in the example inputs.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    bytes: int


@dataclass(frozen=True)
class PartitionReport:
    """One delegate call.

    nodes: names of its ops; what only takes one result of an op apart (getitem) is not counted.
    ops: how often each op occurs.
    weight_bytes: constants inside the delegate, before the backend repacks them.
    """

    backend: str
    nodes: tuple[str, ...]
    ops: Mapping[str, int]
    inputs: tuple[TensorReport, ...]
    outputs: tuple[TensorReport, ...]
    weight_bytes: int = 0

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
    """Why one backend did not take one node. module: its path in the user's model."""

    backend: str
    node: str
    op: str
    reason: str
    module: str = ""


@dataclass(frozen=True)
class MethodReport:
    """What became of one method.

    kernels: how often each op is left to ExecuTorch's kernels.
    missing_kernels: those of them, by op, that the ExecuTorch runtime at hand has no kernel for.
    """

    name: str
    partitions: tuple[PartitionReport, ...] = ()
    kernels: Mapping[str, int] = field(default_factory=dict)
    missing_kernels: Mapping[str, str] = field(default_factory=dict)
    rejections: tuple[RejectionReport, ...] = ()

    @property
    def node_count(self) -> int:
        """Number of ops, wherever they run."""
        delegated = sum(len(partition.nodes) for partition in self.partitions)
        return delegated + sum(self.kernels.values())


@dataclass(frozen=True)
class Report:
    """What became of a program: its methods, and the backends in the user's order."""

    backends: tuple[str, ...]
    methods: tuple[MethodReport, ...]
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        return json.dumps({"format": FORMAT, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """Return the report in a JSON object made by `to_json`.

        Raises:
            ReportError: not such an object, or one in another format.
        """
        try:
            data = json.loads(text)
            found = data["format"]
            if found != FORMAT:
                raise ReportError(f"the report has format {found!r}; this version reads {FORMAT}")
            return cls(
                backends=tuple(data["backends"]),
                methods=tuple(_method(method) for method in data["methods"]),
                versions=dict(data["versions"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, ReportError):
                raise
            raise ReportError(f"not a report: {error!r}") from error


def _method(data: Mapping[str, Any]) -> MethodReport:
    return MethodReport(
        name=data["name"],
        partitions=tuple(_partition(partition) for partition in data["partitions"]),
        kernels=dict(data["kernels"]),
        missing_kernels=dict(data["missing_kernels"]),
        rejections=tuple(RejectionReport(**rejection) for rejection in data["rejections"]),
    )


def _partition(data: Mapping[str, Any]) -> PartitionReport:
    return PartitionReport(
        backend=data["backend"],
        nodes=tuple(data["nodes"]),
        ops=dict(data["ops"]),
        inputs=tuple(_tensor(tensor) for tensor in data["inputs"]),
        outputs=tuple(_tensor(tensor) for tensor in data["outputs"]),
        weight_bytes=data["weight_bytes"],
    )


def _tensor(data: Mapping[str, Any]) -> TensorReport:
    return TensorReport(data["name"], data["dtype"], tuple(data["shape"]), data["bytes"])
