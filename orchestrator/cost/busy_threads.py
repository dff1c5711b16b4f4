"""How many threads of this process want to compute at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

_TASKS = Path("/proc/self/task")
_PAUSE_S = 0.002


def busy_threads(work: Callable[[], object], seconds: float) -> float | None:
    """Return how many threads compute on average while some work is done again and again.

    Counted are threads that run or wait for a processor, so that the answer does not depend on what
    else the machine does. The work has to release Python's lock. None where the system does not
    tell what threads do.

    seconds: at least so long.
    """
    if not _TASKS.is_dir():
        return None
    stop, found = threading.Event(), list[int]()
    own: list[int] = []

    def count() -> None:
        own.append(threading.get_native_id())
        while not stop.wait(_PAUSE_S):
            found.append(_running(own[0]))

    counter = threading.Thread(target=count)
    end = time.monotonic() + seconds
    counter.start()
    try:
        while time.monotonic() < end:
            work()
    finally:
        stop.set()
        counter.join()
    return sum(found) / len(found) if found else None


def _running(but: int) -> int:
    """How many threads run or are ready to, but for one."""
    count = 0
    for task in _TASKS.iterdir():
        if task.name == str(but):
            continue
        try:
            status = (task / "stat").read_text()
        except OSError:  # it has ended
            continue
        count += status.rpartition(")")[2].split()[0] == "R"
    return count
