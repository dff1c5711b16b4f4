"""Resemblyzer (after Wan et al., 2018): is it the same person who speaks?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from .media import SAMPLE_RATE, Turn, conversation
from .spec import Answer, Network, Part, Runs, packaged

FRAMES = 160  # 1.6 s
_BANDS, _WINDOW, _HOP, _WIDTH = 40, 400, 160, 256
_SECONDS = (FRAMES - 1) * _HOP / SAMPLE_RATE


class SpeakerEncoder(nn.Module):
    """[utterances, 160, 40] powers of mel bands -> unit vectors [utterances, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_BANDS, _WIDTH, 3, batch_first=True)
        self.linear = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, bands: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(bands)
        return functional.normalize(self.linear(hidden[-1]).relu(), dim=1)


def build() -> dict[str, Part]:
    """The network with its weights, for 1 to 16 utterances at once."""
    model = SpeakerEncoder().eval()
    path = packaged("Resemblyzer", "resemblyzer/pretrained.pt")
    stored = torch.load(path, weights_only=True, map_location="cpu")["model_state"]
    model.load_state_dict({key: stored[key] for key in model.state_dict()})
    utterances = torch.rand(2, FRAMES, _BANDS, generator=torch.Generator().manual_seed(0))
    return {"embed": Part(model, (utterances,), ({0: Dim("utterances", min=1, max=16)},))}


def _filters() -> Tensor:
    """Triangles of equal area, [40, 201], whose middles are even in mel (Slaney's scale)."""
    logarithmic, step = 15.0, torch.log(torch.tensor(6.4)) / 27  # from 15 mel, 1000 Hz on
    highest = logarithmic + torch.log(torch.tensor(SAMPLE_RATE / 2 / 1000)) / step
    mel = torch.linspace(0, highest.item(), _BANDS + 2)
    hertz = torch.where(mel < logarithmic, mel * 200 / 3, 1000 * (step * (mel - logarithmic)).exp())
    bins = torch.linspace(0, SAMPLE_RATE / 2, _WINDOW // 2 + 1)
    low, middle, high = hertz[:-2, None], hertz[1:-1, None], hertz[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0) * 2 / (high - low)


def bands(samples: Tensor) -> Tensor:
    """Powers of 40 mel bands every 10 ms, [160, 40]; quiet speech is made louder."""
    loudness = samples.square().mean().sqrt()
    samples = samples * (10**-1.5 / loudness).clamp(min=1)  # to -30 dB
    spectrum = torch.stft(
        samples, _WINDOW, _HOP, window=torch.hann_window(_WINDOW), return_complex=True
    )
    return (_filters() @ spectrum.abs().square()).T[:FRAMES]


def _utterances(turns: list[Turn]) -> list[tuple[str, float]]:
    """Stretches of 1.6 s in which one person speaks alone: who, and from when."""
    found = []
    for turn in turns:
        others = [each for each in turns if each is not turn]
        start = max([turn.start, *(o.end for o in others if o.start <= turn.start < o.end)])
        end = min([turn.end, *(o.start for o in others if turn.start < o.start < turn.end)])
        while start + _SECONDS <= end:
            found.append((turn.speaker, start))
            start += _SECONDS
    return found


def ask(run: Runs) -> Answer:
    """Two people talk on the telephone: who says what?"""
    samples, turns = conversation()
    spoken = _utterances(turns)
    length = (FRAMES - 1) * _HOP
    begins = [int(start * SAMPLE_RATE) for _, start in spoken]
    voices = run["embed"](torch.stack([bands(samples[b : b + length]) for b in begins]))
    likeness = voices @ voices.T
    same = torch.tensor([[a == b for b, _ in spoken] for a, _ in spoken])
    others = likeness.masked_fill(~same | torch.eye(len(spoken), dtype=torch.bool), -1).amax(1)
    strangers = likeness.masked_fill(same, -1).amax(1)
    right = int((others > strangers).sum())
    return Answer(
        f"{right} of {len(spoken)} utterances are likest to one of the same person "
        f"({others.mean():.2f}, of the other {strangers.mean():.2f} in the mean)",
        right=right == len(spoken),
    )


NETWORK = Network("Resemblyzer", "is it the same person who speaks?", build, ask)
