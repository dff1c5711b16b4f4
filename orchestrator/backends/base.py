"""What the orchestrator knows about a backend: one small protocol and the data it trades in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from executorch.exir.backend.compile_spec_schema import CompileSpec
from torch.export import ExportedProgram
from torch.fx import Node

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
    """A node that a backend does not take, and why, as a sentence fragment."""

    node: Node
    reason: str


@dataclass(frozen=True)
class Support:
    """A backend's answer for one program: every compute node is in exactly one of the two."""

    candidates: Sequence[Candidate] = field(default_factory=tuple)
    rejections: Sequence[Rejection] = field(default_factory=tuple)


@runtime_checkable
class Backend(Protocol):
    """A place where nodes of a program can run.

    `propose` and `preserved_ops` must depend on metadata only: ExecuTorch plans on programs
    whose weights are fake tensors.
    """

    @property
    def name(self) -> str:
        """The name that users write, for example "xnnpack"."""

    @property
    def backend_id(self) -> str:
        """The name under which the delegate is registered, for example "XnnpackBackend"."""

    def available(self) -> str | None:
        """Why this backend cannot lower programs here, or None if it can."""

    def propose(self, ep: ExportedProgram) -> Support:
        """Say which nodes of an edge-dialect program this backend would take."""

    def preserved_ops(
        self, ep: ExportedProgram
    ) -> tuple[Sequence[torch._ops.OpOverload], NodeFilter]:
        """Name the ATen ops to keep whole, and a filter over the nodes of `ep` that have one.

        The filter is called on ATen-dialect nodes and must promise that `propose` takes the
        node once it is in the edge dialect.
        """

    def compile_specs(self) -> list[CompileSpec]:
        """Options that ExecuTorch hands to the backend's `preprocess`."""
