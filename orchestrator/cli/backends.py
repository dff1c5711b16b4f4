"""`orchestrator backends`: list the backends that are known here."""

from __future__ import annotations

import argparse
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from orchestrator.cli.errors import describe
from orchestrator.cli.output import add_json, print_json, print_table
from orchestrator.cli.parsers import Commands
from orchestrator.quiet import quiet_imports
from orchestrator.versions import executorch_version

_DESCRIPTION = """List the backends that are known here: the ids of their delegates, whether they
can be used and if not why, and what this machine offers them."""
# CPU features that kernels of the backends are chosen by, as Linux names them.
_FEATURES = (
    "avx",
    "fma",
    "f16c",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimd",
)


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "backends", help="list the backends that are known here", description=_DESCRIPTION
    )
    add_json(parser)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Print one line per backend, and the machine's."""
    found, machine = _backends(), _machine()
    if options.json:
        print_json({"backends": found, "machine": machine})
        return
    print_table(
        ("backend", "delegate", "state", "software"),
        [
            (
                each["name"],
                each["id"] or "-",
                each["reason"] or _state(each["elsewhere"]),
                each["versions"] or "-",
            )
            for each in found
        ],
        left=4,
    )
    print()
    for name, value in machine.items():
        print(f"{name:13} {' '.join(value) if isinstance(value, list) else value}")


def _backends() -> list[dict[str, Any]]:
    with quiet_imports():
        from orchestrator.backends import backend_names, find_backend
        from orchestrator.backends.portable import NAME, registered_kernels
    found = []
    for name in backend_names():
        try:
            backend = find_backend(name)
            entry = {
                "name": name,
                "id": backend.backend_id,
                "reason": backend.available(),
                "elsewhere": None,
                "versions": backend.versions(),
            }
            if entry["reason"] is None:
                entry["elsewhere"] = backend.runnable()
        except Exception as error:
            reason = describe(error)
            entry = {
                "name": name,
                "id": None,
                "reason": reason,
                "elsewhere": None,
                "versions": None,
            }
        found.append({**entry, "available": entry["reason"] is None})
    with quiet_imports():
        kernels = len(registered_kernels())
    note = f"available ({kernels} kernels of ExecuTorch run what is left)"
    software = executorch_version()
    entry = {"name": NAME, "id": None, "reason": note, "elsewhere": None, "versions": software}
    return [*found, {**entry, "available": True}]


def _state(elsewhere: str | None) -> str:
    return "available" if elsewhere is None else f"lowers here, runs elsewhere: {elsewhere}"


def _machine() -> dict[str, Any]:
    from orchestrator.cost.environment import cpu_name

    return {
        "processor": cpu_name(),
        "cores": str(len(os.sched_getaffinity(0))),
        "features": _cpu_features(),
        "executorch": _version("executorch"),
        "torch": _version("torch"),
        "orchestrator": _version("executorch-orchestrator"),
    }


def _cpu_features() -> list[str]:
    from pathlib import Path

    info = Path("/proc/cpuinfo")
    if not info.exists():
        return []
    flags: set[str] = set()
    for line in info.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            flags.update(line.partition(":")[2].split())
            break
    return [name for name in _FEATURES if name in flags]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
