"""Finding backends by name: the ones shipped here, and others through entry points."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from orchestrator.backends.base import Backend, BackendError
from orchestrator.backends.checks import checked_backend
from orchestrator.options import PlanOptions
from orchestrator.quiet import quiet_imports

ENTRY_POINT_GROUP = "executorch_orchestrator.backends"

# Modules are imported when their backend is asked for: XNNPACK's partitioner alone takes
# seconds to import.
_SHIPPED = {
    "ggml": "orchestrator.backends.ggml:GgmlDelegate",
    "xnnpack": "orchestrator.backends.xnnpack:XnnpackDelegate",
    "openvino": "orchestrator.backends.openvino:OpenvinoDelegate",
    "vulkan": "orchestrator.backends.others:vulkan",
    "coreml": "orchestrator.backends.others:coreml",
    "qnn": "orchestrator.backends.others:qnn",
}


def backend_names() -> tuple[str, ...]:
    """Return the names of all known backends, those shipped here first."""
    return (*_SHIPPED, *sorted(_plugins()))


def find_backend(name: str) -> Backend:
    """Return a new backend with default options.

    Raises:
        BackendError: no such name, or what is registered under it is not a backend.
    """
    if name in _SHIPPED:
        module, _, attribute = _SHIPPED[name].partition(":")
        with quiet_imports():
            factory = getattr(importlib.import_module(module), attribute)
    else:
        plugin = _plugins().get(name)
        if plugin is None:
            raise BackendError(_unknown(name))
        factory = plugin.load()
    return checked_backend(factory(), f"backend {name!r}: {factory!r}")


def libraries_of(backend_id: str) -> Sequence[Path]:
    """Return the libraries that bring a delegate, of the first backend that has its id.

    None where no backend has it, or the one that has it cannot be made here.
    """
    for name in backend_names():
        with contextlib.suppress(Exception):  # of the package of another
            backend = find_backend(name)
            if backend.backend_id == backend_id:
                return backend.libraries()
    return ()


def resolve_backends(
    backends: Iterable[str | Backend], options: PlanOptions | None = None
) -> tuple[Backend, ...]:
    """Turn names and backend objects into usable backends, in the same order.

    "portable" names ExecuTorch's own kernels, which run whatever is left in any case, so it
    resolves to nothing.

    options: how they are to be used, if it is known.

    Raises:
        BackendError: an unknown name, a name given twice, or a backend that cannot be used here, or
            not as the options want it.
    """
    if isinstance(backends, str):
        raise BackendError(f"backends is the string {backends!r}; pass a list: [{backends!r}]")
    resolved: list[Backend] = []
    for item in backends:
        if item == "portable":
            continue
        backend = find_backend(item) if isinstance(item, str) else checked_backend(item)
        reason = backend.available()
        if reason is not None:
            raise BackendError(f"backend {backend.name!r} cannot be used: {reason}")
        resolved.append(backend)
    _check_distinct(resolved)
    if options is not None:
        for backend in resolved:
            _check_use(backend, options)
    return tuple(resolved)


def _check_distinct(backends: Sequence[Backend]) -> None:
    names = [backend.name for backend in backends]
    for name in names:
        if names.count(name) > 1:
            raise BackendError(f"backend {name!r} is given {names.count(name)} times in {names}")


def _check_use(backend: Backend, options: PlanOptions) -> None:
    if backend.tolerance > options.tolerance:
        raise BackendError(
            f"backend {backend.name!r} computes in less than float32: its results may be off by "
            f"{backend.tolerance:g} of the largest value, where tolerance={options.tolerance:g} is "
            f"allowed; pass tolerance={backend.tolerance:g}, or leave the backend out"
        )
    if options.tune == "measure":
        reason = backend.runnable()
        if reason is not None:
            raise BackendError(
                f"backend {backend.name!r} cannot be timed here: {reason}. Measure it where it "
                "runs: `orchestrator calibrate export`, `orchestrator-run --calibrate` on the "
                "device and `orchestrator calibrate import`; then lower for that target with "
                "tune='cached'"
            )


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _unknown(name: object) -> str:
    known = ", ".join((*backend_names(), "portable"))
    return (
        f"unknown backend {name!r}; known: {known}. Others register an entry point in the group "
        f"{ENTRY_POINT_GROUP!r}."
    )
