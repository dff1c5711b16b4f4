"""Replacing attributes of other packages for as long as anybody needs it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any


class SharedPatches:
    """Patches that are in place while anybody uses them.

    Users are counted: the first one to enter applies the patches, the last one to leave removes
    them. A plain `mock.patch` in each of two threads would not do: it restores what it found, so
    that the thread that entered second, if it leaves last, restores the other one's patch for good.

    make: returns the patches to apply, for example `mock.patch.object(...)`; called when the first
        user enters.
    """

    def __init__(self, make: Callable[[], Iterable[AbstractContextManager[Any]]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._users = 0
        self._are_kept = False
        self._applied = ExitStack()

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the patches are in place; may be nested, and used by several threads at once."""
        with self._lock:
            self._add_user()
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._applied.close()

    def keep(self) -> None:
        """Leave the patches in place for as long as the process runs; may be called again.

        For what other packages run when no code of ours is around it.
        """
        with self._lock:
            if not self._are_kept:
                self._add_user()
                self._are_kept = True

    def _add_user(self) -> None:
        if self._users == 0:
            self._apply()
        self._users += 1

    def _apply(self) -> None:
        with ExitStack() as stack:
            for patch in self._make():
                stack.enter_context(patch)
            self._applied = stack.pop_all()
