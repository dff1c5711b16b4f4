"""What programs return."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.export import export
from torch.utils import _pytree as pytree

from orchestrator import lower
from orchestrator.frontend.passes import plain_results
from tests.harness.pte import Function

X = torch.tensor([[3.0, 1.0, 2.0], [0.5, 4.0, -1.0]])


class Both(NamedTuple):
    """A named tuple of a user, which pytree knows no name for."""

    twice: Tensor
    pair: Any


RESULTS: dict[str, Callable[[Tensor], Any]] = {
    "max": lambda x: torch.max(x, 1),
    "min": lambda x: x.min(0),
    "topk": lambda x: x.topk(2),
    "within a dict": lambda x: {"a": x.max(1), "b": [x + 1, x.min(1)]},
    "of a user, nested": lambda x: Both(x * 2, (x.max(1), x.sin())),
}


@pytest.mark.parametrize("name", RESULTS)
def test_named_tuples_are_returned(name: str) -> None:
    model = Function(RESULTS[name])
    program = lower(model, (X,))
    got, wanted = program(X), model(X)
    assert pytree.tree_structure(got) == pytree.tree_structure(wanted)
    for value, want in zip(pytree.tree_leaves(got), pytree.tree_leaves(wanted), strict=True):
        torch.testing.assert_close(value, want)


@pytest.mark.parametrize("name", RESULTS)
def test_only_named_tuples_are_replaced(name: str) -> None:
    program = export(Function(RESULTS[name]), (X,))
    before = program.call_spec.out_spec
    spec = plain_results(program).call_spec.out_spec
    assert program.call_spec.out_spec is before
    assert spec.num_leaves == before.num_leaves
    assert pytree.treespec_loads(pytree.treespec_dumps(spec)) == spec
    assert (spec.type is dict) == (before.type is dict)


def test_programs_without_named_tuples_are_left_alone() -> None:
    program = export(Function(lambda x: (x + 1, {"a": [x]})), (X,))
    assert plain_results(program) is program


def test_tuples_with_a_name_are_kept() -> None:
    named = namedtuple("named", ["first", "second"])
    pytree._register_namedtuple(named, serialized_type_name="tests.frontend.passes.named")
    program = export(Function(lambda x: named(x + 1, x - 1)), (X,))
    assert plain_results(program) is program
