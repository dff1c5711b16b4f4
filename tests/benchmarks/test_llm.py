"""How a language model is compared with llama.cpp: with decoders that are tables of scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import llm
from benchmarks.interleave import Timing
from benchmarks.llm import OURS, PLAIN, REPACKED, Footprint, Speed, agreement, missed, speed
from benchmarks.llm_decoders import common, greedy, one_by_one

VOCABULARY = 100


def _counts(step: Callable[[int], int]) -> Callable[[Sequence[int], int], NDArray[np.float32]]:
    """A decoder that prefers the last token plus `step` of its position, by 2 to its next best."""
    held: list[int] = []

    def decode(tokens: Sequence[int], first: int) -> NDArray[np.float32]:
        assert first <= len(held), "a position was left out"
        held[first:] = tokens
        scores = np.zeros(VOCABULARY, np.float32)
        scores[(held[-1] + step(len(held))) % VOCABULARY] = 2
        return scores

    return decode


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 5, 3], 1), ([1], [1], 1)],
)
def test_what_two_sequences_have_in_common(
    first: list[int], second: list[int], expected: int
) -> None:
    assert common(first, second) == expected
    assert common(second, first) == expected


def test_greedy_tokens_follow_the_prompt_one_by_one() -> None:
    assert greedy(_counts(lambda _: 1), [4, 5], 3) == [6, 7, 8]


def test_decoders_that_agree_on_every_token() -> None:
    found = agreement("text", [1, 2], _counts(lambda _: 1), _counts(lambda _: 1))
    assert (found.alike, found.of, found.ours, found.theirs) == (64, 64, None, None)


def test_the_first_token_that_differs_is_found_with_how_sure_each_is() -> None:
    theirs = _counts(lambda length: 1 if length < 12 else 3)
    found = agreement("text", [1, 2], _counts(lambda _: 1), theirs)
    assert (found.alike, found.ours, found.theirs) == (10, 2.0, 2.0)


def test_ours_is_compared_with_the_faster_of_llama_cpps() -> None:
    found = {
        OURS: Timing((1.0, 2.0, 1.0, 2.0)),
        PLAIN: Timing((8.0, 8.0, 8.0, 8.0)),
        REPACKED: Timing((3.0, 6.0, 3.0, 6.0)),
    }
    row = speed("token", 1, 2, found)
    assert (row.gain, row.spread) == (3.0, 0.0)
    assert row.times_ms == {OURS: 1.5, PLAIN: 8.0, REPACKED: 4.5}


def _speed(gain: float) -> Speed:
    return Speed("token", 1, 1, {}, gain, 0.1)


def _footprints(load_ms: float, private: float, file: int) -> list[Footprint]:
    theirs = [Footprint(PLAIN, 500.0, 100.0, 1000), Footprint(REPACKED, 900.0, 300.0, 1000)]
    return [Footprint(OURS, load_ms, private, file), *theirs]


def test_what_meets_its_targets_is_not_missed() -> None:
    assert missed([_speed(1.0)], _footprints(100.0, 120.0, 1050)) == []


@pytest.mark.parametrize(
    ("gain", "footprints", "named"),
    [
        (0.99, (1.0, 1.0, 1), "token, 1 threads: 0.99"),
        (1.0, (101.0, 1.0, 1), "loading: 101 ms"),
        (1.0, (1.0, 121.0, 1), "private memory: 1.21"),  # of the smaller of llama.cpp's
        (1.0, (1.0, 1.0, 1051), "the file: 1.051"),
    ],
)
def test_each_target_is_missed_alone(
    gain: float, footprints: tuple[float, float, int], named: str
) -> None:
    (line,) = missed([_speed(gain)], _footprints(*footprints))
    assert named in line


def test_without_llama_cpp_the_benchmark_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent() -> None:
        raise ImportError("No module named 'llama_cpp'")

    monkeypatch.setattr(llm, "llama_cpp", absent)
    monkeypatch.setattr("sys.argv", ["llm.py"])
    with pytest.raises(SystemExit, match="pip install --target FOLDER llama-cpp-python"):
        llm.main()


def test_a_decoder_run_one_by_one_gives_the_same_tokens() -> None:
    runs = []

    def decode(tokens: Sequence[int], first: int) -> NDArray[np.float32]:
        runs.append((tuple(tokens), first))
        return np.zeros(VOCABULARY, np.float32)

    one_by_one(decode)([7, 8, 9], 4)
    assert runs == [((7,), 4), ((8,), 5), ((9,), 6)]
