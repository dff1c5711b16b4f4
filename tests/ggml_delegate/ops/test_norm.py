"""Normalisation on ggml equals eager, in both layouts and with every set of parameters."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.export import Dim

from orchestrator.native import NativeProgram
from tests.harness.ops import check_op, lower_ggml


def normal(sizes: tuple[int, ...], scale: float = 3, seed: int = 0) -> Tensor:
    """Normally distributed numbers around 1."""
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed + 1)) * scale + 1


def drawn(module: nn.Module) -> nn.Module:
    """The module with parameters that no default has."""
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(normal(tuple(parameter.shape), 0.5, seed))
    return module


LAYER_NORMS = [
    ((6,), 1),
    ((3, 192), 1),
    ((1, 5, 37), 1),
    ((3, 4, 5), 2),
    ((2, 3, 4, 7), 3),
    ((2, 3, 1, 2, 9), 1),
]


def test_layer_norm() -> None:
    def function(*xs: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            F.layer_norm(x, w.shape, weight, bias, 1e-3)
            for x, w, b in zip(xs[::3], xs[1::3], xs[2::3], strict=True)
            for weight in (None, w)
            for bias in (None, b)
        )

    inputs = []
    for sizes, rank in LAYER_NORMS:
        shape = sizes[len(sizes) - rank :]
        inputs += [normal(sizes), normal(shape, seed=1), normal(shape, seed=2)]
    check_op(function, inputs)


def test_layer_norm_with_own_parameters() -> None:
    check_op(drawn(nn.LayerNorm(33)), [normal((3, 5, 33))])
    check_op(drawn(nn.LayerNorm([5, 33], bias=False)), [normal((3, 5, 33))])


def test_layer_norm_over_what_is_not_innermost_in_memory() -> None:
    x = normal((2, 6, 5, 7))
    check_op(
        lambda x, y: (
            F.layer_norm(x.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2),
            F.layer_norm(y.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2),
            F.layer_norm(y, (5, 7)),
            F.layer_norm(x[:, 1:4, :, 2:6], (4,)),
        ),
        [x, x.to(memory_format=torch.channels_last)],
    )


def test_layer_norm_of_a_constant_row_and_of_one_element() -> None:
    x = normal((4, 16))
    x[1] = 3.0
    check_op(lambda x: (F.layer_norm(x, (16,)), F.layer_norm(x[:, :1], (1,)) + x), [x])


def test_native_layer_norm_whose_statistics_are_used_is_left_to_others() -> None:
    check_op(
        lambda x: torch.native_layer_norm(x, [7], None, None, 1e-5)[:2],
        [normal((3, 7))],
        delegated=False,
        reason="result 1 of aten.native_layer_norm",
    )


def test_rms_norm() -> None:
    def function(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            F.rms_norm(x, list(shape), w, eps)
            for eps in (None, 1e-6, 1e-2)
            for shape, w in (((37,), weight), ((37,), None), ((4, 37), None))
        )

    check_op(function, [normal((3, 4, 37)), normal((37,), seed=1)])


def test_rms_norm_with_own_weight() -> None:
    check_op(drawn(nn.RMSNorm([4, 9])), [normal((2, 3, 4, 9))])


def test_group_norm() -> None:
    def function(weight: Tensor, bias: Tensor, *xs: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            F.group_norm(x, groups, weight, bias)
            for x in xs
            for groups in (1, 2, 3, 12)
            if x[0].numel() > groups
        )

    inputs = [normal(sizes) for sizes in ((3, 12), (2, 12, 5), (3, 12, 5, 7), (1, 12, 2, 3, 4))]
    check_op(function, [normal((12,), seed=1), normal((12,), seed=2), *inputs])


def test_group_norm_of_single_elements_is_the_bias() -> None:
    """Eager rounds x / sqrt(eps) here, 300 times the result, so float64 is the reference."""
    norm = drawn(nn.GroupNorm(12, 12))
    x = normal((3, 12))
    program, recorder, _ = lower_ggml(norm, (x,))
    assert not recorder.reasons
    (actual,) = NativeProgram(program.buffer).run("forward", [x])
    with torch.no_grad():
        expected = copy.deepcopy(norm).double()(x.double())
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-6)


def test_group_norm_with_own_parameters() -> None:
    check_op(drawn(nn.GroupNorm(3, 12)), [normal((3, 12, 5, 7))])


@pytest.mark.parametrize("channels", [12, 40])
def test_group_norm_of_channels_last(channels: int) -> None:
    x = normal((2, channels, 17, 19)).to(memory_format=torch.channels_last)
    check_op(
        lambda x: (F.group_norm(x, 4), F.group_norm(x, 1, eps=1e-2), F.group_norm(x, channels)), [x]
    )


def test_group_norm_of_views_and_without_some_parameters() -> None:
    x = normal((2, 12, 5, 7))
    weight = normal((6,), seed=1)
    check_op(
        lambda x, w: (
            F.group_norm(x[:, 3:9], 3, w),
            F.group_norm(x[:, 3:9], 2, None, w),
            F.group_norm(x.permute(0, 2, 1, 3)[:, :, :6], 5),
        ),
        [x, weight],
    )


@pytest.mark.parametrize("module", [nn.InstanceNorm1d(6), nn.InstanceNorm1d(6, affine=True)])
def test_instance_norm(module: nn.Module) -> None:
    check_op(drawn(module), [normal((3, 6, 11))])


def test_instance_norm_of_channels_last() -> None:
    x = normal((3, 6, 11, 5)).to(memory_format=torch.channels_last)
    check_op(drawn(nn.InstanceNorm2d(6, affine=True)), [x])


def batch_norm(rank: int, affine: bool = True) -> nn.Module:
    """A BatchNorm of six channels with statistics of its own."""
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[rank]
    module = drawn(kind(6, affine=affine))
    module.running_mean.copy_(normal((6,), seed=3))
    module.running_var.copy_(normal((6,), seed=4).abs() + 0.5)
    return module.eval()


class BatchNorms(nn.Module):
    """BatchNorms that follow nothing they could be folded into."""

    def __init__(self, ranks: list[int]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(batch_norm(rank, affine=rank != 3) for rank in ranks)

    def forward(self, *xs: Tensor) -> tuple[Tensor, ...]:
        return tuple(norm(x).relu() for norm, x in zip(self.norms, xs, strict=True))


def test_batch_norm_that_cannot_be_folded() -> None:
    inputs = [normal(sizes) for sizes in ((3, 6), (3, 6, 5), (3, 6, 5, 7), (1, 6, 2, 3, 4))]
    inputs.append(normal((3, 6, 5, 7)).to(memory_format=torch.channels_last))
    check_op(BatchNorms([2, 3, 4, 5, 4]), inputs)


def test_dynamic_sizes() -> None:
    batch, length = Dim("batch", min=1, max=6), Dim("length", min=2, max=50)
    check_op(
        lambda x: (F.layer_norm(x, (8,)), F.rms_norm(x, (8,)), F.group_norm(x.transpose(1, 2), 4)),
        [normal((3, 17, 8))],
        dynamic_shapes={"args": ({0: batch, 1: length},)},
        more_inputs=[[normal((1, 50, 8))], [normal((6, 2, 8))]],
    )
