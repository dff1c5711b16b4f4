"""Every example model, in its small variant, lowered for both backends and run natively."""

from __future__ import annotations

import pytest

from examples.models import MODELS
from tests.harness.models import assert_runs_like_eager

# bert_base and vit_b_16 differ from bert_mini and vit_tiny in size only: their small variants are
# the same.
NAMES = [name for name in MODELS if name not in ("bert_base", "mobilenet_v2", "vit_b_16")]


@pytest.mark.parametrize("name", NAMES)
def test_model_runs_like_eager(name: str) -> None:
    assert_runs_like_eager(MODELS[name].for_tests())


# One of each family, the cheaper ones to lower; the transformers' batch is dynamic in
# test_dynamic_models.py.
BATCHED = (
    *("resnet18", "resnext50_32x4d", "shufflenet_v2", "squeezenet", "efficientnet_b0"),
    *("convnext_tiny", "densenet121", "unet", "swin_tiny", "mobilevit_s"),
    *("whisper_tiny_encoder", "whisper_tiny_decoder", "wav2vec_features"),
)


@pytest.mark.parametrize("name", BATCHED)
def test_batch_of_four_runs_like_eager(name: str) -> None:
    assert_runs_like_eager(MODELS[name].for_tests(), batch=4)
