"""Rules about what a backend says of itself: options, fingerprint, whether it can be used."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from executorch.exir.backend.compile_spec_schema import CompileSpec

from orchestrator.backends.base import Backend
from orchestrator.planner import Layout
from orchestrator.testing.cases import PLAIN, Case
from orchestrator.testing.compare import first_difference
from orchestrator.testing.needs import needs_running
from orchestrator.testing.subject import Subject

_THREADS = (1, 2)


class Answers:
    """Rules that need no program, or hardly any."""

    @pytest.mark.parametrize("member", ["available", "runnable"])
    def test_it_says_whether_it_can_be_used(self, backend: Backend, member: str) -> None:
        """None, or a sentence for people."""
        said: Any = getattr(backend, member)()
        assert said is None or (isinstance(said, str) and said.strip()), (
            f"{member}() returned {said!r}: it has to return None where all is well, or else a "
            "sentence that says what is missing"
        )

    def test_its_tolerance_and_layouts_are_of_their_kinds(self, backend: Backend) -> None:
        """A part of 1, and layouts of each rank."""
        assert 0 <= backend.tolerance < 1, (
            f"tolerance is {backend.tolerance!r}: give it as a part of the largest value, from 0 "
            "to below 1"
        )
        for rank in range(7):
            layouts: Any = backend.boundary_layouts(rank)
            good = isinstance(layouts, tuple) and all(isinstance(e, Layout) for e in layouts)
            assert good and Layout.CONTIGUOUS in layouts, (
                f"boundary_layouts({rank}) returned {layouts!r}: return a tuple of Layout, which "
                "has Layout.CONTIGUOUS, as that is what kernels make"
            )

    @pytest.mark.parametrize("threads", _THREADS)
    def test_options_to_load_with_have_the_right_types(
        self, backend: Backend, threads: int
    ) -> None:
        """Names are str, values int, bool or str, as delegates take them."""
        options: Any = backend.load_options(threads)
        pairs = list(dict(options).items())
        for key, value in pairs:
            assert isinstance(key, str) and key, (
                f"load_options({threads}) has the key {key!r}: names of options are text"
            )
            assert isinstance(value, int | str), (
                f"load_options({threads}) has {key!r}: {value!r}, a {type(value).__name__}: an "
                "option is an int, a bool or a str"
            )
        assert dict(backend.load_options(threads)) == dict(options), (
            f"load_options({threads}) gives another answer when it is asked again: let it depend "
            "on nothing but the number of threads"
        )

    def test_options_to_compile_with_have_the_right_types(self, backend: Backend) -> None:
        """A list of CompileSpec, and the same list each time."""
        specs: Any = backend.compile_specs()
        good = isinstance(specs, list) and all(isinstance(each, CompileSpec) for each in specs)
        assert good, (
            f"compile_specs() returned {specs!r}: return a list of "
            "executorch.exir.backend.compile_spec_schema.CompileSpec"
        )
        for each in specs:
            assert isinstance(each.key, str) and isinstance(each.value, bytes), (
                f"compile_specs() has the option {each!r}: its key has to be a str and its value "
                "bytes"
            )
        assert backend.compile_specs() == specs, (
            "compile_specs() gives another answer when it is asked again: programs and measured "
            "costs would not belong together"
        )

    def test_programs_load_with_its_options_whatever_the_threads(self, subject: Subject) -> None:
        """One thread or two: the same results, but for the order of sums."""
        needs_running(subject)
        for case in PLAIN:
            if subject.taken(case):
                one, two = (self._results(subject, case, threads) for threads in _THREADS)
                problem = first_difference(two, one, subject.tolerance)
                assert problem is None, (
                    f"{case} gives other results on 2 threads than on 1: {problem}. Threads may "
                    "change the order of sums, and nothing else"
                )

    def _results(self, subject: Subject, case: Case, threads: int) -> list[Any]:
        try:
            return subject.native(subject.lowered(case), threads).run("forward", case.draw(1))
        except Exception as error:
            options = dict(subject.backend.load_options(threads))
            raise AssertionError(
                f"{case} cannot be run on {threads} threads, with load_options({threads}) = "
                f"{options}: {error}"
            ) from error

    def test_its_fingerprint_tells_software_and_options(self, backend: Backend) -> None:
        """Measured costs and plans are remembered by it."""
        found: Any = backend.fingerprint()
        assert isinstance(found, str) and found.strip(), (
            f"fingerprint() returned {found!r}: return text that is not empty"
        )
        assert backend.fingerprint() == found, (
            "fingerprint() gives another answer when it is asked again: nothing that is measured "
            "would be found again"
        )
        assert backend.versions() in found, (
            f"fingerprint() is {found!r}, without versions() ({backend.versions()!r}): costs of "
            "other software would be mixed in"
        )

    def test_its_fingerprint_changes_with_its_options(self, backend: Backend) -> None:
        """Costs that were measured with other options do not hold."""
        other: Any = copy.copy(backend)
        specs = [*backend.compile_specs(), CompileSpec("of the kit", b"1")]
        other.compile_specs = lambda: specs
        assert other.fingerprint() != backend.fingerprint(), (
            f"fingerprint() is {backend.fingerprint()!r} with other compile_specs() too: have it "
            "hold them, as Backend.fingerprint does, or costs of other options would be mixed in"
        )
