"""Matrix products against eager PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.harness.ops import check_op


def tensor(*sizes: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


class ConstantProduct(nn.Module):
    """x @ constant."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.right = nn.Parameter(tensor(*sizes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.right


@pytest.mark.parametrize(
    ("sizes", "features", "bias"),
    [
        ((1, 20), 7, True),
        ((3, 33), 16, False),
        ((1, 1), 1, True),
        ((2, 1300), 50, True),  # more than two blocks of 512 along k
        ((200, 24), 40, True),  # more than two blocks of 96 rows
        ((7,), 5, True),
        ((3, 5, 17), 31, True),
        ((2, 3, 4, 9), 18, False),
        ((2, 1, 3, 2, 9), 18, True),
        ((1, 64), 1000, True),
    ],
)
def test_linear_equals_eager(sizes: tuple[int, ...], features: int, bias: bool) -> None:
    check_op(nn.Linear(sizes[-1], features, bias=bias), (tensor(*sizes),))


def test_linear_of_any_number_of_rows_equals_eager() -> None:
    layer = nn.Linear(19, 67)
    counts = (1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 97)
    check_op(lambda *inputs: tuple(map(layer, inputs)), [tensor(rows, 19) for rows in counts])


def test_linear_reads_rows_of_a_view_in_place() -> None:
    layer = nn.Linear(8, 5)

    def first_token(x: torch.Tensor) -> torch.Tensor:
        return layer(x[:, 0])

    check_op(first_token, (tensor(3, 6, 8),))


def test_linear_follows_a_permutation_to_channels_last() -> None:
    layer = nn.Linear(6, 10)

    def over_channels(x: torch.Tensor) -> torch.Tensor:
        return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) + 1.0

    check_op(over_channels, (tensor(2, 6, 5, 4),))


def test_linear_over_a_dimension_that_is_not_innermost_equals_eager() -> None:
    layer = nn.Linear(5, 3)
    check_op(lambda x: layer(x.transpose(1, 2)), (tensor(2, 5, 4),))


def test_linear_with_a_dynamic_number_of_rows_equals_eager() -> None:
    check_op(
        nn.Linear(12, 20),
        (tensor(4, 12),),
        dynamic_shapes=({0: torch.export.Dim("rows", min=1, max=300)},),
        more_inputs=[(tensor(1, 12),), (tensor(300, 12),), (tensor(4, 12),)],
    )


def test_linear_with_a_computed_weight_equals_eager() -> None:
    check_op(torch.nn.functional.linear, (tensor(2, 4, 9), tensor(6, 9, seed=6), tensor(6)))


def test_linear_of_a_vector_with_a_computed_weight_equals_eager() -> None:
    check_op(torch.nn.functional.linear, (tensor(9), tensor(6, 9, seed=6)))


def test_linear_with_a_computed_bias_equals_eager() -> None:
    layer = nn.Linear(9, 6)

    def biased(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, layer.weight, bias)

    check_op(biased, (tensor(2, 9), tensor(6)))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((4, 5), (5, 6)),
        ((1, 40), (40, 1)),
        ((3, 1), (1, 17)),
        ((70, 530), (530, 33)),
        ((2, 7, 9), (2, 9, 5)),
        ((3, 4, 6), (6, 8)),
        ((2, 3, 4, 5), (2, 3, 5, 20)),
        ((5, 1, 4, 3), (1, 2, 3, 4)),
        ((2, 1, 2, 3, 4), (2, 2, 1, 4, 3)),
    ],
)
def test_a_product_of_two_inputs_equals_eager(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check_op(torch.matmul, (tensor(*a), tensor(*b, seed=6)))


@pytest.mark.parametrize("rows", [1, 30])
def test_a_product_with_a_transposed_input_equals_eager(rows: int) -> None:
    check_op(lambda a, b: a @ b.transpose(-1, -2), (tensor(2, rows, 21), tensor(2, 37, 21, seed=6)))


def test_a_product_of_a_transposed_input_equals_eager() -> None:
    check_op(lambda a, b: a.transpose(-1, -2) @ b, (tensor(2, 8, 5), tensor(2, 8, 7, seed=6)))


def test_heads_are_multiplied_where_they_lie() -> None:
    def scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        q, k = (x.view(2, 6, 3, 8).transpose(1, 2) for x in (q, k))
        return torch.matmul(q, k.transpose(-1, -2))

    check_op(scores, (tensor(2, 6, 24), tensor(2, 6, 24, seed=6)))


@pytest.mark.parametrize("repeated", [(4, 1), (1, 9), (1, 1)])
def test_a_product_of_repeated_rows_or_columns_equals_eager(repeated: tuple[int, int]) -> None:
    """Found by fuzzing: elements repeated along the summed dimension were read as neighbours."""
    check_op(lambda a, b: a.expand(4, 9) @ b, (tensor(*repeated), tensor(9, 5, seed=6)))
    check_op(lambda a, b: a @ b.expand(4, 9).T, (tensor(3, 9), tensor(*repeated, seed=6)))
    check_op(lambda a, b: a @ b.expand(4, 9), (tensor(3, 4), tensor(*repeated, seed=6)))


@pytest.mark.parametrize("sizes", [(3, 9), (2, 3, 9), (2, 2, 3, 9)])
def test_a_product_with_a_constant_equals_eager(sizes: tuple[int, ...]) -> None:
    check_op(ConstantProduct(9, 14), (tensor(*sizes),))


def test_a_batch_of_constants_is_multiplied() -> None:
    check_op(ConstantProduct(2, 9, 14), (tensor(2, 3, 9),))


@pytest.mark.parametrize(
    ("addend", "alpha", "beta"),
    [((6,), 1.0, 1.0), ((4, 6), 0.5, -2.0), ((4, 1), 1.0, 3.0), ((1, 6), 2.0, 0.0)],
)
def test_addmm_of_inputs_equals_eager(addend: tuple[int, ...], alpha: float, beta: float) -> None:
    def product(c: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.addmm(c, a, b, alpha=alpha, beta=beta)

    check_op(product, (tensor(*addend), tensor(4, 5), tensor(5, 6, seed=6)))


@pytest.mark.parametrize(("addend", "beta"), [((6,), 2.0), ((1,), 1.0), ((4, 6), 0.5), ((6,), 0)])
def test_addmm_with_constants_equals_eager(addend: tuple[int, ...], beta: float) -> None:
    class Addmm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.added = nn.Parameter(tensor(*addend, seed=1))
            self.right = nn.Parameter(tensor(5, 6, seed=2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.addmm(self.added, x, self.right, alpha=1.5, beta=beta)

    check_op(Addmm(), (tensor(4, 5),))


@pytest.mark.parametrize("k", [1024, 1040, 2048, 3072])
@pytest.mark.parametrize("rows", [8, 13, 140])
def test_rows_a_multiple_of_a_page_apart(k: int, rows: int) -> None:
    """Many of them are copied first, in blocks of rows and of k; few are read where they lie."""
    check_op(nn.Linear(k, 200), [tensor(rows, k)])
