"""Keeps the dynamic sizes that a model was exported with dynamic while it is lowered."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

import sympy
import torch
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from orchestrator.frontend.shared_patches import SharedPatches
from orchestrator.frontend.torch_speed import forget_delegates


@contextlib.contextmanager
def dynamic_sizes_kept(programs: Iterable[ExportedProgram]) -> Iterator[None]:
    """Inside, no pass narrows what a size may be.

    Passes compute with fake tensors, and some ops' fake versions ask about sizes (a convolution,
    whether a batch is below 16). PyTorch takes the answer for the example's size as a condition
    from then on, and the program would take no other batch. What has to be asked was asked, and
    written into the program, when it was exported.

    Sizes that depend on data are made anew by every pass, and what the program asserts of them
    (torch._check) is noted of the new ones. Some passes make more than end up in a graph; torch
    waits for these for ever, and refuses the next program with the same sizes: they are forgotten.
    So are the delegates, whose results torch remembers with these sizes: a circle through its C++
    side, which Python cannot see, so that their weights would stay for good.
    """
    values = [node.meta.get("val") for each in programs for node in each.graph.nodes]
    modes = [getattr(value, "fake_mode", None) for value in values]
    envs = {id(mode.shape_env): mode.shape_env for mode in modes if mode and mode.shape_env}
    with contextlib.ExitStack() as stack:
        for env in envs.values():
            env.pending_fresh_unbacked_symbols.clear()
            stack.callback(env.pending_fresh_unbacked_symbols.clear)
            stack.callback(forget_delegates, env.fake_tensor_cache)
            stack.enter_context(env.suppress_guards())
            stack.enter_context(_assertions_noted(env))
        yield


def sizes_without_bound(program: ExportedProgram) -> dict[tuple[str, int], int]:
    """Return the sizes of inputs that were exported without an upper bound.

    ExecuTorch reserves memory for the largest sizes there may be, and takes the example's for that.

    Returns:
        the example's size, by the input's name and dimension.
    """
    inputs = set(program.graph_signature.user_inputs)
    found: dict[tuple[str, int], int] = {}
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or node.name not in inputs:
            continue
        for dim, size in enumerate(value.shape if isinstance(value, torch.Tensor) else ()):
            if isinstance(size, torch.SymInt) and size.node.hint is not None:
                limits = size.node.shape_env.bound_sympy(size.node.expr)
                if not limits.upper.is_Integer:
                    found[node.name, dim] = int(size.node.hint)
    return found


# Programs that are lowered in several threads at once may share what their sizes are made of.
_NOTING: WeakKeyDictionary[ShapeEnv, SharedPatches] = WeakKeyDictionary()
_NOTING_LOCK = threading.Lock()


def _assertions_noted(env: ShapeEnv) -> AbstractContextManager[None]:
    """Inside, what is asserted of sizes that depend on data counts, suppressed guards or not.

    What may be asked of them then has an answer, and they have bounds, also by what was asserted
    before: of a < b and then b <= 9, PyTorch alone takes no bound for a. The ranges of inputs'
    sizes, which have a value in the example, stay as they are.
    """
    with _NOTING_LOCK:
        if env not in _NOTING:
            known = weakref.ref(env)
            _NOTING[env] = SharedPatches(lambda: _noting_patches(known()))
        return _NOTING[env].applied()


def _noting_patches(env: ShapeEnv | None) -> Iterator[AbstractContextManager[Any]]:
    assert env is not None  # whoever applies the patches holds it
    assert_at_run_time = env.guard_or_defer_runtime_assert
    suppresses = env._suppress_guards_tls
    noting = threading.local()  # as torch's own state of whether guards are suppressed
    # As ordered sets: passes assert the same again and again.
    asserted: defaultdict[sympy.Symbol, dict[sympy.Expr, None]] = defaultdict(dict)

    def suppresses_unless_noting() -> bool:
        return not getattr(noting, "now", False) and suppresses()

    def assert_and_note(condition: sympy.Expr, *args: Any, **kwargs: Any) -> bool:
        known = env.backed_var_to_val.keys()
        unknown = condition.free_symbols - known
        if not unknown:
            return bool(assert_at_run_time(condition, *args, **kwargs))
        ranges = {symbol: it for symbol, it in env.var_to_range.items() if symbol in known}
        before, noting.now = getattr(noting, "now", False), True
        try:
            result = bool(assert_at_run_time(condition, *args, **kwargs))
        finally:
            noting.now = before
        for symbol in unknown:
            if condition in asserted[symbol]:
                continue
            for earlier in asserted[symbol]:
                env._refine_ranges(earlier)
            if isinstance(condition, sympy.Rel):
                asserted[symbol][condition] = None
        env.var_to_range.update(ranges)
        return result

    yield mock.patch.object(env, "_suppress_guards_tls", suppresses_unless_noting)
    yield mock.patch.object(env, "guard_or_defer_runtime_assert", assert_and_note)
