"""What a measurement holds for: the processor, the thread count, and the software."""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.options import KERNELS
from orchestrator.versions import digest_of, executorch_version

if TYPE_CHECKING:
    from orchestrator.backends.base import Backend


@dataclass(frozen=True)
class Machine:
    """A processor that programs run on.

    target: "host", or the name of a device whose measurements were imported.
    cpu: the processor's name. threads: how many threads the runtime uses.
    """

    target: str
    cpu: str
    threads: int

    def running(self, versions: str) -> Environment:
        """Return the environment of this machine and some software."""
        return Environment(self.target, self.cpu, self.threads, versions)


@dataclass(frozen=True)
class Environment:
    """Where costs were measured; costs from another environment are not mixed in.

    target, cpu, threads: see `Machine`. versions: one string for all software that the times
        depend on: for those of a backend, see `Backend.fingerprint`.
    """

    target: str
    cpu: str
    threads: int
    versions: str

    @property
    def machine(self) -> Machine:
        """Return the machine alone."""
        return Machine(self.target, self.cpu, self.threads)


@functools.cache
def cpu_name() -> str:
    """The processor's model name and core count, as the operating system gives them."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if lines:
            name = lines[0].partition(":")[2].strip()
            return f"{name} x{len(lines)}"
    return name


def versions_of(backends: Iterable[Backend]) -> dict[str, str]:
    """Return what times depend on, by backend; ExecuTorch's kernels among them."""
    return {each.name: each.fingerprint() for each in backends} | {KERNELS: executorch_version()}


def versions_for_plans(backends: Iterable[Backend]) -> str:
    """Return what a plan depends on: all backends' software, and this project's."""
    named = [f"{name}: {each}" for name, each in sorted(versions_of(backends).items())]
    return "; ".join([*named, f"orchestrator {_own_digest()}"])


@functools.cache
def _own_digest() -> str:
    return digest_of(sorted(Path(__file__).parent.parent.rglob("*.py")))


def host(threads: int) -> Machine:
    """Return this machine.

    Args:
        threads: of the runtime, at least 1.
    """
    return Machine("host", cpu_name(), threads)
