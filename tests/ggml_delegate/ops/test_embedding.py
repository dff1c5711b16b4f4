"""Selection by index against eager."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.export import Dim
from torch.nn import functional

from ggml_delegate.native import NativeProgram
from tests.harness.ops import check_op, lower_ggml


def _input(*sizes: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(sizes)


def _indices(*sizes: int, below: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.randint(below, sizes, generator=torch.Generator().manual_seed(1)).to(dtype)


class _Embedding(torch.nn.Module):
    def __init__(self, padding_idx: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(11, 6, padding_idx=padding_idx)

    def forward(self, indices: Tensor) -> Tensor:
        return torch.relu(self.embedding(indices)) + 1


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_embedding(dtype: torch.dtype) -> None:
    table = _input(11, 6)

    def function(indices: Tensor) -> list[Tensor]:
        parts = [indices, indices[0], indices[:, 1:3], indices[0, 0, 0], indices.transpose(0, 2)]
        return [torch.relu(functional.embedding(part, table)) + 1 for part in parts]

    check_op(function, [_indices(2, 3, 4, below=11, dtype=dtype)])


def test_padding_idx_is_of_no_matter_in_inference() -> None:
    check_op(_Embedding(padding_idx=2), [_indices(3, 5, below=11)])


def test_an_index_outside_of_the_table_is_an_error() -> None:
    program, _, _ = lower_ggml(_Embedding(), [_indices(4, below=11)])
    native = NativeProgram(program.buffer)
    for index in (-1, 11, 2**31 - 1, -(2**31)):
        with pytest.raises(RuntimeError, match="index"):
            native.run("forward", [torch.tensor([0, 1, index, 3])])
    # The fault does not outlive its run.
    good = _indices(4, below=11)
    torch.testing.assert_close(native.run("forward", [good])[0], _Embedding()(good))


def test_index_select_and_index_by_one_tensor() -> None:
    def function(x: Tensor, i: Tensor, j: Tensor) -> list[Tensor]:
        x = torch.relu(x * 2)
        results = [x.index_select(dim, i) for dim in (0, 1, -1)]
        results += [x[j], x[:, j], x[:, :, j], x[:, j.reshape(2, 3)]]
        return [result + 1 for result in results]

    inputs = [_input(4, 5, 6), torch.tensor([3, 0, 0, 2]), torch.tensor([3, -1, 0, 2, -4, 1])]
    check_op(function, inputs)


def test_index_by_a_constant() -> None:
    order = torch.tensor([2, 0, 1, 2])
    check_op(lambda x: torch.relu(x * 2)[:, order], [_input(3, 3, 4)])


def test_a_table_that_is_computed() -> None:
    check_op(
        lambda x, i: torch.nn.functional.embedding(i, torch.relu(x).transpose(0, 1)),
        [_input(6, 9), _indices(3, 4, below=9)],
    )


def test_dynamic_sizes() -> None:
    n, t = Dim("n", min=1, max=4), Dim("t", min=1, max=64)
    check_op(
        _Embedding(),
        [_indices(2, 7, below=11)],
        dynamic_shapes=({0: n, 1: t},),
        more_inputs=[[_indices(1, 1, below=11)], [_indices(4, 64, below=11)]],
    )
