"""Memory that delegates hold: limits on it, and plans that cannot be told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.planner import (
    Atom,
    Backend,
    Constant,
    ConstraintError,
    Constraints,
    CostGraph,
    Pin,
    Price,
    Tensor,
    private_bytes,
    solve,
)

MB = 1 << 20
PACKS, MAPS, KERNELS = "packs", "maps", "kernels"
BACKENDS = (
    Backend(PACKS, 10.0, private_per_byte=1.0),
    Backend(MAPS, 10.0, private_per_byte=0.25),
    Backend(KERNELS, is_delegate=False),
)


def graph(times: list[dict[str, float]], spread: float = 0.0, shared: int = 0) -> CostGraph:
    """Atoms in a row, each with 8 MB of weights; the first and the last may share some more."""
    names = [f"a{number}" for number in range(len(times))]
    atoms = [
        Atom(
            name,
            {backend: Price(ns, spread, backend) for backend, ns in row.items()},
            weight_bytes={PACKS: 8 * MB, MAPS: 8 * MB},
        )
        for name, row in zip(names, times, strict=True)
    ]
    tensors = [
        Tensor(f"t{name}", name, tuple(names[number + 1 : number + 2]), 4, name == names[-1])
        for number, name in enumerate(names)
    ]
    constants = [Constant("shared", shared, (names[0], names[-1]))] if shared else []
    return CostGraph(BACKENDS, atoms, tensors, constants)


class TestLimits:
    """The packing delegate is faster everywhere; kernels hold nothing and are slow."""

    TIMES = ({PACKS: 100.0, MAPS: 150.0, KERNELS: 900.0},) * 3

    @pytest.mark.parametrize(
        ("most", "backends"),
        [
            (24, [PACKS] * 3),
            (18, [PACKS, PACKS, MAPS]),
            (12, [PACKS, MAPS, MAPS]),
            (6, [MAPS] * 3),
            (4, [MAPS, MAPS, KERNELS]),
            (0, [KERNELS] * 3),
        ],
    )
    def test_the_fastest_within_a_limit(self, most: int, backends: list[str]) -> None:
        found = graph(list(self.TIMES))
        plan = solve(found, Constraints(max_private_bytes=most * MB))
        assert sorted(plan.assignment.values()) == sorted(backends)
        assert private_bytes(found, plan.assignment) <= most * MB

    def test_a_shared_weight_counts_once_for_each_backend(self) -> None:
        found = graph(list(self.TIMES), shared=16 * MB)
        together = dict.fromkeys(("a0", "a1", "a2"), PACKS)
        assert private_bytes(found, together) == (24 + 16) * MB
        assert private_bytes(found, {**together, "a2": MAPS}) == (16 + 16 + 2 + 4) * MB
        plan = solve(found, Constraints(max_private_bytes=30 * MB))
        assert private_bytes(found, plan.assignment) <= 30 * MB
        assert plan.assignment["a0"] == plan.assignment["a2"] == MAPS  # two would hold it twice

    def test_state_counts_where_it_is_written(self) -> None:
        """What a delegate holds of mutable state is counted like weights that are its own."""
        backends = (replace(BACKENDS[0], private_per_state_byte=2.0), *BACKENDS[1:])
        plain = graph(list(self.TIMES))
        atoms = [plain.atoms[0], replace(plain.atoms[1], state_bytes=3 * MB), plain.atoms[2]]
        found = CostGraph(backends, atoms, plain.tensors)
        on_packs = dict.fromkeys(("a0", "a1", "a2"), PACKS)
        assert private_bytes(found, on_packs) == (24 + 6) * MB
        assert private_bytes(found, {**on_packs, "a1": MAPS}) == (16 + 2) * MB
        plan = solve(found, Constraints(max_private_bytes=18 * MB))
        assert plan.assignment == {**on_packs, "a1": MAPS}

    def test_a_limit_that_nothing_meets_is_an_error(self) -> None:
        times = [{PACKS: 100.0, MAPS: 150.0}] * 3
        with pytest.raises(ConstraintError, match=r"max_private_bytes=1000.*25165824 privately"):
            solve(graph(times), Constraints(max_private_bytes=1000))


class TestTies:
    """Which delegate is faster cannot be told where the spreads are large."""

    TIMES = ({PACKS: 100.0, MAPS: 102.0, KERNELS: 900.0},) * 3

    def test_the_lighter_of_two_plans_wins(self) -> None:
        plan = solve(graph(list(self.TIMES), spread=30.0))
        assert set(plan.assignment.values()) == {MAPS}
        assert any("6.3 MB of private memory instead of 25.2" in note for note in plan.notes)

    def test_a_difference_that_can_be_told_decides(self) -> None:
        plan = solve(graph(list(self.TIMES), spread=1.0))
        assert set(plan.assignment.values()) == {PACKS}

    def test_memory_is_not_worth_much_time(self) -> None:
        times = [{PACKS: 100.0, MAPS: 110.0}] * 3
        plan = solve(graph(times, spread=60.0))
        assert set(plan.assignment.values()) == {PACKS}

    def test_pins_are_kept(self) -> None:
        pin = Pin("a1", ("a1",), PACKS)
        plan = solve(graph(list(self.TIMES), spread=30.0), Constraints(pins=(pin,)))
        assert plan.assignment["a1"] == PACKS
