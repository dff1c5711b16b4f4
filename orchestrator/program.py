"""A lowered program: its bytes, what is known about them, and a way to run them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch.utils._pytree as pytree
from torch.export import ExportedProgram

from orchestrator.fallback import is_fallback
from orchestrator.native import NativeProgram, load_libraries, missing_backends
from orchestrator.planner import Plan
from orchestrator.report.data import Report
from orchestrator.report.embed import read_report


@dataclass(frozen=True)
class Signature:
    """How a method's arguments and results nest; the runtime itself knows flat lists only."""

    inputs: pytree.TreeSpec
    outputs: pytree.TreeSpec

    @classmethod
    def of(cls, program: ExportedProgram) -> Signature:
        """Read the signature of an exported program."""
        return cls(program.call_spec.in_spec, program.call_spec.out_spec)

    def flatten(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """Return the leaves of a call's arguments, in the order of the runtime's inputs.

        Raises:
            TypeError: the arguments nest differently from the exported example inputs.
        """
        named = self.inputs.child(1).context  # the names, in the order of export
        if set(named) == set(kwargs):
            kwargs = {name: kwargs[name] for name in named}
        leaves, found = pytree.tree_flatten((args, dict(kwargs)))
        if found != self.inputs:
            raise TypeError(
                "the arguments differ from those the model was exported with: expected "
                f"{self.inputs}, found {found}"
            )
        return leaves


@dataclass(frozen=True)
class LoweredProgram:
    """The result of `lower`.

    buffer: the .pte.
    report: what went where and why; also inside the .pte.
    plan: the plan of each method.
    load_options: to run it with here, by the ids of delegates; see `Backend.load_options`.
    libraries: that bring delegates, by their ids; see `Backend.libraries`.
    """

    buffer: bytes
    report: Report
    plan: Mapping[str, Plan]
    signatures: Mapping[str, Signature]
    load_options: Mapping[str, Mapping[str, bool | int | str]] = field(default_factory=dict)
    libraries: Mapping[str, Sequence[Path]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Show the methods and the size."""
        return f"LoweredProgram({', '.join(self.signatures)}: {len(self.buffer)} bytes)"

    def __call__(self, *args: Any, method: str | None = None, **kwargs: Any) -> Any:
        """Run a method natively, with arguments and results as in the original model.

        method: its name; may be left out if there is one method, or one named "forward".

        Raises:
            TypeError: the arguments nest differently from the exported example inputs.
            KeyError: no such method.
        """
        name = self._method(method)
        signature = self.signatures[name]
        outputs = self._native.run(name, signature.flatten(args, kwargs), relayout=True)
        return pytree.tree_unflatten(outputs, signature.outputs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the .pte; a file that is there already is replaced only once all is written.

        Raises:
            OSError: the file cannot be written.
        """
        write_whole(Path(path), self.buffer)

    def reset(self) -> None:
        """Give all mutable buffers their first values."""
        self._native.reset()

    @cached_property
    def _native(self) -> NativeProgram:
        for backend_id in missing_backends(self.libraries):
            load_libraries(self.libraries[backend_id])
        return NativeProgram(self.buffer, backend_options=self.load_options)

    def _method(self, method: str | None) -> str:
        if method is None:
            own = [name for name in self.signatures if not is_fallback(name)]
            method = own[0] if len(own) == 1 else "forward"
        if method not in self.signatures:
            raise KeyError(f"no method {method!r}; this program has {', '.join(self.signatures)}")
        return method


@dataclass(frozen=True)
class SavedProgram:
    """A program in a file, which must not change while the program is used.

    load_options: as of `LoweredProgram`.
    """

    path: Path
    load_options: Mapping[str, Mapping[str, bool | int | str]] = field(default_factory=dict)

    @cached_property
    def report(self) -> Report:
        """What went where and why; see `read_report` for what it raises."""
        return read_report(self.path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Copy the file; one that is there already is replaced only once all is written.

        Raises:
            OSError: a file cannot be read or written.
        """
        write_whole(Path(path), self.path.read_bytes())


def write_whole(target: Path, data: bytes | memoryview) -> None:
    """Write a file; one that is there already is replaced only once all is written.

    Raises:
        OSError: the file cannot be written.
    """
    written = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with written.open("xb") as file:
            file.write(data)
        written.replace(target)
    except BaseException:
        written.unlink(missing_ok=True)
        raise
