"""Spares torch.export work that it repeats on every call.

Each `run_decompositions` looks up every composite op that the dispatcher knows, and registers
handlers for most of them; ExecuTorch calls it three times per program. For small programs that is
nine tenths of the time to lower them. Nothing it looks up changes while a program is lowered.
"""

from __future__ import annotations

import contextlib
import functools
from abc import ABCMeta
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch


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


@contextlib.contextmanager
def composite_ops_looked_up_once() -> Iterator[None]:
    """Inside, torch.export finds the composite ops once instead of for every program and namespace.

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
        yield
