"""Selection by index against eager."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim
from torch.nn import functional

from ggml_delegate import ir, preprocess
from orchestrator.native import NativeProgram
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


class _Tied(torch.nn.Module):
    """A language model's first and last layer, which share their weight."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(words, width)

    def forward(self, indices: Tensor) -> Tensor:
        return functional.linear(torch.relu(self.words(indices)), self.words.weight)


@pytest.mark.parametrize(("words", "width"), [(11, 6), (16, 1), (40, 33), (2, 5)])
def test_a_table_that_is_a_weight_too(words: int, width: int) -> None:
    n = Dim("n", min=1, max=9)
    check_op(
        _Tied(words, width),
        [_indices(2, 7, below=words)],
        dynamic_shapes=({0: n},),
        more_inputs=[[_indices(9, 7, below=words)]],
    )


def test_a_table_that_is_a_weight_too_is_stored_once() -> None:
    model = _Tied(1_024, 64)
    program, _, _ = lower_ggml(model, [_indices(4, below=1_024)])
    assert len(program.buffer) < 1.1 * model.words.weight.nbytes


def test_an_index_outside_of_a_table_that_is_a_weight_is_an_error() -> None:
    """The layer's panels of 16 rows have more rows than the table, of zeros."""
    program, _, _ = lower_ggml(_Tied(11, 6), [_indices(4, below=11)])
    native = NativeProgram(program.buffer)
    for index in (-1, 11, 15, 16, 2**31 - 1, -(2**31)):
        with pytest.raises(RuntimeError, match="index"):
            native.run("forward", [torch.tensor([0, 1, index, 3])])


def test_a_weight_that_is_an_input_of_its_layer_too() -> None:
    table = _input(5, 5)
    check_op(
        lambda i: functional.linear(table, table) + functional.embedding(i, table),
        [_indices(5, below=5)],
    )


@pytest.mark.parametrize(
    "wrong",
    [{"panelRows": 16}, {"panelRows": 33}, {"panelRows": 2**63}, {"dim": 1}, {"panelRows": 0}],
)
def test_wrong_panels_are_an_error(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, int]) -> None:
    serialize = ir.serialize

    def patched(program: Any) -> bytes:
        node = next(node for node in program.nodes if ir.op_name(node) == "Embedding")
        for name, value in wrong.items():
            setattr(node.op, name, value)
        return serialize(program)

    monkeypatch.setattr(preprocess.ir, "serialize", patched)
    program, _, _ = lower_ggml(_Tied(20, 6), [_indices(4, below=16)])
    with pytest.raises(RuntimeError):
        NativeProgram(program.buffer).run("forward", [_indices(4, below=16)])
