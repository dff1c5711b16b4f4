"""Networks with real weights answer, lowered, what is known to be right; -s shows the answers."""

from __future__ import annotations

import pytest

from examples.real import NETWORKS
from examples.real.quantized import QUANTIZED
from tests.harness.real import Compared, lowered, parts

FLOAT_TOLERANCE = 1e-4
# One value rounded to the next integer goes on through all layers: MiniLM's embeddings moved
# by 1e-6 move its quantized results by 4e-2, in eager alone.
QUANTIZED_TOLERANCE = 1e-1


def _assert_answers_rightly(name: str, run: dict[str, Compared], tolerance: float) -> None:
    """Puts a network's question to lowered parts; every call is compared with eager."""
    answer = NETWORKS[name].ask(run)
    print(f"{NETWORKS[name].question} {answer.text}")
    for part, compared in run.items():
        print(f"{part}: {compared.calls} calls, off by {compared.error:.1e} of the output's scale")
    assert answer.right, answer.text
    for part, compared in run.items():
        assert compared.calls > 0, f"{part} was not asked"
        assert compared.error <= tolerance, f"{part} is off by {compared.error:.1e}"


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_as_is_known(name: str) -> None:
    run = {part: lowered(each) for part, each in parts(name).items()}
    _assert_answers_rightly(name, run, FLOAT_TOLERANCE)


@pytest.mark.parametrize(
    ("name", "way"), [(name, way) for name, ways in QUANTIZED.items() for way in ways]
)
def test_answers_as_is_known_when_quantized(name: str, way: str) -> None:
    run = {part: lowered(each) for part, each in QUANTIZED[name][way]().items()}
    _assert_answers_rightly(name, run, QUANTIZED_TOLERANCE)
