"""Weights that several methods use are in one delegate, if that is asked for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, export
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    PerAxis,
    quantize_,
)

from orchestrator import LoweredProgram, lower
from orchestrator.backends import Backend, Rates, resolve_backends
from orchestrator.report.data import MethodReport

ROWS = {"one": 1, "many": 256}
WIDTH = 256


def backends() -> list[Backend]:
    """ggml, which reads fast here, and XNNPACK, which multiplies fast."""
    ggml, xnnpack = resolve_backends(["ggml", "xnnpack"])
    for backend, (gflops, gbytes) in {ggml: (20.0, 100.0), xnnpack: (1000.0, 4.0)}.items():
        product = Rates(gflops, gbytes, 100.0, 0.01)
        rates = {"product": product, "int8 product": product, "int4 product": product}
        rates = {**backend.estimates.rates, **rates}
        backend.estimates = replace(backend.estimates, rates=rates)
    return [ggml, xnnpack]


def methods(*models: nn.Module) -> dict[str, ExportedProgram]:
    """Export a model for one row and for many; or two models, one each."""
    made = zip(ROWS.items(), models if len(models) > 1 else models * 2, strict=True)
    return {name: export(model, (_rows(count),)) for (name, count), model in made}


def _rows(count: int) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(0))


def _model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)).eval()


def _lowered(programs: dict[str, ExportedProgram], *, share: bool) -> LoweredProgram:
    return lower(programs, backends=backends(), share_weights=share, tune="off")


def _report(program: LoweredProgram, method: str) -> MethodReport:
    return next(each for each in program.report.methods if each.name == method)


def _used(program: LoweredProgram, method: str) -> set[str]:
    report = _report(program, method)
    return {segment.backend for segment in report.segments if segment.is_delegate}


def _notes(program: LoweredProgram, method: str) -> str:
    plan = _report(program, method).plan
    assert plan is not None
    return "\n".join(note for note in plan.notes if "weight" in note)


def test_methods_planned_apart_have_weights_twice() -> None:
    program = _lowered(methods(_model()), share=False)
    assert (_used(program, "one"), _used(program, "many")) == ({"ggml"}, {"xnnpack"})
    assert "2 weights (0.5 MB) shared with one are there twice: ggml holds them there, xnnpack" in (
        _notes(program, "many")
    )


def test_a_method_goes_where_the_first_has_the_weights() -> None:
    model = _model()
    apart = _lowered(methods(model), share=False)
    program = _lowered(methods(model), share=True)
    assert (_used(program, "one"), _used(program, "many")) == ({"ggml"}, {"ggml"})
    assert "2 weights (0.5 MB) shared with one: ggml holds them for both, once." in (
        _notes(program, "many")
    )
    assert len(program.buffer) < len(apart.buffer) - WIDTH * WIDTH * 4
    for name, count in ROWS.items():
        want = model(_rows(count))
        got = program(_rows(count), method=name)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_weights_of_torchao_are_known_by_their_parts() -> None:
    model = _model()
    quantize_(
        model,
        Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int8, weight_granularity=PerAxis(0)
        ),
    )
    assert _used(_lowered(methods(model), share=False), "many") == {"xnnpack"}
    program = _lowered(methods(model), share=True)
    assert _used(program, "many") == {"ggml"}
    assert "2 weights (0.1 MB) shared with one: ggml" in _notes(program, "many")


def test_other_weights_of_the_same_name_are_no_reason() -> None:
    program = _lowered(methods(_model(0), _model(1)), share=True)
    assert _used(program, "many") == {"xnnpack"}
    assert not _notes(program, "many")


class Pair(nn.Module):
    """Two layers, in either order."""

    def __init__(self, layers: nn.ModuleDict, *, back: bool) -> None:
        super().__init__()
        self.layers, self.back = layers, back

    def forward(self, x: Tensor) -> Tensor:
        for name in ("b", "a") if self.back else ("a", "b"):
            x = self.layers[name](x)
        return x


def test_what_the_user_says_comes_first() -> None:
    """Node by node: the first layer of the second method is the second one of the first."""
    layers = nn.ModuleDict({"a": nn.Linear(WIDTH, WIDTH), "b": nn.Linear(WIDTH, WIDTH)}).eval()
    program = lower(
        methods(Pair(layers, back=False), Pair(layers, back=True)),
        backends=backends(),
        share_weights=True,
        tune="off",
        pins={"aten_linear_default": "xnnpack", "aten_linear_default_1": "ggml"},
    )
    nodes = {
        segment.backend: segment.nodes
        for segment in _report(program, "many").segments
        if segment.is_delegate
    }
    assert nodes == {"xnnpack": ("aten_linear_default",), "ggml": ("aten_linear_default_1",)}
    assert "are there twice" in _notes(program, "many")
