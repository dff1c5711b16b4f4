"""What ExecuTorch or a backend raises while a program is lowered, told in terms of the model."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends import Backend
from orchestrator.backends.candidates import EVERY_NODE
from orchestrator.graph.queries import module_path, op_name
from orchestrator.report.data import SegmentReport

_OURS = ("orchestrator.", "ggml_delegate.")
_NAMED = 4  # nodes in a message
MOST_FAILURES = 4
"""How often a backend may fail in a program before it gets nothing of it."""


class LoweringError(RuntimeError):
    """ExecuTorch or a backend failed on a program; the message says where, and what to do.

    The cause is the original exception.
    """


@dataclass(frozen=True)
class Failure:
    """A backend that could not compile a segment that it had taken.

    backend_id: its id. nodes: of the segment; or the one on which it failed, if that is known.
    described: the nodes, for people. reason: what the backend said.
    """

    backend_id: str
    nodes: tuple[str, ...]
    described: str
    reason: str

    def __str__(self) -> str:
        """Say what failed."""
        return f"{self.backend_id} failed to compile {self.described}: {self.reason}"


@dataclass
class Refusals:
    """What backends could not compile so far, and so do not get any more.

    nodes: by method and backend, each with the reason; "*" stands for all nodes.
    failures: in the order in which they came.
    """

    nodes: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def of(self, method: str) -> dict[str, dict[str, str]]:
        """Return what is refused in a method, as it grows."""
        return self.nodes.setdefault(method, {})

    def add(
        self,
        failure: Failure,
        backends: Sequence[Backend],
        segments: Mapping[str, Sequence[SegmentReport]],
    ) -> bool:
        """Refuse nodes to the backend that failed on them; False if it does not get them already.

        A backend that keeps failing gets nothing of the method any more.

        segments: of the plans that were being lowered, by method.
        """
        names = {each.name for each in backends if each.backend_id == failure.backend_id}
        owners = [
            (method, segment.backend)
            for method, some in segments.items()
            for segment in some
            if segment.backend in names and set(failure.nodes) & set(segment.nodes)
        ]
        # Segments of branches are in no report.
        owners = owners or [(method, name) for method in segments for name in sorted(names)]
        self.failures.append(failure)
        times = sum(each.backend_id == failure.backend_id for each in self.failures)
        nodes = (EVERY_NODE,) if times > MOST_FAILURES else failure.nodes
        added = False
        for method, name in owners:
            known = self.of(method).setdefault(name, {})
            new = [node for node in nodes if node not in known]
            known.update(dict.fromkeys(new, f"{name} failed to compile it: {failure.reason}"))
            added |= bool(new) and EVERY_NODE not in known.keys() - set(new)
        return added


def find_failure(error: BaseException) -> Failure | None:
    """Return which backend an exception came from, and on which nodes; None if it was none.

    A backend is called as `preprocess`, with the segment as an exported program; the frames of the
    call are those of the exception's traceback.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for depth, frame in enumerate(frames):
        program = _compiled(frame)
        if program is None:
            continue
        nodes = [node for node in program.graph.nodes if node.op == "call_function"]
        found = _blamed(frames[depth + 1 :], {node.name: node for node in nodes})
        qualified = getattr(frame.f_code, "co_qualname", "")  # "XnnpackBackend.preprocess"
        backend = qualified.rpartition(".")[0].rpartition(".")[2]
        blamed = nodes if found is None else [found]
        return Failure(backend, tuple(n.name for n in blamed), _described(blamed), reason(error))
    return None


def reason(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def is_ours(error: BaseException) -> bool:
    """Whether an exception is one of this project's own, which say what to do."""
    return f"{type(error).__module__}.".startswith(_OURS)


def lowering_error(error: Exception, failure: Failure | None = None) -> LoweringError:
    """Return an error that says what failed, and what can be done about it.

    failure: of a backend, if it was one.
    """
    if failure is None:
        return LoweringError(
            f"ExecuTorch cannot lower the program: {reason(error)}. Try other backends, or "
            "exclude=[...] with the op or the module that the message names; the error that led "
            "here has the details"
        )
    node = failure.nodes[0] if failure.nodes else "NODE"
    return LoweringError(
        f"{failure}. Keep nodes from it with exclude={{{node!r}: BACKEND}}, or leave it out of "
        "`backends`; the error that led here has the details"
    )


def _compiled(frame: FrameType) -> ExportedProgram | None:
    """The program that a frame compiles, if it is a backend's."""
    code = frame.f_code
    if code.co_name != "preprocess":
        return None
    arguments = code.co_varnames[: code.co_argcount]
    programs = (frame.f_locals.get(name) for name in arguments)
    return next((value for value in programs if isinstance(value, ExportedProgram)), None)


def _blamed(frames: Sequence[FrameType], nodes: Mapping[str, Node]) -> Node | None:
    """The node that the innermost frame works on that works on one of the segment's."""
    for frame in reversed(frames):
        value = frame.f_locals.get("node")
        if isinstance(value, Node) and value.name in nodes:
            return nodes[value.name]
    return None


def _described(nodes: Sequence[Node]) -> str:
    return ", ".join(_names(nodes[:_NAMED])) + (
        f" and {len(nodes) - _NAMED} more nodes" if len(nodes) > _NAMED else ""
    )


def _names(nodes: Sequence[Node]) -> Iterator[str]:
    for node in nodes:
        path = module_path(node)
        yield f"{node.name} ({op_name(node)}{f', in {path}' if path else ''})"
