"""What a measurement holds for: the processor, the backends' versions and the thread count."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """Where costs were measured; costs from another environment are not mixed in.

    target: "host", or the name of a device whose measurements were imported.
    cpu: the processor's name. threads: how many threads the runtime uses.
    versions: one string for all software that the times depend on.
    """

    target: str
    cpu: str
    threads: int
    versions: str


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


@functools.cache
def software_versions() -> str:
    """ExecuTorch's version and a digest of the ggml delegate, both halves."""
    import _ggml_delegate

    import ggml_delegate

    native, lowering = (Path(each.__path__[0]) for each in (_ggml_delegate, ggml_delegate))
    digest = hashlib.sha256()
    for file in (*sorted(native.glob("libggml_backend*")), *sorted(lowering.rglob("*.py"))):
        digest.update(file.read_bytes())
    executorch = importlib.metadata.version("executorch")
    return f"executorch {executorch}, ggml delegate {digest.hexdigest()[:12]}"


def host(threads: int) -> Environment:
    """The environment of this machine.

    Args:
        threads: of the runtime, at least 1.
    """
    return Environment("host", cpu_name(), threads, software_versions())
