"""The fuzzer starts from a program for each op that has a rule."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fuzz.seeds import (
    MadeFromNothing,
    half_caches,
    integer_weights,
    made_from_nothing,
    ops_with_random_graphs,
    quantized_activations,
    static_layers,
    write_program,
)
from ggml_delegate.in_place import in_place_results
from ggml_delegate.registry import HALF_DTYPES
from tests.differential.generate import random_graph
from tests.harness.activations import WAYS
from tests.harness.integer_weights import SCHEMES


@pytest.mark.parametrize("name", ops_with_random_graphs())
def test_an_op_that_reads_tensors_has_a_random_graph(name: str) -> None:
    assert random_graph(random.Random(0), target=name).steps


def test_ops_that_read_no_tensor_are_delegated(tmp_path: Path) -> None:
    calls = write_program(tmp_path, made_from_nothing(), "nothing")
    assert calls == len(list(tmp_path.iterdir())) >= len(MadeFromNothing.targets)


def test_weights_of_integers_are_delegated(tmp_path: Path) -> None:
    calls = write_program(tmp_path, integer_weights(), "integers")
    assert calls == 2 * len(SCHEMES)


def test_quantized_activations_are_delegated(tmp_path: Path) -> None:
    assert write_program(tmp_path, quantized_activations(), "activations") >= len(WAYS)


def test_static_layers_are_delegated(tmp_path: Path) -> None:
    assert write_program(tmp_path, static_layers(), "static") == 1


def test_caches_of_half_types_stay_where_they_are(tmp_path: Path) -> None:
    calls = write_program(tmp_path, half_caches(), "caches")
    updates = [in_place_results(file.read_bytes()) for file in tmp_path.iterdir()]
    assert len(updates) == calls == 2 * len(HALF_DTYPES)
    assert [len(each) for each in updates] == [2] * calls
