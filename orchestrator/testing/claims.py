"""Rules about what a backend takes: it lowers so, and the answer depends on metadata alone."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from executorch.exir.delegate import executorch_call_delegate
from torch.export import ExportedProgram
from torch.fx import Node

from orchestrator.backends.base import Backend, Support
from orchestrator.backends.checks import proposed
from orchestrator.graph.layouts import CHANNELS_LAST_ORDER
from orchestrator.graph.queries import (
    compute_nodes,
    dim_order,
    is_getitem,
    tensor_results,
)
from orchestrator.planner import Layout
from orchestrator.testing.cases import AGAIN, ALL, LAYOUTS, PLAIN, Case
from orchestrator.testing.needs import needs_lowering
from orchestrator.testing.subject import Cut, Delegated, Subject, meta_keys

_SETS = 40  # of nodes that check_segment is asked about, per model
_CUTS = ((2, 1), (3, 0))  # how many nodes each call has, and the first one if not as many


@functools.cache
def _every(count: int, offset: int = 0) -> Cut:
    """Return a cut into calls of some atoms each; the first one may have fewer."""

    def cut(atoms: Sequence[str]) -> Iterator[Sequence[str]]:
        if offset and atoms:
            yield atoms[:offset]
        yield from (atoms[at : at + count] for at in range(offset, len(atoms), count))

    return cut


class Claims:
    """Rules that need programs to be lowered, though not to be run."""

    def test_it_takes_something(self, subject: Subject) -> None:
        """A backend that takes nothing of the kit's models is not tested."""
        needs_lowering(subject)
        assert any(subject.taken(case) for case in ALL), (
            f"{subject.backend.name} takes no node of any model of the kit, so that the kit tests "
            "nothing: have propose take an op, or write tests with models of your own"
        )

    @pytest.mark.parametrize("case", ALL, ids=str)
    def test_what_it_takes_lowers(self, subject: Subject, case: Case) -> None:
        """All that it takes, with its neighbours, as `lower` gives it away."""
        self._lowers(subject, case, None, "in as few calls as can be")

    @pytest.mark.parametrize("case", ALL, ids=str)
    def test_each_node_that_it_takes_lowers_alone(self, subject: Subject, case: Case) -> None:
        """Each node, or what is not divisible, in a call of its own."""
        self._lowers(subject, case, _every(1), "alone")

    @pytest.mark.parametrize("case", PLAIN, ids=str)
    def test_what_is_divisible_lowers_in_any_cut(self, subject: Subject, case: Case) -> None:
        """Calls of two nodes and of three, that begin here or there."""
        needs_lowering(subject, case)
        if len(subject.taken(case)) < 2:
            pytest.skip(f"{subject.backend.name} takes one node of {case}")
        for count, offset in _CUTS:
            self._lowers(subject, case, _every(count, offset), f"in calls of {count} nodes")

    def _lowers(self, subject: Subject, case: Case, cut: Cut | None, how: str) -> None:
        needs_lowering(subject, case)
        backend = subject.backend
        try:
            made = subject.delegated(case, cut)
        except Exception as error:
            raise AssertionError(
                f"propose takes what preprocess refuses, in {case}, {how}: {error}. Reject such "
                "nodes in propose, with the reason; offer nodes that only lower together as a "
                "Candidate with divisible=False, and refuse calls with check_segment"
            ) from error
        inside = made.nodes
        left = [name for call in made.planned for name in call if name not in inside]
        assert not left, (
            f"{left} of {case}, which propose takes, are in no delegate when lowered {how}"
        )
        other = {name: each for name, each in inside.items() if each != backend.backend_id}
        assert not other, (
            f"nodes of {case} are in delegates of another id than {backend.backend_id!r}: {other}"
        )
        refused = [
            node.name
            for node in subject.taken(case)
            if node.name not in inside and not _may_be_left(subject, case, node)
        ]
        assert cut is not None or not refused, (
            f"{refused} of {case}, which propose takes, are in no delegate when lowered {how}: "
            "check_segment refuses them even alone, or their layouts are not among "
            "boundary_layouts; reject them in propose"
        )

    @pytest.mark.parametrize("case", LAYOUTS, ids=str)
    def test_it_gets_no_layouts_that_it_does_not_name(self, subject: Subject, case: Case) -> None:
        """Of tensors that go into its calls and come out, in the lowered program."""
        needs_lowering(subject, case)
        for cut in (None, _every(1)):
            for order, rank in _orders_at_calls(subject.delegated(case, cut)):
                named = subject.backend.boundary_layouts(rank)
                layout = _layout(order)
                assert layout in named, (
                    f"in {case}, a call gets or gives a tensor in the dim order {order}, where "
                    f"boundary_layouts({rank}) names {[each.value for each in named]}: does "
                    "preprocess or a pass of the backend's change dim orders?"
                )

    @pytest.mark.parametrize("case", PLAIN, ids=str)
    def test_calls_that_it_refuses_stay_refused(self, subject: Subject, case: Case) -> None:
        """What check_segment refuses, it refuses with more nodes too."""
        needs_lowering(subject, case)
        backend = subject.backend
        nodes = [node for node in subject.taken(case) if not is_getitem(node)]
        draw = random.Random(3)
        for first in range(len(nodes)):
            refused: tuple[list[Node], str] | None = None
            for last in range(first + 1, len(nodes) + 1):
                refused = self._stays_refused(backend, nodes[first:last], refused)
        for _ in range(_SETS if nodes else 0):
            order = draw.sample(range(len(nodes)), len(nodes))
            refused = None
            for count in range(1, len(nodes) + 1):
                some = [nodes[place] for place in sorted(order[:count])]
                refused = self._stays_refused(backend, some, refused)

    def _stays_refused(
        self, backend: Backend, nodes: list[Node], refused: tuple[list[Node], str] | None
    ) -> tuple[list[Node], str] | None:
        said: Any = backend.check_segment(nodes)
        assert said is None or (isinstance(said, str) and said), (
            f"check_segment returned {said!r}: return None, or a sentence that says why the nodes "
            "cannot share a call"
        )
        if refused is not None:
            assert said is not None, (
                f"check_segment refuses {_names(refused[0])} ({refused[1]}) and allows "
                f"{_names(nodes)}, which holds them: what is refused has to stay refused with more "
                "nodes"
            )
            return refused
        return None if said is None else (nodes, said)

    @pytest.mark.parametrize("case", PLAIN, ids=str)
    def test_the_same_question_has_the_same_answer(self, subject: Subject, case: Case) -> None:
        """Plans are made by what propose says, several times per program."""
        needs_lowering(subject)
        edge = subject.edge(case)
        once, again = (_described(proposed(subject.backend, edge)) for _ in range(2))
        assert once == again, (
            f"propose answers differently when it is asked about {case} again: "
            f"{_changes(once, again)}. Let it depend on nothing but the program"
        )

    @pytest.mark.parametrize("case", AGAIN, ids=str)
    def test_lowering_again_gives_the_same_bytes(self, subject: Subject, case: Case) -> None:
        """Programs can be compared, cached and signed."""
        needs_lowering(subject, case)
        if not subject.backend.is_reproducible:
            pytest.skip(f"{subject.backend.name} says that its programs are not reproducible")
        once = subject.lowered(case).program.buffer
        again = subject.lowered(case, anew=True).program.buffer
        assert once == again, (
            f"lowering {case} twice gives different bytes ({len(once)} and {len(again)}): have "
            "propose, compile_specs and preprocess depend on nothing but the program (sets and ids "
            "of objects are in another order each time)"
        )

    @pytest.mark.parametrize("case", ALL, ids=str)
    def test_it_answers_without_values_of_weights(self, subject: Subject, case: Case) -> None:
        """ExecuTorch plans on programs whose weights are fake tensors."""
        needs_lowering(subject)
        try:
            real, fake = (
                _described(proposed(subject.backend, program))
                for program in (subject.edge(case), subject.fake(case))
            )
        except Exception as error:
            raise AssertionError(
                f"propose fails on {case} with weights or without their values, as ExecuTorch "
                f"plans: {type(error).__name__}: {error}. It has to go by metadata alone: dtypes, "
                "sizes, strides"
            ) from error
        assert real == fake, (
            f"propose answers differently where the weights of {case} have values: "
            f"{_changes(real, fake)}. It has to go by metadata alone, as ExecuTorch plans without"
        )

    @pytest.mark.parametrize("case", PLAIN, ids=str)
    def test_asking_it_leaves_the_program_as_it_is(self, subject: Subject, case: Case) -> None:
        """Other backends are asked about the same graph; new keys in `meta` are fine."""
        needs_lowering(subject)
        edge = subject.fake(case)
        usual = meta_keys(case)
        for node in edge.graph.nodes:  # without what was noted there when it was asked before
            node.meta = {key: value for key, value in node.meta.items() if key in usual}
        before, weights = _snapshot(edge), dict(edge.state_dict)
        subject.backend.propose(edge)
        after = _snapshot(edge)
        lost = [
            name
            for name, each in before.items()
            if name not in after or any(after[name].get(key) != each[key] for key in each)
        ]
        changed = lost + [name for name in after if name not in before]
        assert not changed and list(before) == list(after), (
            f"propose changes the graph of {case} ({', '.join(changed[:4]) or 'its order'}): work "
            "on a copy (copy.deepcopy of its graph_module), and leave the program to the others"
        )
        same = edge.state_dict.keys() == weights.keys() and all(
            edge.state_dict[name] is weights[name] for name in weights
        )
        assert same, f"propose changes the weights of {case}: work on a copy of the program"


def _may_be_left(subject: Subject, case: Case, node: Node) -> bool:
    """Whether a node that is taken may go to kernels: a part of an atom that is not, or images."""
    if is_getitem(node):
        return True
    values = [value for each in (node, *node.all_input_nodes) for value in tensor_results(each)]
    named = (subject.backend.boundary_layouts(value.dim()) for value in values)
    return any(
        _layout(dim_order(value)) not in layouts
        for value, layouts in zip(values, named, strict=True)
    )


def _layout(order: Sequence[int]) -> Layout | None:
    """Return the layout of a dim order, None for one that has no name."""
    if tuple(order) == tuple(range(len(order))):
        return Layout.CONTIGUOUS
    return Layout.CHANNELS_LAST if tuple(order) == CHANNELS_LAST_ORDER else None


def _orders_at_calls(made: Delegated) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield the dim orders and ranks of what goes into delegate calls and comes out of them."""
    for node in compute_nodes(made.program):
        if node.target is executorch_call_delegate:
            for each in (*node.all_input_nodes, *node.users):
                for value in tensor_results(each):
                    if each in node.users or each.op != "get_attr":
                        yield tuple(value.dim_order()), value.dim()


def _described(support: Support) -> dict[str, Any]:
    """Return an answer by names, for comparison."""
    found: dict[str, Any] = {
        each.node.name: f"rejected ({each.reason})" for each in support.rejections
    }
    for each in support.candidates:
        nodes = tuple(sorted(node.name for node in each.nodes))
        constants = tuple(sorted(node.name for node in each.constants))
        found[f"candidate {nodes}"] = ("taken", constants, each.divisible)
    return found


def _changes(one: dict[str, Any], other: dict[str, Any]) -> str:
    keys = [key for key in (*one, *other) if one.get(key) != other.get(key)]
    key = keys[0]
    return f"{key}: {one.get(key)}, then {other.get(key)}"


def _snapshot(ep: ExportedProgram) -> dict[str, dict[str, Any]]:
    """Return what a program's nodes are, in order, with what their `meta` holds."""
    return {
        node.name: {
            "what": (node.op, str(node.target), str(node.args), str(node.kwargs)),
            "users": tuple(user.name for user in node.users),
            **{f"meta {key}": _told(value) for key, value in node.meta.items()},
        }
        for node in ep.graph.nodes
    }


def _told(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (
            id(value),
            value.dtype,
            tuple(map(str, value.shape)),
            tuple(map(str, value.stride())),
        )
    return str(value) if isinstance(value, str | int | float | list | tuple | dict) else id(value)


def _names(nodes: Sequence[Node]) -> str:
    return "[" + ", ".join(node.name for node in nodes) + "]"
