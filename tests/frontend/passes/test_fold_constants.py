"""What depends on no input is computed at lowering time, as far as the file stays small."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from orchestrator.frontend.passes import fold_constants


def ops(program: ExportedProgram) -> list[str]:
    """Names of the ops that are left."""
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def stored(program: ExportedProgram) -> int:
    """Bytes of the tensors that a program holds."""
    return sum(tensor.nbytes for tensor in program.state_dict.values())


def assert_same(model: nn.Module, program: ExportedProgram, *inputs: Tensor) -> None:
    """Runs both."""
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*inputs), model(*inputs))


class Masked(nn.Module):
    """Attention scores under a causal mask made from arange, and a position table."""

    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(6)
        mask = torch.where(place[None, :] > place[:, None], -math.inf, 0.0)
        angles = place[:, None] / torch.pow(10.0, torch.arange(4.0))
        return ((x + angles.sin()) @ x.mT + mask).softmax(-1)


def test_masks_and_tables_are_folded() -> None:
    x = torch.randn(2, 6, 4)
    model = Masked()
    program = export(model, (x,))
    folded = fold_constants(program)
    assert not {"aten.arange.default", "aten.where.self", "aten.sin.default"} & set(ops(folded))
    assert len(ops(folded)) < len(ops(program))
    assert_same(model, folded, x)


class WeightNorm(nn.Module):
    """A weight that is computed from two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.g = nn.Parameter(torch.randn(300, 400)), nn.Parameter(torch.randn(300, 1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.g * self.v / self.v.norm(dim=1, keepdim=True))


def test_a_computed_weight_takes_the_place_of_its_parameters() -> None:
    model, x = WeightNorm(), torch.randn(2, 400)
    program = export(model, (x,))
    folded = fold_constants(program)
    assert ops(folded) == ["aten.linear.default"]
    assert stored(folded) <= stored(program)
    assert_same(model, folded, x)


class Large(nn.Module):
    """A small parameter that is repeated to a large one."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.bias, self.rows = nn.Parameter(torch.randn(1, 1000)), rows

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.bias * 2).repeat(self.rows, 1)


def test_what_would_blow_up_the_file_stays_an_op() -> None:
    model, x = Large(1000), torch.randn(1000, 1000)
    folded = fold_constants(export(model, (x,)))
    assert ops(folded) == ["aten.repeat.default", "aten.add.Tensor"]
    assert stored(folded) == 4000
    assert_same(model, folded, x)


class Tied(nn.Module):
    """A table whose transpose is a weight as well."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(1000, 100)

    def forward(self, ids: Tensor) -> Tensor:
        return self.words(ids) @ self.words.weight.t()


def test_a_weight_with_other_users_is_not_stored_twice() -> None:
    model, ids = Tied(), torch.tensor([[1, 5, 7]])
    program = export(model, (ids,))
    folded = fold_constants(program)
    assert stored(folded) == stored(program)
    assert_same(model, folded, ids)


class Counter(nn.Module):
    """A buffer that every run changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))
        self.register_buffer("step", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(self.step * 2)
        return x + self.count * 2


def test_what_depends_on_a_changing_buffer_is_not_folded() -> None:
    model, x = Counter(), torch.randn(3)
    folded = fold_constants(export(model, (x,)))
    module = folded.module()
    for calls in (1, 2, 3):
        torch.testing.assert_close(module(x), x + 4 * calls)


class Written(nn.Module):
    """A tensor of zeros, parts of which are written to."""

    def forward(self, x: Tensor) -> Tensor:
        grid = torch.zeros(2, 3)
        grid[0].copy_(x)
        fixed = torch.zeros(3)
        fixed[1] = 4
        return grid.sum(0) + fixed


def test_tensors_that_are_written_to() -> None:
    model, x = Written(), torch.randn(3)
    assert_same(model, fold_constants(export(model, (x,))), x)


class Regions(nn.Module):
    """A mask of regions made by assignments, as Swin's."""

    def forward(self, x: Tensor) -> Tensor:
        regions = torch.zeros(4, 4)
        for number, part in enumerate((slice(0, 2), slice(2, 3), slice(3, None))):
            regions[part, part] = number
        return x.masked_fill(regions != regions.T, -math.inf)


def test_masks_made_by_assignments_are_folded() -> None:
    model, x = Regions(), torch.randn(2, 4, 4)
    folded = fold_constants(export(model, (x,)))
    assert ops(folded) == ["aten.masked_fill.Scalar"]
    assert_same(model, folded, x)


class Random(nn.Module):
    """Noise of fixed sizes."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(3)


def test_random_numbers_are_not_folded() -> None:
    folded = fold_constants(export(Random(), (torch.randn(3),)))
    assert "aten.rand.default" in ops(folded)


class Outputs(nn.Module):
    """Results that depend on no input, one of which is read as well."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        double = self.weight * 2
        return x + double.exp(), double, self.weight


def test_outputs_that_are_fixed() -> None:
    model, x = Outputs(), torch.randn(3)
    assert_same(model, fold_constants(export(model, (x,))), x)


def test_a_program_without_constants_is_returned_as_it_is() -> None:
    program = export(nn.ReLU(), (torch.randn(3),))
    assert fold_constants(program) is program


@pytest.mark.parametrize("size", [2, 5])
def test_dynamic_sizes_are_left_alone(size: int) -> None:
    class Positions(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.arange(x.shape[0]) * torch.arange(4).sum()

    model = Positions()
    program = export(model, (torch.randn(3),), dynamic_shapes={"x": {0: Dim("n", min=2, max=9)}})
    folded = fold_constants(program)
    assert ops(folded).count("aten.arange.default") == 1
    assert_same(model, folded, torch.randn(size))
