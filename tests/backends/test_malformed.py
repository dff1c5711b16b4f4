"""Backends of others that break the protocol are errors that name them and the member."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from executorch.exir.backend.compile_spec_schema import CompileSpec
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator import lower
from orchestrator.backends import BackendError, Candidate, Rejection, Support, resolve_backends
from orchestrator.backends.checks import tables_taken
from orchestrator.graph.queries import compute_nodes
from tests.backends.toy import Toy
from tests.harness.fakes import edge_program

Answer = Callable[[ExportedProgram], Any]


class Model(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + x) * x


X = torch.ones(2, 3)


class Answering(Toy):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def propose(self, ep: ExportedProgram) -> Any:
        return self._answer(ep)


def all_of(ep: ExportedProgram) -> Sequence[Candidate]:
    return [Candidate((node,)) for node in compute_nodes(ep)]


def first(ep: ExportedProgram) -> Node:
    return next(compute_nodes(ep))


def an_input(ep: ExportedProgram) -> Node:
    return next(node for node in ep.graph.nodes if node.op == "placeholder")


def of_another(ep: ExportedProgram) -> Node:
    return first(edge_program(Model(), X))


ANSWERS: dict[str, tuple[Answer, str]] = {
    "nothing": (lambda ep: None, "propose returned None; expected a Support"),
    "a list": (all_of, "propose returned a list; expected a Support"),
    "nodes left out": (
        lambda ep: Support(all_of(ep)[:1]),
        "propose leaves out 'aten_mul_tensor'; expected every compute node",
    ),
    "both": (
        lambda ep: Support(all_of(ep), [Rejection(first(ep), "no")]),
        "propose both takes and rejects 'aten_add_tensor'",
    ),
    "an input": (
        lambda ep: Support([*all_of(ep), Candidate((an_input(ep),))]),
        "propose names the placeholder 'x', which is no call_function",
    ),
    "an input rejected": (
        lambda ep: Support(all_of(ep), [Rejection(an_input(ep), "no")]),
        "propose names the placeholder 'x', which is no call_function",
    ),
    "an input as a constant": (
        lambda ep: Support([*all_of(ep), Candidate((first(ep),), (an_input(ep),))]),
        "propose names the placeholder 'x', which is no parameter, buffer or constant",
    ),
    "a node of another program": (
        lambda ep: Support([*all_of(ep), Candidate((of_another(ep),))]),
        "propose names the call_function 'aten_add_tensor', which is no call_function",
    ),
    "a name": (
        lambda ep: Support([*all_of(ep), Candidate(("aten_add_tensor",))]),  # type: ignore[arg-type]
        "propose names a str; expected a node of the program",
    ),
    "nodes instead of candidates": (
        lambda ep: Support(list(compute_nodes(ep))),  # type: ignore[arg-type]
        "propose, candidates: a Node; expected a Candidate",
    ),
    "an empty candidate": (
        lambda ep: Support([*all_of(ep), Candidate(())]),
        "propose: a candidate has no nodes",
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers(kind: str) -> None:
    answer, message = ANSWERS[kind]
    with pytest.raises(BackendError, match=f"backend 'toy': {message}"):
        lower(Model(), (X,), backends=["ggml", Answering(answer)], tune="off")


def test_a_class_is_no_backend() -> None:
    with pytest.raises(BackendError, match=r"has the class Toy; expected a backend: Toy\(\)"):
        resolve_backends([Toy])  # type: ignore[list-item]


@pytest.mark.parametrize("item", [object(), None, 3])
def test_other_objects_are_no_backends(item: Any) -> None:
    with pytest.raises(BackendError, match=f"has a {type(item).__name__}, which lacks parts of"):
        resolve_backends(["ggml", item])


@pytest.mark.parametrize("member", ["name", "backend_id"])
@pytest.mark.parametrize("value", [None, "", 3])
def test_names_are_text(member: str, value: Any) -> None:
    toy = Toy()
    setattr(toy, member, value)
    with pytest.raises(BackendError, match=f"backend Toy: its {member} is {value!r}; expected"):
        resolve_backends([toy])


def test_delegates_have_a_class() -> None:
    toy = Toy()
    toy.backend_id = "ToyBackend"
    with pytest.raises(BackendError, match=r"'toy': its backend_id is 'ToyBackend', and no sub"):
        lower(Model(), (X,), backends=[toy], tune="off")


class Preserving(Toy):
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def preserved_ops(self, ep: ExportedProgram) -> Any:
        return self._answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "preserved_ops returned None; expected ops and a filter"),
        (([torch.ops.aten.silu.default], None), "preserved_ops returned None for a filter"),
        ((["aten.silu"], bool), "preserved_ops: a str; expected a OpOverload"),
        ((torch.ops.aten.silu.default, bool), "preserved_ops: a OpOverload; expected a sequence"),
    ],
)
def test_what_is_preserved(answer: Any, message: str) -> None:
    with pytest.raises(BackendError, match=f"backend 'toy': {message}"):
        lower(Model(), (X,), backends=[Preserving(answer)], tune="off")


def test_tables_need_a_filter() -> None:
    class Taking(Toy):
        def takes_tables(self, ep: ExportedProgram) -> Any:
            return None

    with pytest.raises(BackendError, match="backend 'toy': takes_tables returned None for a filt"):
        tables_taken(Taking(), edge_program(Model(), X))


@pytest.mark.parametrize("specs", [None, (CompileSpec("a", b""),), [b"a"]])
def test_options_are_compile_specs(specs: Any) -> None:
    class Asking(Toy):
        def compile_specs(self) -> Any:
            return specs

    with pytest.raises(BackendError, match="backend 'toy': compile_specs"):
        lower(Model(), (X,), backends=[Asking()], tune="off")


def test_an_op_that_is_preserved_and_then_not_taken_is_decomposed() -> None:
    """As one that was promised to a backend which may not have it after all."""

    class Forgetting(Toy):
        def preserved_ops(self, ep: ExportedProgram) -> Any:
            return [torch.ops.aten.group_norm.default], lambda node: True

    norm = torch.nn.GroupNorm(2, 4).eval()
    x = torch.randn(1, 4, 5)
    program = lower(norm, (x,), backends=[Forgetting()], tune="off")
    torch.testing.assert_close(program(x), norm(x), rtol=1e-5, atol=1e-5)
