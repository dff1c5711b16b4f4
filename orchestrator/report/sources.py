"""Where in the user's code a node comes from."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from torch.fx import Node

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
# Frames inside these packages are how a line of the user's works, not where it is.
_LIBRARIES = ("/torch/", "/torchao/", "/executorch/")


def source_line(node: Node) -> str:
    """Return the line of the user's code that made a node, as "package/model.py:42", or "".

    The innermost frame outside of torch counts. Folders of this machine are left out, so that a
    program may be given away with its report.
    """
    return source_of_trace(str(node.meta.get("stack_trace") or ""))


def source_of_trace(trace: str) -> str:
    """Return the line of the user's code that a stack trace leads to, as `source_line` does."""
    frames = _FRAME.findall(trace)
    if not frames:
        return ""
    own = [frame for frame in frames if not any(name in frame[0] for name in _LIBRARIES)]
    path, line = (own or frames)[-1]
    return f"{_relative(path)}:{line}"


def _relative(path: str) -> str:
    roots = [f"{root.rstrip('/')}/" for root in sys.path if root]
    inside = [root for root in roots if path.startswith(root)]
    if inside:
        return path[len(max(inside, key=len)) :]
    return PurePath(path).name


def covering_modules(inside: Sequence[str], outside: Iterable[str]) -> tuple[str, ...]:
    """Name the modules that nodes come from with as few paths as possible.

    inside, outside: paths of the nodes to name and of all others. A module that has nodes on both
    sides is named by its parts. Paths come in the order of `inside`; "" is the whole model, "."
    what stands in the model's own code while other parts of it are elsewhere.
    """
    others = set()
    for path in outside:
        others.update(_ancestors(path))
    found = (
        next((name for name in reversed(_ancestors(path)) if name not in others), path or ".")
        for path in dict.fromkeys(inside)
    )
    return tuple(dict.fromkeys(found))


def _ancestors(path: str) -> list[str]:
    """A path and all above it, the innermost first; the last is the root, ""."""
    parts = path.split(".") if path else []
    return [".".join(parts[:count]) for count in range(len(parts), -1, -1)]
