"""Spares torch.export and ExecuTorch's passes work that they repeat.

Each `run_decompositions` looks up every composite op that the dispatcher knows, and registers
handlers for most of them; ExecuTorch calls it three times per program. For small programs that is
nine tenths of the time to lower them. Nothing it looks up changes while a program is lowered.

Each pass notes of every node which node it was made from, with a deep copy of all that was noted
before. Under a profiler that is a sixth of the time of some dozens of passes; nothing ever changes
these notes.
"""

from __future__ import annotations

import contextlib
import functools
from abc import ABCMeta
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
import torch.fx.traceback


class _CallableType(ABCMeta):
    def __instancecheck__(cls, instance: object) -> bool:
        return callable(instance)


class _CachedCallable(metaclass=_CallableType):
    """typing's Callable, whose aliases are made once.

    torch evaluates annotations that name it on every registration.
    """

    @classmethod
    @functools.cache
    def __class_getitem__(cls, parameters: Any) -> Any:
        return Callable[parameters]


def _itself(source: Any, memo: dict[int, Any]) -> Any:
    return source


@contextlib.contextmanager
def repeated_work_spared() -> Iterator[None]:
    """Inside, torch.export finds the composite ops once instead of for every program and namespace.

    Where a node comes from is told by one object, however often the node is copied.

    Custom ops that are registered inside with a composite implementation may be missed; ones
    registered before are not. May be nested. What torch does not have under these names (they are
    private) is left alone: then this only saves nothing.
    """
    import torch._export.utils as utils

    with contextlib.ExitStack() as stack:
        materialize = getattr(utils, "_materialize_cpp_cia_ops", None)
        if materialize is not None:
            materialize()
            stack.enter_context(mock.patch.object(utils, "_materialize_cpp_cia_ops", lambda: None))
        if hasattr(torch._ops, "Callable"):
            stack.enter_context(mock.patch.object(torch._ops, "Callable", _CachedCallable))
        source = getattr(torch.fx.traceback, "NodeSource", None)
        if source is not None:
            stack.enter_context(mock.patch.object(source, "__deepcopy__", _itself, create=True))
        yield
