"""Patches are taken back when the last user is done, whoever comes and goes in whatever order."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from unittest import mock

import pytest

from orchestrator.frontend.shared_patches import SharedPatches


def _shared(target: SimpleNamespace) -> SharedPatches:
    return SharedPatches(lambda: [mock.patch.object(target, "value", target.value + 1)])


def test_uses_of_two_threads_that_overlap_without_nesting() -> None:
    target = SimpleNamespace(value=1)
    shared = _shared(target)
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    seen = []

    def first() -> None:
        with shared.applied():
            first_is_in.set()
            assert second_is_in.wait(10)
        seen.append(target.value)
        first_is_out.set()

    def second() -> None:
        assert first_is_in.wait(10)
        with shared.applied():
            seen.append(target.value)
            second_is_in.set()
            assert first_is_out.wait(10)
            seen.append(target.value)

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [2, 2, 2]
    assert target.value == 1


def test_uses_nest_and_may_come_again() -> None:
    target = SimpleNamespace(value=1)
    shared = _shared(target)
    for _ in range(2):
        with shared.applied(), shared.applied():
            assert target.value == 2
        assert target.value == 1


def test_patches_that_fail_leave_nothing_behind() -> None:
    target = SimpleNamespace(value=1)
    shared = SharedPatches(
        lambda: [mock.patch.object(target, "value", 2), mock.patch.object(target, "missing", 2)]
    )
    for _ in range(2):
        with pytest.raises(AttributeError, match="missing"), shared.applied():
            pass
        assert target.value == 1


def test_patches_that_are_kept_outlive_their_users() -> None:
    target = SimpleNamespace(value=1)
    shared = _shared(target)
    with shared.applied():
        shared.keep()
        shared.keep()
    assert target.value == 2
    with shared.applied():
        assert target.value == 2
    assert target.value == 2
