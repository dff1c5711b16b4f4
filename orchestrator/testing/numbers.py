"""Rules about programs that run: their numbers are those of eager PyTorch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.fx import Node

from orchestrator.cost.busy_threads import busy_threads
from orchestrator.graph.queries import tensor_results
from orchestrator.planner import Layout
from orchestrator.testing.cases import AGAIN, DYNAMIC, HEAVY, LAYOUTS, PLAIN, Case
from orchestrator.testing.compare import eager_results, first_difference
from orchestrator.testing.needs import needs_running
from orchestrator.testing.subject import Lowered, Subject

_SEEDS = (1, 2)
_TRIALS = 3
_BUSY_S = 0.3
_MOST_THREADS = 1.5


class Numbers:
    """Rules that need programs to run."""

    @pytest.mark.parametrize("case", PLAIN, ids=str)
    def test_results_are_those_of_eager(self, subject: Subject, case: Case) -> None:
        """Of this backend, with kernels for what it does not take."""
        needs_running(subject, case)
        self._runs_right(subject, case, subject.lowered(case), "")

    @pytest.mark.parametrize("case", LAYOUTS, ids=str)
    def test_images_in_channels_last_come_out_right(self, subject: Subject, case: Case) -> None:
        """At the inputs, between calls of it, and between calls and kernels."""
        needs_running(subject, case)
        hint = (
            "; boundary_layouts(4) names "
            f"{[each.value for each in subject.backend.boundary_layouts(4)]}: name only those "
            "that every op it takes gets right"
        )
        self._runs_right(subject, case, subject.lowered(case), hint)
        self._runs_right(subject, case, subject.lowered_apart(case), hint)
        self._runs_right(subject, case, subject.lowered_with_gaps(case), hint)

    def test_the_layouts_that_it_names_are_tried(self, subject: Subject) -> None:
        """Some call gets an image in channels-last, where the backend names it."""
        needs_running(subject)
        if Layout.CHANNELS_LAST not in subject.backend.boundary_layouts(4):
            pytest.skip(f"{subject.backend.name} does not name channels-last")
        images = [case for case in (*PLAIN, *LAYOUTS) if any(map(_is_image, subject.taken(case)))]
        if not images:
            pytest.skip(f"{subject.backend.name} takes no op on images of the kit's models")
        got = {
            tensor.layout
            for case in LAYOUTS
            for lowered in (subject.lowered(case), subject.lowered_apart(case))
            for part in lowered.program.report.methods[0].partitions
            for tensor in part.inputs
        }
        assert Layout.CHANNELS_LAST.value in got, (
            "boundary_layouts(4) names channels_last, and no call over the kit's models gets an "
            "image so: does propose reject what is in that dim order?"
        )

    @pytest.mark.parametrize("case", DYNAMIC, ids=str)
    def test_sizes_may_differ_from_run_to_run(self, subject: Subject, case: Case) -> None:
        """One program at several sizes; nodes that cannot have such are to be rejected."""
        needs_running(subject, case)
        hint = ": reject nodes whose sizes are dynamic in a way that the delegate does not take"
        self._runs_right(subject, case, subject.lowered(case), hint)
        self._runs_right(subject, case, subject.lowered_apart(case), hint)

    @pytest.mark.parametrize("case", PLAIN, ids=str)
    def test_calls_read_results_of_calls_and_kernels(self, subject: Subject, case: Case) -> None:
        """Several calls in a method: each node in its own, and with kernels in between."""
        needs_running(subject, case)
        hint = " where it has several calls: does one keep what belongs to another?"
        self._runs_right(subject, case, subject.lowered_apart(case), hint)
        self._runs_right(subject, case, subject.lowered_with_gaps(case), hint)

    @pytest.mark.parametrize("case", PLAIN, ids=str)
    def test_running_again_gives_the_same_numbers(self, subject: Subject, case: Case) -> None:
        """Bit by bit, and another input in between leaves nothing behind."""
        needs_running(subject, case)
        native = subject.native(subject.lowered(case), threads=1)
        inputs, other = case.draw(1), case.draw(2)
        once = [_copied(each) for each in native.run("forward", inputs)]
        native.run("forward", other)
        again = native.run("forward", inputs)
        assert _are_same(once, again), (
            f"{case} gives other numbers when it runs again on one thread: results must depend "
            "on nothing but the inputs"
        )

    @pytest.mark.parametrize("case", AGAIN, ids=str)
    def test_lowering_again_gives_the_same_numbers(self, subject: Subject, case: Case) -> None:
        """Bit by bit, on one thread, whether or not the bytes of the programs are the same."""
        needs_running(subject, case)
        once, again = (
            subject.native(subject.lowered(case, anew=anew), threads=1).run("forward", case.draw(1))
            for anew in (False, True)
        )
        assert _are_same(once, again), (
            f"{case} gives other numbers when it is lowered again: let preprocess depend on "
            "nothing but the program and the compile specs"
        )

    def test_it_computes_with_no_more_threads_than_it_is_told(self, subject: Subject) -> None:
        """One thread: no more than one computes at a time, over runs of work worth sharing."""
        needs_running(subject)
        backend = subject.backend
        if not backend.limits_threads:
            pytest.skip(f"{backend.name} says that it does not limit threads")
        heavy = [case for case in HEAVY if subject.taken(case)]
        if not heavy:
            pytest.skip(f"{backend.name} takes no heavy op of the kit's models")
        for case in heavy:
            inputs = case.draw(1)
            native = subject.native(subject.lowered(case), threads=1)
            native.run("forward", inputs)
            found = []
            for _ in range(_TRIALS):  # threads of others, such as PyTorch's, may still be about
                count = busy_threads(lambda: native.time("forward", inputs, runs=3), _BUSY_S)  # noqa: B023
                if count is None:
                    pytest.skip("this system does not tell which threads of a process compute")
                found.append(count)
                if count <= _MOST_THREADS:
                    break
            assert min(found) <= _MOST_THREADS, (
                f"{case} was told to use 1 thread, and {min(found):.1f} compute at a time: have "
                "the delegate go by num_threads (and load_options not set it), or say "
                "limits_threads = False"
            )

    def _runs_right(self, subject: Subject, case: Case, lowered: Lowered, hint: str) -> None:
        native = subject.native(lowered)
        calls = f"Calls: {[list(call) for call in lowered.calls]}"
        for size, seed in itertools.product(case.sizes, _SEEDS):
            inputs = case.draw(seed, size)
            what = f"{case}{f' at size {size}' if len(case.sizes) > 1 else ''}"
            where = f"in {len(lowered.calls)} calls"
            try:
                found = native.run("forward", inputs, relayout=True)
            except Exception as error:
                raise AssertionError(
                    f"{what} cannot be run {where}: {error}{hint}. {calls}"
                ) from error
            expected = eager_results(case.eager(), inputs)
            problem = first_difference(found, expected, subject.tolerance)
            assert problem is None, (
                f"{what} differs from eager PyTorch {where}: {problem}{hint}. {calls}"
            )


def _is_image(node: Node) -> bool:
    return any(value.dim() == 4 for value in tensor_results(node))


def _are_same(once: Sequence[object], again: Sequence[object]) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in zip(once, again, strict=True)
    )


def _copied(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value
