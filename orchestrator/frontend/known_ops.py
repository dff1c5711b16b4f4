"""What torch and ExecuTorch look up about ops each time a program is lowered, looked up once.

Each `run_decompositions` asks the dispatcher for every composite op, and registers handlers for
most of them, some fifteen for each; ExecuTorch calls it three times per program, with tables of how
ops are decomposed that it makes anew. For small programs that is nine tenths of the time to lower
them. Nothing of that changes but with the ops and decompositions that are registered.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
import torch._export.utils as export_utils
from executorch.exir.program import _program
from torch._C import DispatchKey
from torch._decomp import global_decomposition_table
from torch._subclasses.fake_impls import op_implementations_dict
from torch.export import decomp_utils, exported_program
from torch.export.decomp_utils import CustomDecompTable


class _Kept:
    """What functions gave since ops or decompositions were registered last."""

    def __init__(self) -> None:
        self._registered: Any = None
        self._results: dict[Any, Any] = {}

    def forget_if_registered(self) -> None:
        """Forget all if there are other ops or decompositions than there were."""
        registrations = torch._C._dispatch_get_registrations_for_dispatch_key
        registered = (
            registrations(""),
            registrations("CompositeImplicitAutograd"),
            *map(len, global_decomposition_table.values()),
        )
        if registered != self._registered:
            self._registered = registered
            self._results.clear()

    def once(
        self, function: Callable[..., Any], key_of: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        """Return a function that gives what it gave before for the same arguments.

        key_of: what stands for arguments that have no hash.
        """

        @functools.wraps(function)
        def kept(*arguments: Any) -> Any:
            key = (function, key_of(*arguments) if key_of else arguments)
            if key not in self._results:
                self._results[key] = function(*arguments)
            return self._results[key]

        return kept


_KEPT = _Kept()


def _copied(made: CustomDecompTable) -> CustomDecompTable:
    """Does what `CustomDecompTable.copy` does, which makes the default table first."""
    table = CustomDecompTable.__new__(CustomDecompTable)
    table.decomp_table = made.decomp_table.copy()
    table.deleted_custom_ops = made.deleted_custom_ops.copy()
    table.has_materialized = made.has_materialized
    return table


_Overriding = Callable[[Mapping[Any, Any]], AbstractContextManager[None]]


class _HandlersMadeOnce:
    """Does what `_override_composite_implicit_decomp` does, with handlers that it made before.

    Inside, composite ops have other kernels in Python's dispatcher, and a rule for fake tensors.
    """

    def __init__(self, override: _Overriding) -> None:
        self._override = override
        # By op: its kernels before, those inside, and the rule.
        self._made: dict[Any, tuple[dict[Any, Any], dict[Any, Any], Any]] = {}

    @contextlib.contextmanager
    def __call__(self, wanted: Mapping[Any, Any]) -> Iterator[None]:
        saved: dict[Any, dict[Any, Any]] = {}
        try:
            for op, decomposition in wanted.items():
                before, inside, rule = self._handlers(op, decomposition)
                saved[op] = before
                # All that depends on what the op is to be decomposed by.
                self._set(op, {**inside, DispatchKey.CompositeImplicitAutograd: decomposition})
                if rule is not None:
                    op_implementations_dict.setdefault(op, rule)
            yield
        finally:
            for op, kernels in saved.items():
                self._set(op, kernels)
                op_implementations_dict.pop(op, None)

    def _handlers(self, op: Any, decomposition: Any) -> tuple[dict[Any, Any], dict[Any, Any], Any]:
        known = self._made.get(op)
        if known is None or known[0] != op.py_kernels:
            before = dict(op.py_kernels)
            with self._override({op: decomposition}):
                known = (before, dict(op.py_kernels), op_implementations_dict.get(op))
            self._made[op] = known
        return known

    @staticmethod
    def _set(op: Any, kernels: Mapping[Any, Any]) -> None:
        op.py_kernels.clear()
        op.py_kernels.update(kernels)
        op._dispatch_cache.clear()


_override_once = functools.cache(_HandlersMadeOnce)


def ops_looked_up_once() -> Iterator[AbstractContextManager[Any]]:
    """The patches. If a private name is missing, that optimisation is skipped."""
    _KEPT.forget_if_registered()
    # The modules that took a name over at import look it up among their own.
    for name, modules in (
        ("_materialize_cpp_cia_ops", (export_utils,)),
        ("_collect_all_valid_cia_ops", (export_utils, exported_program, decomp_utils)),
        ("_is_preservable_cia_op", (exported_program,)),
    ):
        function = getattr(modules[0], name, None)
        if function is not None:
            kept = _KEPT.once(function)
            for module in modules:
                yield mock.patch.object(module, name, kept)
    schema_of = getattr(_program, "_pybind_schema_to_native_schema", None)
    if schema_of is not None:
        yield mock.patch.object(_program, schema_of.__name__, _KEPT.once(schema_of, key_of=str))
    table_of = getattr(_program, "_default_decomposition_table", None)
    if table_of is not None:
        made = _KEPT.once(table_of)
        yield mock.patch.object(_program, table_of.__name__, lambda *how: _copied(made(*how)))
    override = getattr(exported_program, "_override_composite_implicit_decomp", None)
    if override is not None:
        yield mock.patch.object(exported_program, override.__name__, _override_once(override))
