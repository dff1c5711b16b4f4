"""Models written after their papers, with seeded weights: what tests and benchmarks run.

The weights are random. They are scaled so that every layer matters and the output depends on the
input, which is what a comparison of two runtimes needs; no model has learned anything.
"""

from __future__ import annotations

from . import (
    bert,
    control_flow,
    convnext,
    densenet,
    efficientnet,
    gpt2,
    inception_v3,
    llama,
    mobilenet_v2,
    mobilenet_v3,
    mobilevit,
    recurrent,
    resnet,
    shufflenet_v2,
    squeezenet,
    swin,
    unet,
    vit,
    wav2vec,
    whisper,
)
from .seeding import calibrate_batch_norm, images, seeded
from .spec import Family, ModelSpec

_MODULES = (
    mobilenet_v2,
    mobilenet_v3,
    resnet,
    shufflenet_v2,
    squeezenet,
    efficientnet,
    convnext,
    densenet,
    inception_v3,
    unet,
    vit,
    swin,
    mobilevit,
    bert,
    gpt2,
    llama,
    whisper,
    wav2vec,
    recurrent,
    control_flow,
)

MODELS: dict[str, ModelSpec] = {spec.name: spec for module in _MODULES for spec in module.SPECS}
"""All models by name; `MODELS[name].for_tests()` is the small variant."""

__all__ = ["MODELS", "Family", "ModelSpec", "calibrate_batch_norm", "images", "seeded"]
