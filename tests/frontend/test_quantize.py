"""lower(quantize=...): what is quantized is what PT2E and torchao make of the module."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from orchestrator import lower
from orchestrator.cli.main import main
from orchestrator.dry_run import plan
from orchestrator.frontend.errors import ModelError
from orchestrator.frontend.quantize import RECIPES, quantized
from orchestrator.options import OptionError

TORCHAO = ("8da8w", "8da4w", "8w", "4w")


class Net(nn.Module):
    """A convolution, and linear layers of which one has no whole groups."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Linear(8, 64)
        self.second = nn.Linear(64, 36)
        self.odd = nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).mean((2, 3))
        return self.odd(torch.relu(self.second(torch.relu(self.first(x)))))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(3)
    return Net().eval()


X = (torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(5)),)


def _calibration(recipe: str) -> list[Any]:
    return [(X[0] * factor,) for factor in (0.5, 1.0)] if recipe == "static" else []


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("backends", [["ggml", "xnnpack"], ["ggml"], ["xnnpack"], []])
def test_it_computes_what_the_quantized_module_does(
    net: nn.Module, recipe: str, backends: list[str]
) -> None:
    before = copy.deepcopy(net.state_dict())
    found = quantized(net, X, None, None, recipe, _calibration(recipe))
    program = lower(
        net,
        X,
        backends=backends,
        tune="off",
        quantize=recipe,  # type: ignore[arg-type]
        calibration=_calibration(recipe),
    )
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    with torch.no_grad():
        want, exact = found.model(*X), net(*X)
    error = (program(*X) - want).abs().max() / want.abs().max()
    assert error <= {"static": 0.02, "dynamic": 0.02, "8da4w": 4e-3}.get(recipe, 1e-5)
    off = (want - exact).abs().max() / exact.abs().max()
    assert 0 < off < 0.3  # it is quantized, and still the model
    assert found.note in program.plan["forward"].notes or found.note in _notes(program)


def _notes(program: Any) -> tuple[str, ...]:
    notes: tuple[str, ...] = program.report.methods[0].plan.notes
    return notes


@pytest.mark.parametrize(
    ("recipe", "note"),
    [
        ("static", "Quantized (static): 4 of 4 layers."),
        ("dynamic", "Quantized (dynamic): 3 of 4 layers; left in floats: 1 conv2d."),
        ("8da8w", "Quantized (8da8w): 3 of 3 layers."),
        (
            "8da4w",
            "Quantized (8da4w): 1 of 3 layers; left in floats: 1 linear of 8 inputs, no multiple "
            "of 32, 1 linear of 36 inputs, no multiple of 32.",
        ),
        ("8w", "Quantized (8w): 3 of 3 layers."),
    ],
)
def test_it_tells_what_was_quantized(net: nn.Module, recipe: str, note: str) -> None:
    assert quantized(net, X, None, None, recipe, _calibration(recipe)).note == note


def test_the_report_shows_it(net: nn.Module) -> None:
    planned = plan(net, X, tune="off", quantize="8w")
    described = planned.report.methods[0]
    assert described.plan is not None
    assert "Quantized (8w): 3 of 3 layers." in described.plan.notes
    found = [scheme for part in described.segments for scheme in part.schemes]
    assert found == ["int8 weights"]


@pytest.mark.parametrize("recipe", ["static", "dynamic", "8da4w"])
def test_dynamic_sizes_and_arguments_by_name(recipe: str) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 16)

        def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
            return self.linear(x) * scale

    model = Scaled().eval()
    x, scale = torch.randn(4, 64), torch.tensor([2.0])
    shapes = {"x": {0: Dim("rows", min=1, max=32)}, "scale": None}
    if recipe == "static":
        with pytest.raises(Exception, match="scale"):  # calibration inputs are positional
            quantized(model, (x,), {"scale": scale}, shapes, recipe, [(x,)])
        return
    program = lower(
        model,
        (x,),
        example_kwargs={"scale": scale},
        dynamic_shapes=shapes,
        tune="off",
        quantize=recipe,  # type: ignore[arg-type]
    )
    found = quantized(model, (x,), {"scale": scale}, shapes, recipe, [])
    other = torch.randn(9, 64)
    with torch.no_grad():
        want = found.model(other, scale=scale)
    assert (program(other, scale=scale) - want).abs().max() / want.abs().max() <= 0.02


def test_an_iterator_of_inputs_is_read_once(net: nn.Module) -> None:
    program = lower(net, iter(X), tune="off", quantize="8w")
    assert program(*X).shape == (2, 5)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"quantize": "int3"}, OptionError, "'int3' is unknown; known: static, dynamic, 8da8w"),
        ({"quantize": "static"}, OptionError, "calibration="),
        ({"quantize": "8w", "calibration": [X]}, OptionError, "needs no calibration inputs"),
    ],
)
def test_what_cannot_be_is_an_error(
    net: nn.Module, arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        lower(net, X, tune="off", **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: (export(Net().eval(), X), None), "quantize before you export"),
        (lambda: (nn.ReLU().eval(), X), "ReLU has no linear layer"),
        (lambda: (nn.Linear(9, 7).eval(), (torch.ones(1, 9),)), "left as they are: 1 linear of 9"),
    ],
)
def test_a_model_that_it_cannot_quantize(make: Callable[[], tuple[Any, Any]], message: str) -> None:
    model, inputs = make()
    with pytest.raises(ModelError, match=message):
        lower(model, inputs, tune="off", quantize="4w")


def test_the_command(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "quantize_models.py").write_text(
        "import torch\n\ndef net():\n"
        "    return torch.nn.Linear(64, 8).eval(), (torch.ones(1, 64),)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["plan", "quantize_models:net", "--tune", "off", "--quantize", "8da4w"]) == 0
    assert "Quantized (8da4w): 1 of 1 layers." in capsys.readouterr().out
