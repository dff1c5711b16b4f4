"""One measurement to be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.backends.base import Backend
from orchestrator.backends.portable import NAME as KERNELS
from orchestrator.cost.extract import AtomProgram


class Place(NamedTuple):
    """Where a measurement belongs: the backend's name, and what it measures there."""

    backend: str
    key: str


@dataclass(frozen=True)
class Task:
    """One atom to be measured on one backend, in one layout.

    key, label: see `AtomProgram`. backend: None for ExecuTorch's kernels. extract: cuts the atom
    out; raises NotMeasurableError. separate_calls: every node in a delegate call of its own.
    """

    key: str
    label: str
    backend: Backend | None
    extract: Callable[[], AtomProgram]
    separate_calls: bool = False

    @property
    def backend_name(self) -> str:
        """As in cost graphs and the cost table."""
        return KERNELS if self.backend is None else self.backend.name

    @property
    def place(self) -> Place:
        """Where its measurement belongs."""
        return Place(self.backend_name, self.key)
