"""Networks with real weights, quantized as people quantize them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    PerAxis,
    PerGroup,
    quantize_,
)

from examples.quantization import pt2e

from . import image_classes, pitch, sentences
from .spec import Part

Parts = dict[str, Part]


def _pt2e(part: Part, calibration: list[tuple[Tensor, ...]]) -> Part:
    model = pt2e(part.model, part.inputs, shapes=part.dynamic_shapes, calibration=calibration)
    return replace(part, model=model)


def static_image_classes() -> Parts:
    """EfficientNet-Lite0 in int8, calibrated on the photographs."""
    photographs = [(image_classes.image(name),) for name in image_classes.PHOTOGRAPHS]
    return {name: _pt2e(part, photographs) for name, part in image_classes.build().items()}


def static_pitch() -> Parts:
    """CREPE in int8, calibrated on tones, for any number of frames."""
    tones = [(pitch.frames(pitch.tone(hertz, 0.5)),) for hertz in (110.0, 196.0, 440.0, 880.0)]
    return {name: _pt2e(part, tones) for name, part in pitch.build().items()}


def grouped_sentences() -> Parts:
    """MiniLM with weights of 4 bits in groups of 32, activations of 8, and a table of 8 bits."""
    parts = sentences.build()
    table = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
    layers = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=PerGroup(32)
    )
    for part in parts.values():
        quantize_(part.model, table, lambda _, name: name == "words")
        quantize_(part.model, layers, lambda module, _: isinstance(module, nn.Linear))
    return parts


QUANTIZED: dict[str, dict[str, Callable[[], Parts]]] = {
    "image_classes": {"static int8": static_image_classes},
    "pitch": {"static int8": static_pitch},
    "sentences": {"int8 activations, int4 weights in groups": grouped_sentences},
}
"""By network and way: what builds its quantized parts."""
