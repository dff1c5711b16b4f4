"""Replacing attributes of other packages for as long as anybody needs it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any


class SharedPatches:
    """Patches that the first user applies and the last one takes back.

    A patch of one user alone puts back what it found. Where two threads' uses overlap and the one
    that came first also ends first, the other would put back the first one's patch, for good.

    make: returns the patches to apply, for example `mock.patch.object(...)`; called once for the
        first of the users that overlap.
    """

    def __init__(self, make: Callable[[], Iterable[AbstractContextManager[Any]]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._users = 0
        self._applied = ExitStack()

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the patches are in place; may be nested, and used by several threads at once."""
        with self._lock:
            if self._users == 0:
                self._apply()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._applied.close()

    def _apply(self) -> None:
        with ExitStack() as stack:
            for patch in self._make():
                stack.enter_context(patch)
            self._applied = stack.pop_all()
