"""Linear layers with weights of integers, by groups scales and minimums of any float type."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torchao  # noqa: F401  (torchao's ops)
from torch import Tensor, nn
from torch.export import Dim

from ggml_delegate import ir
from ggml_delegate.ops.panels import to_float28
from ggml_delegate.ops.quantized_weight import narrowest
from orchestrator import lower
from orchestrator.backends import resolve_backends
from orchestrator.flow import plan_only
from orchestrator.frontend.group_quantization import dequantize_groups
from orchestrator.native import NativeProgram
from orchestrator.options import PlanOptions
from orchestrator.planner import duplicated_bytes, private_bytes
from tests.harness.changeable import ChangeableFile, changeable_file, resize, retype, set_input
from tests.harness.ops import check_op, lower_ggml, rejections, undelegated

ERROR = 1e-5
"""Of the result's largest value."""
HALF, BRAIN, FLOAT = torch.float16, torch.bfloat16, torch.float32
each_bits = pytest.mark.parametrize("bits", [8, 4])
each_minimums = pytest.mark.parametrize("minimums", [False, True], ids=["scales", "minimums"])
each_dtype = pytest.mark.parametrize("dtype", [FLOAT, HALF, BRAIN], ids=str)


def tensor(*sizes: int, seed: int = 5) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


class Layer(nn.Module):
    """A linear layer; integers of all values that its bits have.

    dtype: of the scales and minimums. affine: whether torchao's op expands the weight.
    """

    def __init__(
        self,
        n: int,
        k: int,
        *,
        bits: int = 4,
        group: int = 32,
        minimums: bool = True,
        dtype: torch.dtype = HALF,
        bias: bool = False,
        affine: bool = False,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(n * 1000 + k)
        self.bits, self.group, self.affine = bits, group, affine
        low = 0 if minimums and bits == 4 else -(1 << bits - 1)
        q = torch.randint(low, low + (1 << bits), (n, k), generator=generator)
        self.register_buffer("q", q.to(torch.uint8 if low == 0 else torch.int8))
        scales = torch.rand(n, k // group, generator=generator) / 100 + 1e-3
        self.register_buffer("scales", scales.to(dtype))
        middle = -7.5 if low == 0 else 0.3
        mins = middle * scales + torch.randn(scales.shape, generator=generator) / 100
        self.register_buffer("mins", mins.to(dtype) if minimums else None)
        self.bias = nn.Parameter(torch.randn(n, generator=generator)) if bias else None

    def weight(self) -> Tensor:
        """The weight as the graph expands it."""
        if self.affine:
            low = -(1 << self.bits - 1)
            return torch.ops.torchao.dequantize_affine(
                self.q, [1, self.group], self.scales, None, torch.int8, low, -low - 1
            )
        return dequantize_groups(self.q, self.scales, self.mins, self.bits, self.group, FLOAT)

    def exact(self, x: Tensor) -> Tensor:
        """The result in float64."""
        columns = [
            each.double().repeat_interleave(self.group, 1)
            for each in (self.scales, self.mins)
            if each is not None
        ]
        weight = self.q.double() * columns[0] + sum(columns[1:])
        result = x.double() @ weight.t()
        return result if self.bias is None else result + self.bias.detach().double()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight(), self.bias)


class SideBySide(nn.Module):
    """Layers, each of an input of its own: one program is lowered faster than several."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, inputs, strict=True)]


def native(model: nn.Module, *inputs: Tensor) -> NativeProgram:
    """The model as ggml alone runs it."""
    program, recorder, edge = lower_ggml(model.eval(), inputs)
    assert not undelegated(edge), recorder.reasons
    return NativeProgram(program.buffer)


def assert_near(result: Tensor, expected: Tensor) -> None:
    error = (result.double() - expected).abs().max() / expected.abs().max()
    assert error <= ERROR, f"off by {error:.3g} of the largest value"


@each_bits
@each_minimums
@each_dtype
@pytest.mark.parametrize("rows", [1, 2, 3, 40])
def test_results_are_as_near_to_float64_as_of_floats(
    rows: int, dtype: torch.dtype, minimums: bool, bits: int
) -> None:
    """Of split rows, of few and of many, with more results than fit whole panels."""
    layers = [
        Layer(n, k, group=group, bias=n % 2 == 0, bits=bits, minimums=minimums, dtype=dtype)
        for n, k, group in ((67, 256, 32), (81, 96, 16), (130, 320, 64), (33, 40, 5), (1, 32, 32))
    ]
    inputs = [tensor(rows, layer.q.shape[1]) for layer in layers]
    results = native(SideBySide(layers), *inputs).run("forward", inputs)
    for layer, x, result in zip(layers, inputs, results, strict=True):
        assert_near(result, layer.exact(x))


@each_bits
@pytest.mark.parametrize("dtype", [HALF, BRAIN], ids=str)
def test_torchao_with_half_scales(dtype: torch.dtype, bits: int) -> None:
    for rows in (1, 3, 40):
        layer = Layer(70, 128, bits=bits, minimums=False, dtype=dtype, affine=True)
        x = tensor(rows, 128)
        (result,) = native(layer, x).run("forward", [x])
        assert_near(result, layer.exact(x))


@each_bits
@each_minimums
@each_dtype
def test_every_element_is_itself(dtype: torch.dtype, minimums: bool, bits: int) -> None:
    """An identity as input reads the weight out, rounded once or twice."""
    layer = Layer(40, 64, bits=bits, minimums=minimums, dtype=dtype)
    (result,) = native(layer, torch.eye(64)).run("forward", [torch.eye(64)])
    torch.testing.assert_close(result, layer.weight().t(), rtol=2.0**-22, atol=1e-8)


@each_bits
def test_any_number_of_rows(bits: int) -> None:
    check_op(
        Layer(70, 128, bits=bits),
        [tensor(7, 128)],
        dynamic_shapes=({0: Dim("n", min=1, max=300)},),
        more_inputs=[[tensor(size, 128, seed=size)] for size in (1, 2, 3, 13, 300)],
    )


def test_integers_beyond_their_bits() -> None:
    """They are stored in 8 bits."""
    for minimums, beyond in ((True, 16), (False, 9)):
        layer = Layer(9, 64, minimums=minimums)
        layer.q[3, 5] = beyond
        check_op(layer, [tensor(3, 64)])


@each_bits
def test_blocks_that_a_row_tells_apart(bits: int) -> None:
    """Sums of a row alone count, where integers are 0: what minimums are multiplied with."""
    layer = Layer(80, 1024, bits=bits)
    layer.q.zero_()
    for scale in (1.0, 1e-20, 1e20):
        x = (tensor(1, 1024) + 0.5) * scale
        (result,) = native(layer, x).run("forward", [x])
        assert_near(result, layer.exact(x))


@pytest.mark.parametrize("rows", [1, 2, 3, 40])
@pytest.mark.parametrize("name", ["scales", "mins"])
@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_no_number_and_infinity_among_scales(odd: float, name: str, rows: int) -> None:
    """What they are a factor of is no number or infinite, and nothing else."""
    layer = Layer(70, 64, dtype=FLOAT)
    getattr(layer, name)[3, 1] = odd
    x = tensor(rows, 64)
    (result,) = native(layer, x).run("forward", [x])
    assert not result[:, 3].isfinite().any()
    others = [i for i in range(70) if i != 3]
    assert_near(result[:, others], layer.exact(x)[:, others])


# ---- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "bits_per_weight"),
    [
        ({"bits": 4, "minimums": False}, 4.5),  # as Q4_0
        ({"bits": 4, "minimums": True}, 5.0),  # as Q4_1
        ({"bits": 8, "minimums": False}, 8.5),  # as Q8_0
        ({"bits": 4, "minimums": False, "dtype": BRAIN, "affine": True}, 4.5),
        ({"bits": 4, "minimums": False, "dtype": FLOAT, "affine": True}, 4.875),
        ({"bits": 4, "minimums": True, "dtype": FLOAT}, 5.875),
        ({"bits": 8, "minimums": True, "group": 64, "dtype": BRAIN}, 8.5),
    ],
    ids=str,
)
def test_the_file_holds_what_the_model_has(how: dict[str, Any], bits_per_weight: float) -> None:
    program, _, _ = lower_ggml(Layer(512, 1024, **how), [tensor(2, 1024)])
    packed = 512 * 1024 * bits_per_weight / 8
    assert packed < len(program.buffer) < packed + 4_000


def test_floats_are_stored_in_half_types_where_that_changes_none() -> None:
    fine = torch.tensor([1.0, -0.0, 2.0**-24, 65504.0, math.inf])
    assert narrowest(fine).dtype == HALF
    assert narrowest(torch.tensor([1.0, 2.0**100])).dtype == BRAIN
    for odd in (1 / 3, math.nan, 1 + 2.0**-11):
        assert narrowest(torch.tensor([1.0, odd])).dtype == FLOAT


def float28_of(packed: Tensor) -> Tensor:
    """[p, k, 56] -> [p * 16, k] of float32, as the schema says."""
    parts = packed.view(torch.uint8).to(torch.int64).split([32, 16, 8], -1)
    low = parts[0][..., ::2] + (parts[0][..., 1::2] << 8)
    words = (parts[2].unflatten(-1, (2, 4)) << 8 * torch.arange(4)).sum(-1)
    rows = torch.arange(16)
    high = words[..., rows % 2] >> rows // 2 * 4 & 15
    codes = low + (parts[1] << 16) + (high << 24) + (102 << 23)
    return codes.to(torch.int32).view(FLOAT).transpose(1, 2).flatten(0, 1)


LEAST, PAST = 2.0**-25, 2.0**7


def test_scales_in_28_bits_lose_nothing() -> None:
    scales = torch.exp2(tensor(40, 5) * 5 - 9).clamp(LEAST, PAST * (1 - 2.0**-24))
    scales[0, :2] = torch.tensor([LEAST, PAST * (1 - 2.0**-24)])
    packed = to_float28(scales)
    assert packed is not None
    assert packed.shape == (3, 5, 56)
    assert torch.equal(float28_of(packed)[:40], scales)


@pytest.mark.parametrize("odd", [LEAST * (1 - 2.0**-24), PAST, -0.01, 0.0, -0.0, math.nan])
def test_other_scales_keep_their_32_bits(odd: float) -> None:
    scales = torch.full((20, 2), 1 / 3)
    scales[7, 1] = odd
    assert to_float28(scales) is None


@each_bits
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_scales_of_all_sizes(rows: int, bits: int) -> None:
    """Of 28 bits, whose exponents and mantissas are all there, and beyond."""
    layers = [Layer(n, 128, bits=bits, minimums=False, dtype=FLOAT) for n in (70, 71)]
    for layer, spread in zip(layers, (3, 8), strict=True):
        layer.scales[:] = torch.exp2(tensor(*layer.scales.shape) * spread - 9)
    layers[0].scales.clamp_(LEAST, PAST / 2)
    assert [to_float28(layer.scales) is None for layer in layers] == [False, True]
    inputs = [tensor(rows, 128)] * 2
    results = native(SideBySide(layers), *inputs).run("forward", inputs)
    for layer, x, result in zip(layers, inputs, results, strict=True):
        largest = layer.exact(x).abs().amax(0)
        assert ((result.double() - layer.exact(x)).abs().amax(0) <= 2e-5 * largest).all()


@pytest.mark.parametrize("backends", [["ggml"], ["xnnpack"], ["ggml", "xnnpack"]], ids=str)
@pytest.mark.parametrize("minimums", [False, True])
def test_all_backends_compute_the_same(backends: list[str], minimums: bool) -> None:
    """XNNPACK, which has no such weights, gets floats."""
    for rows in (1, 40):
        layer = Layer(70, 128, minimums=minimums).eval()
        x = tensor(rows, 128)
        result = lower(layer, (x,), backends=backends)(x)
        assert_near(result, layer.exact(x))


class Tied(nn.Module):
    """An embedding whose table is a linear layer's weight too."""

    def __init__(self, bits: int, minimums: bool) -> None:
        super().__init__()
        self.layer = Layer(500, 64, bits=bits, minimums=minimums)

    def forward(self, indices: Tensor) -> Tensor:
        weight = self.layer.weight()
        return nn.functional.linear(nn.functional.embedding(indices, weight) * 2, weight)


@pytest.mark.parametrize("backends", [["ggml"], ["xnnpack"], ["ggml", "xnnpack"]], ids=str)
@each_minimums
@each_bits
def test_tables_that_layers_share(bits: int, minimums: bool, backends: list[str]) -> None:
    """Where there is ggml, they are stored once, and count once."""
    model = Tied(bits, minimums).eval()
    indices = torch.tensor([[0, 7, 499]])
    program = lower(model, (indices,), backends=backends)
    assert_near(program(indices), model.layer.exact(model.layer.weight()[indices] * 2))
    if "ggml" not in backends:
        return
    once = 512 * (64 * bits // 8 + 2 * 2 * (1 + minimums))
    assert once < len(program.buffer) < once + 6_000
    (segment,) = program.report.methods[0].segments
    assert segment.backend == "ggml"
    assert once - 1_000 < segment.weight_bytes < once + 100
    assert list(segment.schemes.values()) == [2]


def test_a_table_that_a_layer_shares_is_one_constant_of_the_plan() -> None:
    model = Tied(8, True).eval()
    exported = torch.export.export(model, (torch.tensor([[0, 7, 499]]),))
    planned = plan_only(exported, resolve_backends(["ggml"]), PlanOptions(tune="off")).planned
    sizes = sorted(constant.nbytes for constant in planned.graph.constants)
    assert sizes == [500 * 2 * 2, 500 * 2 * 2, 500 * 64]
    assert all(len(constant.atoms) == 2 for constant in planned.graph.constants)
    where = {atom: part.backend for part in planned.plan.segments for atom in part.atoms}
    assert duplicated_bytes(planned.graph, where) == 0
    assert private_bytes(planned.graph, where) == pytest.approx(0.02 * sum(sizes), rel=0.01)


class Quantized(nn.Module):
    """A layer whose activations become integers in every run."""

    def __init__(self, minimums: bool) -> None:
        super().__init__()
        self.layer = Layer(70, 128, minimums=minimums)

    def quantized(self, x: Tensor) -> Tensor:
        ops, block = torch.ops.torchao, [1, x.shape[-1]]
        low, high, int8 = -128, 127, torch.int8
        scale, zero = ops.choose_qparams_affine(
            x, "ASYMMETRIC", block, int8, low, high, None, FLOAT, int8
        )
        q = ops.quantize_affine(x, block, scale, zero, int8, low, high)
        return ops.dequantize_affine(q, block, scale, zero, int8, low, high)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.quantized(x))


@each_minimums
def test_activations_that_become_integers(minimums: bool) -> None:
    model = Quantized(minimums)
    for rows in (1, 3, 40):
        x = tensor(rows, 128)
        (result,) = native(model, x).run("forward", [x])
        assert_near(result, model.layer.exact(model.quantized(x)))


class HalfWeight(nn.Module):
    """A weight that eager PyTorch rounds to float16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer(8, 32)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        weight = dequantize_groups(layer.q, layer.scales, layer.mins, 4, 32, HALF)
        return nn.functional.linear(x, weight)


def test_rounded_weights_are_left() -> None:
    reasons = rejections(HalfWeight(), [tensor(3, 32).half()])
    assert any("floats of float32" in reason for reason in reasons)


# ---- files that say something else ---------------------------------------------------------


@functools.cache
def _file(bits: int) -> ChangeableFile:
    return changeable_file(Layer(20, 64, bits=bits, bias=True), [tensor(3, 64)])


_X, _WEIGHT, _BIAS, _SCALES, _MINIMUMS = range(5)


def _run(bits: int, mutate: Callable[[Any, Any], object]) -> None:
    program = _file(bits).program()
    (node,) = program.nodes
    mutate(program, node)
    NativeProgram(_file(bits).with_program(program)).run("forward", [tensor(3, 64)])


def _of_28_bits(*dims: int) -> Callable[[Any, Any], object]:
    def mutate(program: Any, node: Any) -> None:
        retype(_SCALES, ir.DType.Int8)(program, node)
        resize(_SCALES, *dims)(program, node)

    return mutate


MUTATIONS: dict[str, Callable[[Any, Any], object]] = {
    "groups of another size": lambda p, n: setattr(n.op.integers, "group", 16),
    "scales absent": set_input(_SCALES, None),
    "scales are the integers": set_input(_SCALES, _WEIGHT),
    "minimums are the integers": set_input(_MINIMUMS, _WEIGHT),
    "minimums are the bias": set_input(_MINIMUMS, _BIAS),
    "minimums are x": set_input(_MINIMUMS, _X),
    "fewer scales": resize(_SCALES, 2, 1, 16),
    "fewer minimums": resize(_MINIMUMS, 1, 2, 16),
    "more minimums": resize(_MINIMUMS, 2, 3, 16),
    "scales of float32": retype(_SCALES, ir.DType.Float32),
    "minimums of float32": retype(_MINIMUMS, ir.DType.Float32),
    "scales of int8": retype(_SCALES, ir.DType.Int8),
    "scales of 28 bits that are not there": _of_28_bits(2, 2, 56),
    "fewer scales of 28 bits": _of_28_bits(2, 1, 56),
    "scales of 28 bits in other panels": _of_28_bits(2, 2, 32),
    "minimums of int32": retype(_MINIMUMS, ir.DType.Int32),
    "minimums of int8": retype(_MINIMUMS, ir.DType.Int8),
    "an older version": lambda p, n: setattr(p, "version", 7),
}


@each_bits
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_file_is_an_error(name: str, bits: int) -> None:
    with pytest.raises(RuntimeError):
        _run(bits, MUTATIONS[name])


def test_minimums_may_be_left_out() -> None:
    for bits in (8, 4):
        _run(bits, lambda program, node: None)
        _run(bits, set_input(_MINIMUMS, None))
