"""Scales and minimums that are integers times a float16 of eight groups, as in GGUF's K-quants."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ggml_delegate import ir
from ggml_delegate.ops.panels import to_super_blocks
from orchestrator import lower
from orchestrator.native import NativeProgram
from tests.ggml_delegate.ops.test_group_weights import (
    Layer,
    Quantized,
    SideBySide,
    Tied,
    assert_near,
    each_bits,
    each_minimums,
    native,
    tensor,
)
from tests.harness.changeable import ChangeableFile, changeable_file, resize, retype
from tests.harness.ops import lower_ggml

LOW, HIGH = -128, 127


def products(n: int, groups: int, low: int = LOW, high: int = HIGH, seed: int = 3) -> Tensor:
    """Integers of 8 bits times a float16 for eight of them, as float32."""
    generator = torch.Generator().manual_seed(seed)
    integers = torch.randint(low, high + 1, (n, groups // 8, 8), generator=generator)
    factors = (torch.rand(n, groups // 8, 1, generator=generator) / 1000 + 1e-5).half()
    return (integers.float() * factors.float()).flatten(1)


def read(packed: Tensor) -> Tensor:
    """[p, blocks, 160] -> [p * 16, blocks * 8] of float32, as the schema says."""
    integers = packed[..., :128].unflatten(-1, (8, 16)).float()
    factors = packed[..., 128:].contiguous().view(torch.float16).float()
    return (integers * factors[:, :, None]).permute(0, 3, 1, 2).flatten(2).flatten(0, 1)


def with_super_blocks(layer: Layer, low: int = LOW) -> Layer:
    """The layer with such scales, and such minimums if it has any."""
    sizes = layer.scales.shape
    layer.scales = products(*sizes, low=low)
    if layer.mins is not None:
        layer.mins = -products(*sizes, low=0, seed=4) * 4
    return layer


# ---- packing -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 16, 40])
@pytest.mark.parametrize("high", [1, 63, 127])
def test_nothing_is_lost(n: int, high: int) -> None:
    for low in (0, -high - 1):
        numbers = products(n, 24, low, high)
        packed = to_super_blocks(numbers)
        assert packed is not None
        assert packed.shape == (-(-n // 16), 3, 160)
        assert torch.equal(read(packed)[:n], numbers)
        assert not read(packed)[n:].any()


def test_integers_with_a_divisor() -> None:
    """Their greatest common divisor times the factor may have more digits than a float16."""
    for divisor in (2, 3, 7, 42, 127):
        integers = torch.tensor([[0, 1, -1, 0, 2, -3, 1, 0]]) * divisor
        numbers = integers.clamp(LOW, HIGH // divisor * divisor) * 1.0009765625 * 2.0**-9
        packed = to_super_blocks(numbers)
        assert packed is not None, divisor
        assert torch.equal(read(packed)[:1], numbers)


def test_blocks_of_zeros_and_the_least_and_largest_factors() -> None:
    numbers = torch.zeros(3, 8)
    numbers[1] = torch.arange(-4, 4) * 2.0**-24
    numbers[2] = torch.arange(-4, 4) * 65504.0
    packed = to_super_blocks(numbers)
    assert packed is not None
    assert torch.equal(read(packed)[:3], numbers)


@pytest.mark.parametrize(
    "odd", [1 / 3, 129 * 2.0**-9, -129 * 2.0**-9, 2.0**-25, math.nan, math.inf, 1e30]
)
def test_other_numbers_are_left(odd: float) -> None:
    numbers = torch.arange(1, 17, dtype=torch.float32).reshape(1, 16).repeat(20, 1) * 2.0**-9
    assert to_super_blocks(numbers) is not None
    numbers[7, 11] = odd
    assert to_super_blocks(numbers) is None


@pytest.mark.parametrize("groups", [0, 1, 7, 12])
def test_groups_that_do_not_come_in_eights_are_left(groups: int) -> None:
    assert to_super_blocks(torch.ones(3, groups)) is None


# ---- products and tables -------------------------------------------------------------------


@each_bits
@each_minimums
@pytest.mark.parametrize("rows", [1, 2, 3, 40])
def test_results_are_as_near_to_float64_as_of_floats(rows: int, minimums: bool, bits: int) -> None:
    layers = [
        with_super_blocks(Layer(n, k, group=group, bits=bits, minimums=minimums))
        for n, k, group in ((67, 256, 32), (81, 384, 16), (130, 512, 64), (33, 40, 5), (1, 256, 32))
    ]
    inputs = [tensor(rows, layer.q.shape[1]) for layer in layers]
    results = native(SideBySide(layers), *inputs).run("forward", inputs)
    for layer, x, result in zip(layers, inputs, results, strict=True):
        assert_near(result, layer.exact(x))


@each_bits
@each_minimums
def test_every_element_is_itself(minimums: bool, bits: int) -> None:
    layer = with_super_blocks(Layer(40, 256, bits=bits, minimums=minimums))
    x = torch.eye(256)
    (result,) = native(layer, x).run("forward", [x])
    torch.testing.assert_close(result, layer.weight().t(), rtol=2.0**-22, atol=1e-8)


@each_minimums
def test_activations_that_become_integers(minimums: bool) -> None:
    model = Quantized(minimums)
    model.layer = with_super_blocks(Layer(70, 256, minimums=minimums))
    for rows in (1, 3, 40):
        x = tensor(rows, 256)
        (result,) = native(model, x).run("forward", [x])
        assert_near(result, model.layer.exact(model.quantized(x)))


@each_bits
@each_minimums
def test_tables_that_layers_share(minimums: bool, bits: int) -> None:
    model = Tied(bits, minimums).eval()
    model.layer = with_super_blocks(Layer(500, 256, bits=bits, minimums=minimums))
    indices = torch.tensor([[0, 7, 16, 499]])
    program = lower(model, (indices,), backends=["ggml"], tune="off")
    assert_near(program(indices), model.layer.exact(model.layer.weight()[indices] * 2))
    once = 512 * (256 * bits // 8 + 8 * 10 // 8 * (1 + minimums))
    assert once < len(program.buffer) < once + 6_000


@pytest.mark.parametrize(
    ("how", "bits_per_weight"),
    [
        ({"bits": 4}, 4.625),  # as Q4_K
        ({"bits": 8, "group": 16, "minimums": False}, 8.625),  # as Q6_K
    ],
    ids=["Q4_K", "Q6_K"],
)
def test_the_file_holds_what_the_model_has(how: dict[str, Any], bits_per_weight: float) -> None:
    layer = with_super_blocks(Layer(512, 1024, **how))
    program, _, _ = lower_ggml(layer, [tensor(2, 1024)])
    packed = 512 * 1024 * bits_per_weight / 8
    assert packed < len(program.buffer) < packed + 4_000


# ---- files that say something else ---------------------------------------------------------


@functools.cache
def _file(bits: int) -> ChangeableFile:
    layer: nn.Module = with_super_blocks(Layer(20, 256, bits=bits))
    return changeable_file(layer, [tensor(3, 256)])


_X, _WEIGHT, _SCALES, _MINIMUMS = range(4)


def _run(bits: int, mutate: Callable[[Any, Any], object]) -> None:
    program = _file(bits).program()
    (node,) = program.nodes
    mutate(program, node)
    NativeProgram(_file(bits).with_program(program)).run("forward", [tensor(3, 256)])


def _others(number: int, group: int) -> Callable[[Any, Any], object]:
    def mutate(program: Any, node: Any) -> None:
        node.op.integers.group = group
        resize(number, 2, 1, 160)(program, node)

    return mutate


MUTATIONS: dict[str, Callable[[Any, Any], object]] = {
    "fewer groups": lambda p, n: setattr(n.op.integers, "group", 64),
    "more groups": lambda p, n: setattr(n.op.integers, "group", 16),
    "groups that are not in eights": _others(_SCALES, 100),
    "fewer scales": resize(_SCALES, 1, 1, 160),
    "more scales": resize(_SCALES, 2, 2, 160),
    "fewer minimums": resize(_MINIMUMS, 1, 1, 160),
    "more minimums": resize(_MINIMUMS, 2, 2, 160),
    "other blocks of scales": resize(_SCALES, 2, 1, 80),
    "other blocks of minimums": resize(_MINIMUMS, 2, 1, 80),
    "two dimensions": resize(_SCALES, 2, 160),
    "bytes without a sign": retype(_SCALES, ir.DType.UInt8),
    "halves": retype(_MINIMUMS, ir.DType.Float16),
}


@each_bits
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_file_is_an_error(name: str, bits: int) -> None:
    with pytest.raises(RuntimeError):
        _run(bits, MUTATIONS[name])


@each_bits
def test_the_file_as_it_is_runs(bits: int) -> None:
    _run(bits, lambda program, node: None)
