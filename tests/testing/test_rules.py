"""Each rule of the test kit fails for a backend that breaks it, and says what is wrong."""

from __future__ import annotations

import inspect
import itertools
import threading
from typing import Any

import pytest
from executorch.backends.xnnpack.xnnpack_preprocess import XnnpackBackend

from orchestrator.backends import Backend
from orchestrator.native import NativeProgram
from orchestrator.testing import BackendTests
from orchestrator.testing.cases import ALL
from orchestrator.testing.subject import Lowered, Subject
from tests.testing import broken

CASES = {str(case): case for case in ALL}

# The rule without "test_", who breaks it, of which model or what else it is asked about, and a part
# of what it says then.
FAULTS: tuple[tuple[str, type[Backend], dict[str, Any], str], ...] = (
    (
        "it_says_whether_it_can_be_used",
        broken.SaysNothing,
        {"member": "available"},
        r"available\(\) returned '': it has to return None where all is well",
    ),
    (
        "it_says_whether_it_can_be_used",
        broken.RunsByYes,
        {"member": "runnable"},
        r"runnable\(\) returned True: it has to return None where all is well",
    ),
    (
        "its_tolerance_and_layouts_are_of_their_kinds",
        broken.TolerancePercent,
        {},
        r"tolerance is 5\.0: give it as a part of the largest value",
    ),
    (
        "its_tolerance_and_layouts_are_of_their_kinds",
        broken.NoLayouts,
        {},
        r"boundary_layouts\(4\) returned .*CHANNELS_LAST.*which has Layout\.CONTIGUOUS",
    ),
    (
        "options_to_load_with_have_the_right_types",
        broken.FractionToLoad,
        {"threads": 2},
        r"load_options\(2\) has 'share': 0\.5, a float: an option is an int, a bool or a str",
    ),
    (
        "options_to_load_with_have_the_right_types",
        broken.OtherOptionsToLoad,
        {"threads": 1},
        r"load_options\(1\) gives another answer when it is asked again",
    ),
    (
        "options_to_compile_with_have_the_right_types",
        broken.TextToCompile,
        {},
        r"compile_specs\(\) has the option .*'half'.*its key has to be a str and its value bytes",
    ),
    (
        "options_to_compile_with_have_the_right_types",
        broken.OtherOptionsToCompile,
        {},
        r"compile_specs\(\) gives another answer when it is asked again",
    ),
    (
        "programs_load_with_its_options_whatever_the_threads",
        broken.LongOption,
        {},
        r"sums cannot be run on 2 threads, with load_options\(2\) = \{'cores .*",
    ),
    (
        "programs_load_with_its_options_whatever_the_threads",
        broken.OtherByThreads,
        {},
        r"sums gives other results on 2 threads than on 1: result 0: off by 1\.0e-02",
    ),
    (
        "its_fingerprint_tells_software_and_options",
        broken.NamesNoSoftware,
        {},
        r"fingerprint\(\) is 'toy', without versions\(\) \('executorch",
    ),
    (
        "its_fingerprint_tells_software_and_options",
        broken.NewFingerprints,
        {},
        r"fingerprint\(\) gives another answer when it is asked again",
    ),
    (
        "its_fingerprint_changes_with_its_options",
        broken.NamesNoOptions,
        {},
        r"fingerprint\(\) is 'executorch.*' with other compile_specs\(\) too",
    ),
    (
        "it_takes_something",
        broken.TakesNothing,
        {},
        r"toy takes no node of any model of the kit",
    ),
    (
        "what_it_takes_lowers",
        broken.TakesTotals,
        {"case": "reductions"},
        r"propose takes what preprocess refuses, in reductions, in as few calls as can be: .*"
        r"aten_sum_dim_int_list",
    ),
    (
        "what_it_takes_lowers",
        broken.RefusesAlone,
        {"case": "sums"},
        r"\['aten_mul_tensor'.*\] of sums, which propose takes, are in no delegate when lowered in "
        r"as few calls as can be: check_segment refuses them even alone",
    ),
    (
        "each_node_that_it_takes_lowers_alone",
        broken.RefusesOne,
        {"case": "image"},
        r"propose takes what preprocess refuses, in image, alone: .*one op is not worth it",
    ),
    (
        "what_is_divisible_lowers_in_any_cut",
        broken.RefusesTwo,
        {"case": "sums"},
        r"propose takes what preprocess refuses, in sums, in calls of 2 nodes: .*two ops do not "
        r"get on",
    ),
    (
        "it_gets_no_layouts_that_it_does_not_name",
        broken.OtherLayoutsLater,
        {"case": "image sums in channels-last"},
        r"in image sums in channels-last, a call gets or gives a tensor in the dim order "
        r"\(0, 2, 3, 1\), where boundary_layouts\(4\) names \['contiguous'\]",
    ),
    (
        "calls_that_it_refuses_stay_refused",
        broken.RefusesPairs,
        {"case": "sums"},
        r"check_segment refuses \[.*\] \(toy takes no pairs\) and allows \[.*\], which holds them",
    ),
    (
        "the_same_question_has_the_same_answer",
        broken.EverySecondTime,
        {"case": "sums"},
        r"propose answers differently when it is asked about sums again: .*toy is tired",
    ),
    (
        "lowering_again_gives_the_same_bytes",
        broken.DatedBytes,
        {"case": "sums"},
        r"lowering sums twice gives different bytes",
    ),
    (
        "it_answers_without_values_of_weights",
        broken.ReadsWeights,
        {"case": "image"},
        r"propose fails on image with weights or without their values, as ExecuTorch plans: "
        r"\w*DataDependent",
    ),
    (
        "it_answers_without_values_of_weights",
        broken.WaitsForWeights,
        {"case": "image"},
        r"propose answers differently where the weights of image have values: .*",
    ),
    (
        "asking_it_leaves_the_program_as_it_is",
        broken.SwapsTerms,
        {"case": "sums"},
        r"propose changes the graph of sums \(inputs_0, inputs_1, aten_add_tensor, .*\): work on",
    ),
    (
        "asking_it_leaves_the_program_as_it_is",
        broken.RoundsWeights,
        {"case": "image"},
        r"propose changes the weights of image",
    ),
    (
        "results_are_those_of_eager",
        broken.TakesIntegers,
        {"case": "integers"},
        r"integers differs from eager PyTorch in 1 calls: result 0: \d+ of 21 elements are wrong",
    ),
    (
        "images_in_channels_last_come_out_right",
        broken.SoftmaxOfImages,
        {"case": "image ops in channels-last"},
        r"image ops in channels-last differs from eager PyTorch in .*: off by .*; "
        r"boundary_layouts\(4\) names \['contiguous', 'channels_last'\]: name only those",
    ),
    (
        "the_layouts_that_it_names_are_tried",
        broken.RejectsWhatItNames,
        {},
        r"boundary_layouts\(4\) names channels_last, and no call over the kit's models gets an "
        r"image so",
    ),
    (
        "sizes_may_differ_from_run_to_run",
        broken.OldSizes,
        {"case": "sums, dynamic batch"},
        r"sums, dynamic batch at size 1 differs from eager PyTorch in \d calls: result 0: sizes "
        r"\[3, 5\], expected \[1, 5\]: reject nodes whose sizes are dynamic",
    ),
    (
        "calls_read_results_of_calls_and_kernels",
        broken.SharesCode,
        {"case": "sums"},
        r"sums differs from eager PyTorch in \d calls: result 0: off by .* where it has several "
        r"calls: does one keep what belongs to another\?",
    ),
    (
        "running_again_gives_the_same_numbers",
        broken.Drifts,
        {"case": "sums"},
        r"sums gives other numbers when it runs again on one thread",
    ),
    (
        "lowering_again_gives_the_same_numbers",
        broken.OtherEachTime,
        {"case": "sums"},
        r"sums gives other numbers when it is lowered again",
    ),
    (
        "it_computes_with_no_more_threads_than_it_is_told",
        broken.HasHelpers,
        {},
        r"wide sums was told to use 1 thread, and \d\.\d compute at a time",
    ),
)


class Distorted:
    """A program whose results change on their way back."""

    def __init__(self, program: NativeProgram, backend: broken.Broken, threads: int) -> None:
        self._program, self._backend, self._threads = program, backend, threads
        self._runs = itertools.count()

    def run(self, method: str, inputs: Any, **options: Any) -> list[Any]:
        results = self._program.run(method, inputs, **options)
        return self._backend.distort(results, next(self._runs), self._threads)

    def time(self, method: str, inputs: Any, *, runs: int) -> list[int]:
        done = threading.Event()

        def help_() -> None:
            while not done.is_set():
                self._backend.help()

        helper = threading.Thread(target=help_)
        helper.start()
        try:
            return self._program.time(method, inputs, runs=runs)
        finally:
            done.set()
            helper.join()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets what computes for the toys, XNNPACK's delegate, have the faults of one of them."""
    well, native = XnnpackBackend.preprocess, Subject.native

    def install(backend: broken.Broken) -> None:
        def compile_(program: Any, specs: Any) -> Any:
            return backend.compile(program, specs, well)

        def load(self: Subject, lowered: Lowered, threads: int = 0) -> Any:
            return Distorted(native(self, lowered, threads), backend, threads)

        monkeypatch.setattr(XnnpackBackend, "preprocess", staticmethod(compile_))
        monkeypatch.setattr(Subject, "native", load)

    return install


@pytest.mark.parametrize(
    ("rule", "kind", "about", "message"),
    FAULTS,
    ids=[f"{rule}-{kind.__name__}" for rule, kind, _, _ in FAULTS],
)
def test_a_rule_fails_where_it_is_broken(
    faults: Any, rule: str, kind: type[Backend], about: dict[str, Any], message: str
) -> None:
    backend = kind()
    if isinstance(backend, broken.Broken):
        faults(backend)
    test = getattr(BackendTests(), f"test_{rule}")
    given = {
        "backend": backend,
        "subject": Subject.of(backend),
        **{key: CASES[value] if key == "case" else value for key, value in about.items()},
    }
    wanted = inspect.signature(test).parameters
    with pytest.raises(AssertionError, match=f"^{message}"):
        test(**{key: value for key, value in given.items() if key in wanted})


def test_every_rule_is_broken_by_somebody() -> None:
    rules = {name for name in dir(BackendTests) if name.startswith("test_")}
    assert rules == {f"test_{rule}" for rule, *_ in FAULTS}
