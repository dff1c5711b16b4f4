"""Quantized models come out as eager computes them, in files no larger than ExecuTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional
from torchao.quantization import (
    Int8DynamicActivationInt8WeightConfig,
    Int8DynamicActivationIntxWeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    MappingType,
    PerAxis,
    PerGroup,
)

from examples.models.layers import SqueezeExcite
from examples.quantization import pt2e
from orchestrator import lower
from orchestrator.program import LoweredProgram
from tests.harness.ops import relative_error
from tests.harness.quantize import bytes_of_executorch, torchao_quantized
from tests.harness.quantized import allowed_outputs

LISTS = (["ggml", "xnnpack"], ["xnnpack"], ["ggml"])
# Groups that move between delegates may round a value to the next integer.
STEPS = 2e-2
# Weights alone are exact.
EXACT = 1e-5

# By what backends treat alike.
WEIGHTS: dict[str, dict[str, Any]] = {
    "4 bits in groups": {"weight_dtype": torch.int4, "weight_granularity": PerGroup(32)},
    "4 bits in small groups": {"weight_dtype": torch.int4, "weight_granularity": PerGroup(16)},
    "8 bits in groups": {"weight_dtype": torch.int8, "weight_granularity": PerGroup(32)},
    "8 bits": {"weight_dtype": torch.int8, "weight_granularity": PerAxis(0)},
    "3 bits": {"weight_dtype": torch.int3, "weight_granularity": PerAxis(0)},
    "with zero points": {
        "weight_dtype": torch.int4,
        "weight_granularity": PerGroup(32),
        "weight_mapping_type": MappingType.ASYMMETRIC,
    },
}

backends = pytest.mark.parametrize("backends", LISTS, ids="+".join)


class Residuals(nn.Module):
    """Convolutions of one pixel, with sums around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 1)
        self.a, self.b, self.c = (nn.Conv2d(channels, channels, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.a(x).relu()
        return x + self.c(self.b(x).relu())


class Same(nn.Module):
    """An even kernel that keeps the size, so that padding is an op of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 4, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()


class Read(nn.Module):
    """What a quantized layer gives, read by layers that are not, one of them on another backend."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 10, 3, 2, 1), nn.Conv2d(10, 10, 2, padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = functional.hardswish(functional.hardswish(y))
        return torch.cat([functional.group_norm(y, 2).flatten(1), self.b(z).flatten(1)], 1)


class Tied(nn.Module):
    """Layers that are used twice. Of a convolution PT2E quantizes the weight for one use only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 4)
        for layer in (self.conv, self.linear):
            nn.init.normal_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x) + self.conv(self.conv(x).relu()) * 3
        y = self.linear(x.mean((2, 3)))
        return y + self.linear(y)


class Mixed(nn.Module):
    """Quantized layers around ops that only ggml, or only a kernel, takes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.norm, self.head = nn.GroupNorm(2, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.gelu(self.norm(self.a(x)))
        y = functional.hardswish(self.b(y)) + y
        pools = (functional.max_pool2d, functional.avg_pool2d)
        y = torch.cat([pool(y, 2) for pool in pools], 1)[:, ::2]
        return self.head(y.mean((2, 3)))


SHARED: dict[str, Callable[[Tensor, nn.Module, nn.Module], Any]] = {
    "a result": lambda x, a, b: (a((x + x).relu()), x + x),
    "a linear layer before": lambda x, a, b: (b(x), a(x)),
    "a linear layer after": lambda x, a, b: (a(x), b(x)),
    "a linear layer of it": lambda x, a, b: b(a(x)),
    "the result of a linear layer": lambda x, a, b: a(b(x)),
    "a join": lambda x, a, b: (torch.cat([x.relu(), x], 1), a(x.relu()), x.flatten(0, 1)),
    "sums": lambda x, a, b: (a(x + 1), (x + 1).relu(), a(x + 1 + x)),
    "a sum after it": lambda x, a, b: x + a(x),
    "two convolutions": lambda x, a, b: a(x) + a(x * 2),
}
"""What reads the image of a convolution, or a linear layer, beside it."""


class Shared(nn.Module):
    """A convolution and a linear layer around one image."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.function = SHARED[shape]
        self.conv, self.linear = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, self.conv, self.linear)


def mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))


def assert_equal(
    program: LoweredProgram, model: nn.Module, *inputs: Tensor, tolerance: float
) -> None:
    with torch.no_grad():
        expected = model(*inputs)
    assert relative_error(program(*inputs), expected) <= tolerance
    assert expected.std() > 5 * tolerance * expected.abs().max()


class TestStatic:
    @backends
    @pytest.mark.parametrize("size", [(4, 4), (9, 5)], ids=str)
    def test_images_of_any_size(self, backends: list[str], size: tuple[int, int]) -> None:
        # Where channels, height and width are alike, a wrong dim order goes unnoticed by shapes.
        x = torch.randn(2, 3, *size)
        model = pt2e(Residuals(size[0]), (x,), per_channel=size[0] == size[1])
        program = lower(model, (x,), backends=backends)
        assert_equal(program, model, torch.randn_like(x), tolerance=STEPS)

    @backends
    @pytest.mark.parametrize("make", [Same, Mixed, Tied, Read])
    def test_groups_stay_whole(self, backends: list[str], make: Callable[[], nn.Module]) -> None:
        x = torch.randn(1, 3 if make is Mixed else 4, 14, 10)
        model = pt2e(make(), (x,))
        program = lower(model, (x,), backends=backends)
        assert_equal(program, model, torch.randn_like(x), tolerance=STEPS)

    @backends
    def test_padded_volumes(self, backends: list[str]) -> None:
        x = torch.randn(1, 3, 4, 4, 4)
        model = pt2e(nn.Sequential(nn.Conv3d(3, 4, 3, padding=1)), (x,))
        program = lower(model, (x,), backends=backends)
        assert_equal(program, model, torch.randn_like(x), tolerance=STEPS)

    def test_xnnpack_gets_the_same_groups_as_alone(self) -> None:
        x = torch.randn(1, 3, 16, 16)
        model = pt2e(Residuals(96), (x,))
        program = lower(model, (x,), strategy="greedy", backends=["xnnpack", "ggml"])
        (method,) = program.report.methods
        assert [part.backend for part in method.partitions] == ["xnnpack"]
        assert len(program.buffer) <= 1.1 * bytes_of_executorch(model, (x,))

    @backends
    def test_sizes_that_vary(self, backends: list[str]) -> None:
        x = torch.randn(1, 3, 24, 24)
        shapes = ({2: Dim("H", min=8, max=64), 3: Dim("W", min=8, max=64)},)
        model = pt2e(Residuals(8), (x,), shapes=shapes)
        program = lower(model, (x,), backends=backends, dynamic_shapes=shapes)
        for height, width in ((24, 24), (9, 31), (64, 8)):
            given = torch.randn(1, 3, height, width)
            # Small values have few steps: of 38, one is more than STEPS.
            (wanted,) = allowed_outputs(model, (given,))
            assert wanted.difference(program(given)) is None

    def test_images_are_quantized_where_they_are_made(self) -> None:
        # A delegate that widens integers would move every pixel three times more.
        x = torch.randn(1, 16, 32, 32)
        block = nn.Sequential(nn.Conv2d(16, 64, 1), nn.Hardswish())
        block.append(SqueezeExcite(64, 16, nn.ReLU, nn.Mish))
        model = pt2e(block.append(nn.Conv2d(64, 16, 1)), (x,))
        program = lower(model, (x,), tune="off", threads=1)
        (method,) = program.report.methods
        by_ggml = [part for part in method.partitions if part.backend == "ggml"]
        assert [part.ops["aten.mish.default"] for part in by_ggml] == [1]
        read = [tensor.shape for part in by_ggml for tensor in part.inputs]
        assert read == [(1, 64, 1, 1)]
        assert_equal(program, model, torch.randn_like(x), tolerance=STEPS)

    @backends
    def test_images_in_channels_last(self, backends: list[str]) -> None:
        class Doubled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 3, 2, padding=(0, 1))

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                y = self.conv(x + x).relu()
                return y, functional.silu(y)

        x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
        model = pt2e(Doubled(), (x,))
        program = lower(model, (x,), backends=backends)
        given = torch.randn_like(x)
        with torch.no_grad():
            expected = model(given)
        for got, want in zip(program(given), expected, strict=True):
            assert relative_error(got, want) <= STEPS
            assert got.stride() == want.stride()


class TestDynamic:
    @backends
    def test_linear_layers(self, backends: list[str]) -> None:
        x = torch.randn(1, 8, 96)
        model = pt2e(mlp(96), (x,), dynamic=True)
        program = lower(model, (x,), backends=backends)
        assert_equal(program, model, torch.randn_like(x), tolerance=STEPS)
        assert len(program.buffer) <= 1.1 * bytes_of_executorch(model, (x,))

    @pytest.mark.parametrize("kind", WEIGHTS)
    def test_ggml_takes_a_layer_whole_and_exactly(self, kind: str) -> None:
        x = torch.randn(2, 8, 64)
        model = torchao_quantized(
            nn.Sequential(nn.Linear(64, 200)),
            Int8DynamicActivationIntxWeightConfig(**WEIGHTS[kind]),
        )
        program = lower(model, (x,), backends=["ggml"])
        assert [each.backend for each in program.report.methods[0].segments] == ["ggml"]
        assert_equal(program, model, torch.randn_like(x), tolerance=EXACT)

    @pytest.mark.parametrize(
        ("kind", "backends"),
        [(kind, backends) for kind in WEIGHTS for backends in (LISTS[0], ["ggml"])],
        ids=str,
    )
    def test_torchao_weights(self, kind: str, backends: list[str]) -> None:
        # XNNPACK has groups of 4 bits and of multiples of 32 elements only, and no zero points.
        x = torch.randn(2, 8, 64)
        config = Int8DynamicActivationIntxWeightConfig(**WEIGHTS[kind])
        model = torchao_quantized(mlp(64), config)
        program = lower(model, (x,), backends=backends)
        assert_equal(program, model, torch.randn_like(x), tolerance=STEPS)

    def test_layers_that_share_a_weight_on_kernels_alone(self) -> None:
        """So many small atoms that the planner runs some of them aside, in their order."""

        class Shared(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.other = nn.Linear(32, 32, bias=False), nn.Linear(32, 32)
                self.again = nn.Linear(32, 32)
                self.again.weight = self.other.weight

            def forward(self, x: Tensor) -> tuple[Tensor, ...]:
                first, y = self.one(x), self.other(x)
                return first, self.again(y), y.relu(), y.relu(), y.relu(), y

        x = torch.randn(1, 1, 32)
        config = Int8DynamicActivationIntxWeightConfig(**WEIGHTS["8 bits in groups"])
        model = torchao_quantized(Shared(), config)
        program = lower(model, (x,), backends=[])
        with torch.no_grad():
            expected = model(x)
        for got, want in zip(program(x), expected, strict=True):
            assert relative_error(got, want) <= STEPS
            assert want.std() > 5 * STEPS * want.abs().max()

    @backends
    def test_convolutions_after_others(self, backends: list[str]) -> None:
        x = torch.randn(1, 3, 12, 10)
        model = pt2e(
            nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3)),
            (x,),
            dynamic=True,
        )
        program = lower(model, (x,), backends=backends)
        assert_equal(program, model, torch.randn_like(x), tolerance=STEPS)

    @pytest.mark.parametrize("shape", SHARED)
    def test_images_that_others_read_as_well(self, shape: str) -> None:
        """XNNPACK would turn what a dynamic convolution reads to channels-last for all readers."""
        x = torch.randn(1, 4, 6, 6)
        model = pt2e(Shared(shape), (x,), dynamic=True)
        program = lower(model, (x,), backends=["xnnpack"], strategy="greedy")
        x = torch.randn_like(x)
        for got, want in zip(program(x), model(x), strict=True):
            assert relative_error(got, want) <= STEPS

    @backends
    @pytest.mark.parametrize("strategy", ["cost", "greedy"])
    def test_images_that_are_results_as_well(self, strategy: Any, backends: list[str]) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 1)

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                y = self.conv(x)
                return y.sigmoid(), y

        x = torch.randn(1, 4, 4, 4)
        model = pt2e(Model(), (x,))
        program = lower(model, (x,), backends=backends, strategy=strategy)
        with torch.no_grad():
            expected = model(x)
        for got, want in zip(program(x), expected, strict=True):
            assert relative_error(got, want) <= STEPS

    def test_a_convolution_that_alone_reads_its_image_stays_quantized(self) -> None:
        x = torch.randn(1, 64, 6, 6)
        model = pt2e(nn.Sequential(nn.ReLU(), nn.Conv2d(64, 64, 3)), (x,), dynamic=True)
        program = lower(model, (x,), backends=["xnnpack"], strategy="greedy")
        assert_equal(program, model, torch.randn_like(x), tolerance=STEPS)
        assert len(program.buffer) <= 1.1 * bytes_of_executorch(model, (x,))

    @backends
    def test_products_of_integers(self, backends: list[str]) -> None:
        # torch._int_mm, which has no kernel; XNNPACK takes what is around it for a linear layer.
        x = torch.randn(20, 64)
        model = torchao_quantized(mlp(64), Int8DynamicActivationInt8WeightConfig())
        program = lower(model, (x,), backends=backends)
        assert_equal(program, model, torch.randn_like(x), tolerance=STEPS)

    @backends
    def test_any_number_of_rows(self, backends: list[str]) -> None:
        x = torch.randn(1, 8, 64)
        shapes = ({1: Dim("T", min=1, max=32)},)
        config = Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4, weight_granularity=PerGroup(32)
        )
        model = torchao_quantized(mlp(64), config)
        program = lower(model, (x,), backends=backends, dynamic_shapes=shapes)
        for rows in (8, 1, 32):
            assert_equal(program, model, torch.randn(1, rows, 64), tolerance=STEPS)


class TestWeightsAlone:
    @pytest.mark.parametrize(
        ("kind", "backends"),
        [*((kind, ["xnnpack"]) for kind in WEIGHTS), ("8 bits", LISTS[0])],
        ids=str,
    )
    def test_linear_layers(self, kind: str, backends: list[str]) -> None:
        x = torch.randn(2, 64)
        options = {key.removeprefix("weight_"): value for key, value in WEIGHTS[kind].items()}
        options["weight_dtype"] = options.pop("dtype")
        model = torchao_quantized(mlp(64), IntxWeightOnlyConfig(**options))
        program = lower(model, (x,), backends=backends)
        assert_equal(program, model, torch.randn_like(x), tolerance=EXACT)

    @backends
    def test_scales_after_the_product(self, backends: list[str]) -> None:
        x = torch.randn(3, 64)
        model = torchao_quantized(mlp(64), Int8WeightOnlyConfig())
        program = lower(model, (x,), backends=backends)
        assert_equal(program, model, torch.randn_like(x), tolerance=EXACT)

    @backends
    @pytest.mark.parametrize("activations", ["float", "dynamic"])
    def test_layers_that_share_a_weight(self, activations: str, backends: list[str]) -> None:
        """Each is taken quantized, and ggml stores the integers once."""
        x = torch.randn(3, 128)
        model = nn.Sequential(nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 128))
        config = (
            IntxWeightOnlyConfig(torch.int8, PerAxis(0))
            if activations == "float"
            else Int8DynamicActivationIntxWeightConfig(**WEIGHTS["8 bits"])
        )
        torchao_quantized(model, config)
        model[2].weight = model[0].weight
        program = lower(model, (x,), backends=backends)
        tolerance = EXACT if activations == "float" else STEPS
        assert_equal(program, model, torch.randn_like(x), tolerance=tolerance)
        if "ggml" in backends:
            assert len(program.buffer) < 1.6 * 128 * 128

    def test_a_group_beside_them_stays_quantized(self) -> None:
        x = torch.randn(1, 8, 64)
        model = nn.Sequential(mlp(64), mlp(64))
        torchao_quantized(model[0], IntxWeightOnlyConfig(torch.int8, PerAxis(0)))
        torchao_quantized(
            model[1],
            Int8DynamicActivationIntxWeightConfig(
                weight_dtype=torch.int4, weight_granularity=PerGroup(32)
            ),
        )
        program = lower(model, (x,), strategy="greedy", backends=["xnnpack"])
        assert_equal(program, model, torch.randn_like(x), tolerance=STEPS)
        (method,) = program.report.methods
        ops = [op for part in method.partitions for op in part.ops]
        assert "torchao.choose_qparams_affine.default" in ops

    @pytest.mark.parametrize(
        ("bits", "granularity"), [(8, PerAxis(0)), (4, PerGroup(32)), (2, PerAxis(0))], ids=str
    )
    def test_embeddings_are_dequantized_row_by_row(self, bits: int, granularity: Any) -> None:
        class Tokens(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table, self.head = nn.Embedding(2000, 64, padding_idx=3), nn.Linear(64, 7)

            def forward(self, ids: Tensor) -> Tensor:
                return self.head(self.table(ids))

        ids = torch.randint(0, 2000, (2, 5))
        model = Tokens().eval()
        dtype = getattr(torch, f"int{bits}")
        torchao_quantized_table(model, IntxWeightOnlyConfig(dtype, granularity))
        program = lower(model, (ids,))
        assert_equal(program, model, torch.randint(0, 2000, (2, 5)), tolerance=EXACT)
        scales = 4 * 2000 * (2 if granularity == PerGroup(32) else 1)
        assert len(program.buffer) < 2000 * 64 * bits // 8 + scales + 10_000

    @pytest.mark.parametrize("backends", [["ggml"], ["ggml", "xnnpack"]], ids=str)
    @pytest.mark.parametrize(("bits", "granularity"), [(8, PerAxis(0)), (4, PerGroup(32))], ids=str)
    def test_tied_embeddings_are_stored_once(
        self, bits: int, granularity: Any, backends: list[str]
    ) -> None:
        class Tokens(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table, self.head = nn.Embedding(2000, 64), nn.Linear(64, 2000, bias=False)

            def forward(self, ids: Tensor) -> Tensor:
                return self.head(self.table(ids).tanh())

        ids = torch.randint(0, 2000, (2, 5))
        model = Tokens().eval()
        torchao_quantized_table(
            model, IntxWeightOnlyConfig(getattr(torch, f"int{bits}"), granularity)
        )
        model.head.weight = model.table.weight
        program = lower(model, (ids,), backends=backends)
        assert_equal(program, model, torch.randint(0, 2000, (2, 5)), tolerance=EXACT)
        scales = 4 * 2000 * (2 if granularity == PerGroup(32) else 1)
        assert len(program.buffer) < 2000 * 64 * bits // 8 + scales + 8_000


def torchao_quantized_table(model: nn.Module, config: Any) -> None:
    from torchao.quantization import quantize_

    quantize_(model, config, filter_fn=lambda module, _: isinstance(module, nn.Embedding))
