"""Keeps the sizes that a model was exported with open as they are while it is lowered."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import mock

import sympy
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv


@contextlib.contextmanager
def open_sizes_kept(programs: Iterable[ExportedProgram]) -> Iterator[None]:
    """Inside, no pass narrows what a size may be.

    Passes compute with fake tensors, and some ops' fake versions ask about sizes (a convolution,
    whether a batch is below 16). PyTorch takes the answer for the example's size as a condition
    from then on, and the program would take no other batch. What has to be asked was asked, and
    written into the program, when it was exported.

    Sizes that depend on data are made anew by every pass, and what the program asserts of them
    (torch._check) is noted of the new ones.
    """
    values = [node.meta.get("val") for each in programs for node in each.graph.nodes]
    modes = [getattr(value, "fake_mode", None) for value in values]
    envs = {id(mode.shape_env): mode.shape_env for mode in modes if mode and mode.shape_env}
    with contextlib.ExitStack() as stack:
        for env in envs.values():
            stack.enter_context(env.suppress_guards())
            stack.enter_context(_assertions_noted(env))
        yield


@contextlib.contextmanager
def _assertions_noted(env: ShapeEnv) -> Iterator[None]:
    """Inside, what is asserted of sizes that depend on data counts, suppressed guards or not.

    What may be asked of them then has an answer, and they have bounds, also by what was asserted
    before: of a < b and then b <= 9, PyTorch alone takes no bound for a. The ranges of inputs'
    sizes, which have a value in the example, stay as they are.
    """
    assert_at_run_time = env.guard_or_defer_runtime_assert
    asserted: defaultdict[sympy.Symbol, list[sympy.Expr]] = defaultdict(list)

    def assert_and_note(condition: sympy.Expr, *args: Any, **kwargs: Any) -> bool:
        known = env.backed_var_to_val.keys()
        unknown = condition.free_symbols - known
        if not unknown:
            return bool(assert_at_run_time(condition, *args, **kwargs))
        ranges = {symbol: it for symbol, it in env.var_to_range.items() if symbol in known}
        with mock.patch.object(env, "_suppress_guards_tls", lambda: False):
            result = bool(assert_at_run_time(condition, *args, **kwargs))
        for symbol in unknown:
            for earlier in asserted[symbol]:
                env._refine_ranges(earlier)
            if isinstance(condition, sympy.Rel):
                asserted[symbol].append(condition)
        env.var_to_range.update(ranges)
        return result

    with mock.patch.object(env, "guard_or_defer_runtime_assert", assert_and_note):
        yield
