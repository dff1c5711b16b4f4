"""Photographs, speech and tones to ask networks about."""

from __future__ import annotations

import math
import wave
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .spec import packaged

SAMPLE_RATE = 16_000


def photograph(name: str) -> Image.Image:
    """A photograph that scikit-image carries, e.g. "astronaut.png", in RGB."""
    return Image.open(packaged("scikit-image", f"skimage/data/{name}")).convert("RGB")


def pixels(image: Image.Image) -> Tensor:
    """An image as float32 [3, H, W] of 0 to 255."""
    return torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1).copy())


@dataclass(frozen=True)
class Turn:
    """Who speaks from when to when, in seconds."""

    speaker: str
    start: float
    end: float


def conversation() -> tuple[Tensor, list[Turn]]:
    """Half a minute of two people on the telephone, and who speaks when.

    Returns:
        The samples, float32 of -1 to 1 at 16 kHz, and the turns as people wrote them down.
    """
    with wave.open(str(packaged("pyannote-audio", "pyannote/audio/sample/sample.wav"))) as file:
        assert file.getframerate() == SAMPLE_RATE
        assert file.getsampwidth() == 2
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    notes = packaged("pyannote-audio", "pyannote/audio/sample/sample.rttm").read_text().split("\n")
    turns = []
    for _, _, _, start, length, _, _, speaker, *_ in (line.split() for line in notes if line):
        turns.append(Turn(speaker, float(start), float(start) + float(length)))
    return torch.from_numpy(samples.astype(np.float32) / 32768), turns


def tone(hertz: float, seconds: float, overtones: int = 4) -> Tensor:
    """A tone whose overtones fade, float32 at 16 kHz."""
    time = torch.arange(int(seconds * SAMPLE_RATE), dtype=torch.float64) / SAMPLE_RATE
    waves = [torch.sin(2 * math.pi * hertz * n * time) / n**2 for n in range(1, overtones + 1)]
    return (torch.stack(waves).sum(0) * 0.5).float()
