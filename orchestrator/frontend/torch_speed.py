"""Spares torch.export and ExecuTorch's passes work that they repeat.

What is looked up about ops is in known_ops.py, ExecuTorch's own passes in pass_speed.py.

Each pass notes of every node which node it was made from, with a deep copy of all that was noted
before. Under a profiler that is a sixth of the time of some dozens of passes; nothing ever changes
these notes.

Each pass also has the Python code of its result generated and compiled, which is another sixth,
while most results are only interpreted, or read by the next pass. For each part that goes to a
delegate, ExecuTorch has the code of the whole graph generated for a line of its debugging log.

Passes make objects by the million, and each time that many are new, Python looks through all others
for garbage: torch and what it imports are most of them, and a third of the time.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import logging
import weakref
from abc import ABCMeta
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
import torch.fx.traceback
from executorch.exir.backend.utils import is_same_node
from torch._decomp.decompositions_for_rng import PhiloxState
from torch._higher_order_ops.executorch_call_delegate import executorch_call_delegate
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from orchestrator.frontend.known_ops import ops_looked_up_once
from orchestrator.frontend.pass_speed import spared_traces
from orchestrator.frontend.shared_patches import SharedPatches
from orchestrator.versions import is_known_executorch

# What is patched was read in this version of torch. torch.fx._lazy_graph_module does the same for
# modules that torch's tracers make, but not for those that ExecuTorch's passes do.
_KNOWN_TORCH = "2.13.0"


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


_recompile = GraphModule.recompile


class _WhenAsked:
    """What `GraphModule.recompile` makes, or what needs it, on a module's own class."""

    def __init__(self, module: GraphModule, name: str) -> None:
        self._module = weakref.ref(module)
        self._name = name

    def __get__(self, instance: GraphModule | None, owner: type) -> Any:
        module = instance if instance is not None else self._module()
        if module is None:
            raise AttributeError(self._name)
        _generate(module)
        return getattr(owner if instance is None else instance, self._name)


class _Code:
    """The code of a module, which is generated when something asks for it."""

    def __init__(self, module: GraphModule) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(_generate(self._module), name)


_MADE = ("_code", "_lineno_map", "_prologue_start")
_LATE = ("forward", *_MADE, "__reduce__", "__reduce_deploy__", "__reduce_package__")


def _generate(module: GraphModule) -> Any:
    """Puts a module's code in place of what generates it."""
    cls = type(module)
    for name in _LATE:
        if isinstance(vars(cls).get(name), _WhenAsked):
            delattr(cls, name)
    return _recompile(module)


def _recompile_when_asked(module: GraphModule) -> Any:
    """Does what `GraphModule.recompile` does, but for the code."""
    cls = type(module)
    arguments = getattr(module.graph._codegen, "pytree_info", None)
    if arguments is not None:
        module._in_spec, module._out_spec = arguments.in_spec, arguments.out_spec
    for name in _MADE:
        module.__dict__.pop(name, None)
    for name in _LATE:
        setattr(cls, name, _WhenAsked(module, name))
    module._recompile_submodules()
    return _Code(module)


_str = GraphModule.__str__


def _str_without_code(module: GraphModule) -> str:
    """Does what `GraphModule.__str__` does, but for the code unless somebody looks for details."""
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        return _str(module)
    return torch.nn.Module.__str__(module)


@contextlib.contextmanager
def _programs_let_go() -> Iterator[None]:
    """Has caches that never forget, or seldom, forget the programs that were lowered inside.

    One is keyed by nodes, whose graphs hold all; another by delegates, which hold their weights;
    some by what knows of dynamic sizes, which has such a cache of its own (`dynamic_sizes_kept`).
    FX changes `torch.nn.Module` several times a trace, and Python then looks through all classes
    derived from it, of which every graph module that is alive has one.
    """
    before = len(FakeTensorMode.cache)
    try:
        yield
    finally:
        is_same_node.cache_clear()
        forget_delegates(FakeTensorMode.cache, before)
        for method in vars(ShapeEnv).values():
            while method is not None:
                getattr(method, "cache_clear", lambda: None)()
                method = getattr(method, "__wrapped__", None)


def forget_delegates(cache: dict[Any, Any], kept: int = 0) -> None:
    """Take out of a cache of fake tensors what delegates return; they hold their weights.

    kept: how many of the first entries to leave as they are.
    """
    for key in list(itertools.islice(reversed(cache), max(0, len(cache) - kept))):
        if key.key[0] is executorch_call_delegate:
            del cache[key]


_NO_STATE = torch.empty(0)


def _reset_without_tensors(state: PhiloxState) -> None:
    """Does what `PhiloxState.reset` does, with one empty tensor for all.

    A trace resets six of these states. Inside, it takes fake tensors half a millisecond each.
    """
    state.seed = state.base_offset = _NO_STATE
    state.relative_offset = 0
    state.offset_advanced_at_least_once = False


class _PresentObjects:
    """Has garbage looked for among what is made inside; what others froze stays frozen.

    Python counts frozen objects one by one, so that it is asked no more once there are some.
    """

    def __init__(self) -> None:
        self._frozen_by_others = False

    @contextlib.contextmanager
    def set_aside(self) -> Iterator[None]:
        if not self._frozen_by_others:
            self._frozen_by_others = gc.get_freeze_count() > 0
        if self._frozen_by_others:
            yield
            return
        gc.freeze()
        try:
            yield
        finally:
            gc.unfreeze()


_PRESENT_OBJECTS = _PresentObjects()


def _patches() -> Iterator[AbstractContextManager[Any]]:
    """If a private name is missing, that optimisation is skipped; in another torch, all are."""
    yield _PRESENT_OBJECTS.set_aside()
    if torch.__version__.partition("+")[0] != _KNOWN_TORCH:
        return

    yield _programs_let_go()
    yield from ops_looked_up_once()
    if hasattr(torch._ops, "Callable"):
        yield mock.patch.object(torch._ops, "Callable", _CachedCallable)
    if hasattr(PhiloxState, "reset"):
        yield mock.patch.object(PhiloxState, "reset", _reset_without_tensors)
    source = getattr(torch.fx.traceback, "NodeSource", None)
    if source is not None:
        yield mock.patch.object(source, "__deepcopy__", _itself, create=True)
    if hasattr(GraphModule, "_recompile_submodules"):
        yield mock.patch.object(GraphModule, "recompile", _recompile_when_asked)
        yield mock.patch.object(GraphModule, "__str__", _str_without_code)
    if is_known_executorch():
        yield from spared_traces()


_SHARED = SharedPatches(_patches)


def repeated_work_spared() -> AbstractContextManager[None]:
    """Inside, torch.export and ExecuTorch's passes do once what they otherwise repeat.

    * Composite ops are found, and their handlers made, once in a process.
    * Copies of a node share the object that says where the node comes from.
    * The code of a graph module is generated when it is called or looked at, from the graph as it
      is then. `str` of a graph module shows no code.
    * Passes of ExecuTorch that would change nothing are not run.
    * Python looks for garbage among new objects only.

    In another version of torch than the one that was read, only the last holds; in another version
    of ExecuTorch, its passes all run.

    Custom ops with a composite implementation may be missed if they are registered inside. May be
    nested, and used by several threads at once: when the last of them leaves, all patches are
    removed.
    """
    return _SHARED.applied()
