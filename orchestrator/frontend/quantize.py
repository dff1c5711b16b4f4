"""Quantizing a module on the way, with the recipes that ExecuTorch's documentation recommends.

Thin calls of PT2E and torchao, named as the report names the schemes; who needs more than these
(other groups, embeddings, layers left out, quantization-aware training) quantizes first and lowers
what comes out.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from orchestrator.frontend.errors import ModelError
from orchestrator.frontend.export import Model, as_programs
from orchestrator.frontend.passes.producers import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from orchestrator.graph.quantized import is_dequantize
from orchestrator.options import OptionError

Recipe = Literal["static", "dynamic", "8da8w", "8da4w", "8w", "4w"]
"""How to quantize.

static: int8 weights and activations, whose scales calibration inputs give (PT2E). The others take
linear layers alone. dynamic: the scales of activations are found in every run (PT2E). 8da8w, 8da4w:
the same by torchao, with weights of 8 bits by row or of 4 bits in groups of 32, whose scales are
bfloat16. 8w, 4w: such weights alone.
"""

RECIPES: tuple[str, ...] = get_args(Recipe)
TORCHAO_RECIPES = ("8da8w", "8da4w", "8w", "4w")
_IN_GROUPS = ("8da4w", "4w")
_GROUP = 32
# Of groups: what XNNPACK rounds them to in any case, and half the bytes of float32. Integers are
# found for the scales as they are rounded, so that weights are no less exact.
_SCALES = torch.bfloat16
_INT4 = torch.int4  # type: ignore[attr-defined]
_LAYERS = {*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, torch.ops.aten.linear.default}


@dataclass(frozen=True)
class Quantized:
    """A quantized module, and what to tell about it."""

    model: nn.Module
    note: str


def quantized(
    model: Model,
    example_inputs: Iterable[Any] | torch.Tensor | None,
    example_kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
    recipe: str,
    calibration: Iterable[Any],
) -> Quantized:
    """Quantize a module, which is left as it is.

    model, example_inputs, example_kwargs, dynamic_shapes: as for `lower`. calibration: for the
        recipe "static", inputs as the model will see them; each a tuple of positional arguments,
        or a lone tensor.

    Raises:
        OptionError: an unknown recipe, one that lacks calibration inputs, or one that has no use
            for them.
        ModelError: a model that is exported already, or has no layer that the recipe quantizes.
    """
    if recipe not in RECIPES:
        raise OptionError(f"quantize={recipe!r} is unknown; known: {', '.join(RECIPES)}")
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"quantize={recipe!r} takes a torch.nn.Module, not a {type(model).__name__}: quantize "
            "before you export"
        )
    samples = [_arguments(each) for each in calibration]
    if recipe == "static" and not samples:
        raise OptionError(
            "quantize='static' finds the scales of activations with real inputs: give some, "
            "calibration=[(x,), ...]; recipes without: "
            + ", ".join(name for name in RECIPES if name != "static")
        )
    if recipe != "static" and samples:
        raise OptionError(f"quantize={recipe!r} needs no calibration inputs; leave them out")
    if recipe in ("static", "dynamic"):
        args = _arguments(() if example_inputs is None else example_inputs)
        return _by_pt2e(model, args, dict(example_kwargs or {}), dynamic_shapes, recipe, samples)
    return _by_torchao(model, recipe)


def as_quantized_programs(
    model: Model,
    example_inputs: Iterable[Any] | torch.Tensor | None,
    example_kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
    recipe: str | None,
    calibration: Iterable[Any],
) -> tuple[dict[str, ExportedProgram], tuple[str, ...]]:
    """Return exported programs by method name, of a module that is quantized first, and notes.

    recipe: None leaves the model as it is. The others: as for `quantized`.

    Raises:
        OptionError, ModelError: as `quantized` and `as_programs`.
    """
    inputs = tuple(example_inputs) if isinstance(example_inputs, Iterator) else example_inputs
    notes: tuple[str, ...] = ()
    if recipe is not None:
        found = quantized(model, inputs, example_kwargs, dynamic_shapes, recipe, calibration)
        model, notes = found.model, (found.note,)
    return as_programs(model, inputs, example_kwargs, dynamic_shapes), notes


def _arguments(given: Any) -> tuple[Any, ...]:
    return (given,) if isinstance(given, torch.Tensor) else tuple(given)


def _by_pt2e(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic_shapes: Any,
    recipe: str,
    samples: list[tuple[Any, ...]],
) -> Quantized:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    exported = torch.export.export(
        model.eval(), args, kwargs, dynamic_shapes=dynamic_shapes, strict=False
    ).module()
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(
        get_symmetric_quantization_config(is_per_channel=True, is_dynamic=recipe == "dynamic")
    )
    prepared = prepare_pt2e(exported, quantizer)
    with torch.no_grad():
        for sample in samples or [args]:
            prepared(*sample, **({} if samples else kwargs))
    converted: GraphModule = convert_pt2e(prepared)
    layers = [node for node in converted.graph.nodes if node.target in _LAYERS]
    left = Counter(_short(node) for node in layers if not _reads_integers(node))
    return Quantized(converted, recipe_note(type(model).__name__, recipe, len(layers), left))


def _reads_integers(layer: Node) -> bool:
    sources = layer.all_input_nodes[:2]
    return len(sources) == 2 and all(map(is_dequantize, sources))


def _short(node: Node) -> str:
    return str(node.target).split(".")[1]


def _by_torchao(model: nn.Module, recipe: str) -> Quantized:
    linears = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    reasons = {name: left_in_floats(part.in_features, recipe) for name, part in linears.items()}
    left = Counter(reason for reason in reasons.values() if reason is not None)
    if len(linears) > left.total():
        model = copy.deepcopy(model)
        quantize_linears(model, recipe, {name for name, why in reasons.items() if why is None})
    return Quantized(model, recipe_note(type(model).__name__, recipe, len(linears), left))


def left_in_floats(in_features: int, recipe: str) -> str | None:
    """Return why a recipe of torchao's cannot take a linear layer of so many inputs, or None."""
    if recipe not in _IN_GROUPS or in_features % _GROUP == 0:
        return None
    return f"linear of {in_features} inputs, no multiple of {_GROUP}"


def quantize_linears(model: nn.Module, recipe: str, names: Container[str]) -> None:
    """Quantize linear layers in place; `names`: as `named_modules` has them, "" for the model."""
    from torchao.quantization import quantize_

    quantize_(model, _config(recipe), filter_fn=lambda part, name: name in names)


def _config(recipe: str) -> Any:
    from torchao.quantization import (
        Int8DynamicActivationIntxWeightConfig,
        IntxWeightOnlyConfig,
        PerAxis,
        PerGroup,
    )

    make: Mapping[str, Callable[[], Any]] = {
        "8da8w": lambda: Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int8, weight_granularity=PerAxis(0)
        ),
        "8da4w": lambda: Int8DynamicActivationIntxWeightConfig(
            weight_dtype=_INT4,
            weight_granularity=PerGroup(_GROUP),
            weight_scale_dtype=_SCALES,
        ),
        "8w": lambda: IntxWeightOnlyConfig(torch.int8, PerAxis(0)),
        "4w": lambda: IntxWeightOnlyConfig(_INT4, PerGroup(_GROUP), scale_dtype=_SCALES),
    }
    return make[recipe]()


def recipe_note(model: str, recipe: str, layers: int, left: Counter[str]) -> str:
    """Say how many of a model's layers a recipe quantizes.

    model: its class, or the file that it comes from. left: the others, by what they are.

    Raises:
        ModelError: it quantizes none.
    """
    count = layers - left.total()
    if count == 0:
        kind = "linear" if recipe in TORCHAO_RECIPES else "convolution or linear"
        raise ModelError(
            f"quantize={recipe!r}: {model} has no {kind} layer that it quantizes"
            + (f"; left as they are: {_listed(left)}" if left else "")
        )
    rest = f"; left in floats: {_listed(left)}" if left else ""
    return f"Quantized ({recipe}): {count} of {layers} layers{rest}."


def _listed(left: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in left.items())
