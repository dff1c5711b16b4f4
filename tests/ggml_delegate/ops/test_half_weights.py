"""Layers of float32 whose weights are of half types: stored so, and computed in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from orchestrator import lower
from orchestrator.frontend.half_weights import dequantize_half
from orchestrator.native import NativeProgram
from tests.harness.exact import assert_exact, native
from tests.harness.ops import check_op, rejections

each_dtype = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def tensor(*sizes: int, seed: int = 5) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


class Half(nn.Module):
    """A constant of a half type, as float32."""

    stored: Tensor

    def __init__(self, dtype: torch.dtype, *sizes: int) -> None:
        super().__init__()
        self.register_buffer("stored", tensor(*sizes, seed=sum(sizes)).to(dtype))

    def forward(self) -> Tensor:
        weight: Tensor = dequantize_half(self.stored)
        return weight


class Layer(nn.Module):
    def __init__(self, dtype: torch.dtype, n: int, k: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = Half(dtype, n, k)
        self.bias = nn.Parameter(tensor(n)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight(), self.bias)


class Tied(nn.Module):
    """Rows of a table, and products with all of them."""

    def __init__(self, dtype: torch.dtype, n: int, k: int) -> None:
        super().__init__()
        self.table = Half(dtype, n, k)

    def forward(self, index: Tensor) -> tuple[Tensor, Tensor]:
        table = self.table()
        x = nn.functional.embedding(index, table)
        return x, nn.functional.linear(x, table)


@each_dtype
@pytest.mark.parametrize("rows", [1, 2, 5, 33, 140])
def test_products_are_as_exact_as_those_of_float32(dtype: torch.dtype, rows: int) -> None:
    layer = Layer(dtype, 83, 300)
    equal = nn.Linear(300, 83, bias=False)
    equal.weight = nn.Parameter(layer.weight.stored.float())
    x = tensor(rows, 300)
    assert_exact(native(layer, x)(x)[0], x, equal)


@each_dtype
def test_any_number_of_rows(dtype: torch.dtype) -> None:
    check_op(
        Layer(dtype, 50, 64, bias=True),
        [tensor(7, 64)],
        dynamic_shapes=({0: Dim("n", min=1, max=300)},),
        more_inputs=[[tensor(size, 64, seed=size)] for size in (1, 2, 3, 4, 5, 6, 12, 40, 300)],
    )


@each_dtype
def test_convolutions(dtype: torch.dtype) -> None:
    """Dense, by pixel, by channel and transposed."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = ((16, 8, 3, 3), (8, 8, 1, 1), (8, 1, 3, 3), (8, 4, 2, 2))
            self.weights = nn.ModuleList(Half(dtype, *each) for each in sizes)

        def forward(self, x: Tensor) -> list[Tensor]:
            dense, pixel, channel, back = (weight() for weight in self.weights)
            return [
                nn.functional.conv2d(x, dense, padding=1),
                nn.functional.conv2d(x, pixel),
                nn.functional.conv2d(x, channel, groups=8),
                nn.functional.conv_transpose2d(x, back, stride=2),
            ]

    check_op(Model(), [tensor(2, 8, 9, 11)])


@each_dtype
@pytest.mark.parametrize("backends", [["ggml"], ["ggml", "xnnpack"]], ids=",".join)
def test_a_table_and_its_layer_are_stored_once_and_as_they_are(
    dtype: torch.dtype, backends: list[str]
) -> None:
    model, index = Tied(dtype, 400, 128), torch.tensor([3, 0, 399])
    program = lower(model, (index,), backends=backends, tune="off")
    rows, products = NativeProgram(program.buffer).run("forward", [index])
    assert torch.equal(rows, model(index)[0])
    torch.testing.assert_close(products, model(index)[1], rtol=1e-5, atol=1e-4)
    weight = 400 * 128 * 2
    assert weight < len(program.buffer) < weight + 6_000
    report = program.report.methods[0]
    kinds = {scheme for segment in report.segments for scheme in segment.schemes}
    assert kinds == {f"{str(dtype).removeprefix('torch.')} weights"}


@each_dtype
def test_other_backends_get_floats(dtype: torch.dtype) -> None:
    model, index = Tied(dtype, 48, 32), torch.tensor([3, 0, 47])
    program = lower(model, (index,), backends=["xnnpack"], tune="off")
    rows, products = NativeProgram(program.buffer).run("forward", [index])
    assert torch.equal(rows, model(index)[0])
    torch.testing.assert_close(products, model(index)[1], rtol=1e-5, atol=1e-4)


def test_other_ops_take_no_halves() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = Half(torch.bfloat16, 16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.weight() + x)

    assert rejections(Model(), [tensor(16, 16)]) == [
        "the dequantized weight is not one layer's alone"
    ]


def test_the_op_takes_halves_only() -> None:
    with pytest.raises(ValueError, match=r"half is torch\.float32, expected float16 or bfloat16"):
        dequantize_half(tensor(3, 3))
