"""`lower(weight_error=...)`: weights in half types, as far as the user lets them be off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import export
from torchao.core.config import AOBaseConfig
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    PerGroup,
    quantize_,
)

from orchestrator import LoweredProgram, OptionError, lower
from orchestrator.frontend.quantize import quantized
from orchestrator.native import NativeProgram
from orchestrator.verify import verify

FLOAT16, BFLOAT16 = 5e-4, 4e-3
"""What is enough for any number that these types have room for."""


def tensor(*sizes: int, seed: int = 3) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def lowered(
    model: nn.Module, inputs: Sequence[Tensor], error: float, backends: Sequence[str] = ("ggml",)
) -> LoweredProgram:
    return lower(model.eval(), tuple(inputs), backends=backends, tune="off", weight_error=error)


def result(program: LoweredProgram, inputs: Sequence[Tensor]) -> Tensor:
    (found,) = NativeProgram(program.buffer).run("forward", list(inputs))
    assert isinstance(found, Tensor)
    return found


def notes(program: LoweredProgram) -> list[str]:
    plan = program.report.methods[0].plan
    assert plan is not None
    return [note for note in plan.notes if "weight_error" in note]


class Layers(nn.Module):
    """Convolutions, one before a batch norm and one depthwise, and a table that is tied."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm = nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32)
        self.depthwise, self.up = nn.Conv2d(32, 32, 3, 1, 1, groups=32), nn.Conv2d(32, 64, 1)
        self.transposed = nn.ConvTranspose2d(64, 48, 2, 2)
        self.table, self.last = nn.Embedding(50, 48), nn.Linear(48, 48)
        self.norm.running_var = torch.rand(32) + 0.5

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        y = torch.relu(self.depthwise(torch.relu(self.norm(self.first(x)))))
        y = self.transposed(self.up(y)).flatten(2).mean(2) + self.table(indices)
        return nn.functional.linear(self.last(y), self.table.weight)


def layers() -> tuple[nn.Module, list[Tensor]]:
    return Layers().eval(), [tensor(2, 3, 20, 24), torch.tensor([3, 49])]


def test_weights_take_half_the_bytes_and_are_off_by_no_more() -> None:
    model, inputs = layers()
    exact, half = (lowered(model, inputs, error) for error in (0.0, FLOAT16))
    halved = sum(
        each.numel()
        for name, each in model.named_parameters()
        if name.endswith("weight") and not name.startswith(("norm", "depthwise"))
    )
    assert abs(len(exact.buffer) - len(half.buffer) - 2 * halved) < 1500
    expected = result(exact, inputs)
    error = (result(half, inputs) - expected).abs().max() / expected.abs().max()
    assert 0 < error < 2 * FLOAT16
    (note,) = notes(half)
    assert note.startswith("weight_error=0.0005: 5 weights stored in half types, off by 0.0004")
    assert not notes(exact)


def test_what_no_number_of_a_half_type_is_near_to_stays() -> None:
    model, inputs = layers()
    exact, same = (lowered(model, inputs, error) for error in (0.0, 1e-6))
    assert torch.equal(result(same, inputs), result(exact, inputs))
    (note,) = notes(same)
    assert note == "weight_error=1e-06: no weight stored in a half type."


def test_backends_that_take_no_half_types_get_what_was_there() -> None:
    model, inputs = layers()
    exact, same = (lowered(model, inputs, error, ["xnnpack"]) for error in (0.0, FLOAT16))
    assert torch.equal(result(same, inputs), result(exact, inputs))
    (note,) = notes(same)
    assert note.endswith("no weight stored in a half type; 5 left, as no delegate takes them so.")


@pytest.mark.parametrize(
    ("value", "error", "bytes_each"),
    [
        (1e6, FLOAT16, 4),  # float16 ends at 65504
        (1e6, BFLOAT16, 2),
        (1e-9, FLOAT16, 4),  # and has no such number
        (1e-9, BFLOAT16, 2),
        (math.nan, BFLOAT16, 4),
        (math.inf, BFLOAT16, 4),
    ],
)
def test_the_nearest_type_is_taken(value: float, error: float, bytes_each: int) -> None:
    layer = nn.Linear(64, 512, bias=False)
    with torch.no_grad():
        layer.weight[:] = tensor(512, 64).sign() * value * (1 + torch.rand(512, 64))
    program = lowered(layer, [tensor(3, 64)], error)
    assert 0 <= len(program.buffer) - layer.weight.numel() * bytes_each < 4000


def two_linears() -> nn.Module:
    return nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)).eval()


@pytest.mark.parametrize(
    "config",
    [
        Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4, weight_granularity=PerGroup(32)
        ),
        IntxWeightOnlyConfig(torch.int4, PerGroup(32)),
    ],
    ids=["8da4w", "4w"],
)
def test_scales_of_groups(config: AOBaseConfig, tmp_path: Path) -> None:
    integers, x = two_linears(), tensor(8, 256)
    quantize_(integers, config)
    exact, rounded = (lowered(integers, [x], error) for error in (0.0, FLOAT16))
    groups = 2 * 256 * 512 // 32
    assert abs(len(exact.buffer) - len(rounded.buffer) - groups * 3 // 2) < 300  # of 28 bits
    (note,) = notes(rounded)
    assert "2 scales of weights of integers" in note
    file = tmp_path / "rounded.pte"
    rounded.save(file)
    found = verify(file, integers, (x,))
    assert found.first_off is None
    (last,) = (check for check in found.checks if check.segment is None)
    assert last.error > 1e-5
    assert last.rule.endswith("2 with weights of 0.0005")


@pytest.mark.parametrize("recipe", ["8da4w", "4w"])
def test_scales_of_recipes_have_two_bytes_as_they_are(recipe: str) -> None:
    x = tensor(8, 256)
    integers = quantized(two_linears(), (x,), None, None, recipe, ()).model
    exact, rounded = (lowered(integers, [x], error) for error in (0.0, FLOAT16))
    assert abs(len(exact.buffer) - len(rounded.buffer)) < 300
    torch.testing.assert_close(result(rounded, [x]), result(exact, [x]), rtol=0, atol=0)


def test_verify_allows_for_it_in_results_alone(tmp_path: Path) -> None:
    model, inputs = layers()
    file = tmp_path / "half.pte"
    lowered(model, inputs, FLOAT16).save(file)
    found = verify(file, model, inputs)
    assert found.first_off is None
    calls = [check for check in found.checks if check.segment is not None]
    assert calls
    assert all(check.allowed == 1e-4 for check in calls)
    assert found.checks[-1].allowed == pytest.approx(1e-4 + 6 * FLOAT16, rel=0.5)


def test_methods_share_what_is_rounded() -> None:
    layer = nn.Linear(256, 512, bias=False).eval()
    programs = {name: export(layer, (tensor(rows, 256),)) for name, rows in (("a", 1), ("b", 40))}
    program = lower(programs, backends=["ggml"], tune="off", weight_error=FLOAT16)
    assert len(program.buffer) < 256 * 512 * 2 + 6000
    native, expected = NativeProgram(program.buffer), layer.weight.half().float()
    for name, rows in (("a", 1), ("b", 40)):
        x = tensor(rows, 256)
        (found,) = native.run(name, [x])
        torch.testing.assert_close(found, x @ expected.t(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("error", [-1e-9, 1.0, math.nan])
def test_values_out_of_range(error: float) -> None:
    with pytest.raises(OptionError, match="float16"):
        lowered(nn.Linear(4, 4), [tensor(1, 4)], error)


def test_the_model_stays_as_it_is() -> None:
    model, inputs = layers()
    before: dict[str, Any] = {name: each.clone() for name, each in model.state_dict().items()}
    lowered(model, inputs, BFLOAT16)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
