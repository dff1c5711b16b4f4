"""Silero VAD: is this speech? A network that listens 32 ms at a time and remembers.

A short-time Fourier transform as a convolution, four convolutions, one LSTM cell. Its state and the
end of the last chunk are buffers that every call changes.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from .media import SAMPLE_RATE, conversation
from .spec import Answer, Network, Part, Runs, packaged

CHUNK = 512
_CONTEXT = 64
_WINDOW = 256
_HIDDEN = 128


class VoiceActivity(nn.Module):
    """[1, 512] samples at 16 kHz -> [1, 1], how likely they are speech."""

    def __init__(self) -> None:
        super().__init__()
        bins = _WINDOW // 2 + 1
        self.stft_conv = nn.Conv1d(1, 2 * bins, _WINDOW, _WINDOW // 2, bias=False)
        self.conv1 = nn.Conv1d(bins, 128, 3, 1, 1)
        self.conv2 = nn.Conv1d(128, 64, 3, 2, 1)
        self.conv3 = nn.Conv1d(64, 64, 3, 2, 1)
        self.conv4 = nn.Conv1d(64, 128, 3, 1, 1)
        self.lstm_cell = nn.LSTMCell(128, _HIDDEN)
        self.final_conv = nn.Conv1d(_HIDDEN, 1, 1)
        self.register_buffer("context", torch.zeros(1, _CONTEXT), persistent=False)
        self.register_buffer("hidden", torch.zeros(1, _HIDDEN), persistent=False)
        self.register_buffer("cell", torch.zeros(1, _HIDDEN), persistent=False)

    def forward(self, chunk: Tensor) -> Tensor:
        samples = torch.cat([self.context, chunk], 1)
        padded = functional.pad(samples, (0, _CONTEXT), mode="reflect")
        real, imaginary = self.stft_conv(padded.unsqueeze(1)).chunk(2, 1)
        x = (real.square() + imaginary.square()).sqrt()
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = convolution(x).relu()
        hidden, cell = self.lstm_cell(x.squeeze(-1), (self.hidden, self.cell))
        self.context.copy_(chunk[:, -_CONTEXT:])
        self.hidden.copy_(hidden)
        self.cell.copy_(cell)
        return self.final_conv(hidden.relu().unsqueeze(-1)).sigmoid().squeeze(-1)


def build() -> dict[str, Part]:
    """The network with its weights."""
    model = VoiceActivity().eval()
    model.load_state_dict(
        load_file(packaged("silero-vad", "silero_vad/data/silero_vad_16k.safetensors"))
    )
    return {"listen": Part(model, (torch.zeros(1, CHUNK),))}


def ask(run: Runs) -> Answer:
    """Silence, noise and people on the telephone: which of it is speech?"""
    noise = torch.randn(SAMPLE_RATE, generator=torch.Generator().manual_seed(0)) * 0.05
    samples, turns = conversation()
    first = turns[0].start - 1  # some of the silence before
    speech = samples[int(first * SAMPLE_RATE) : int((first + 6) * SAMPLE_RATE)]
    sounds = {
        "silence": torch.zeros(SAMPLE_RATE),
        "noise": noise,
        "telephone": speech,
    }
    heard = {
        name: torch.cat([run["listen"](chunk[None]) for chunk in _chunks(sound)])[:, 0]
        for name, sound in sounds.items()
    }
    midpoints = first + (torch.arange(len(heard["telephone"])) + 0.5) * CHUNK / SAMPLE_RATE
    spoken = torch.stack([(t.start <= midpoints) & (midpoints <= t.end) for t in turns]).any(0)
    agree = ((heard["telephone"] > 0.5) == spoken).float().mean().item()
    shares = {name: (heard[name] > 0.5).float().mean().item() for name in ("silence", "noise")}
    text = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return Answer(
        f"speech in {text}; on the telephone, {agree:.0%} of the chunks as people heard them",
        right=max(shares.values()) < 0.1 and agree > 0.9,
    )


def _chunks(samples: Tensor) -> list[Tensor]:
    count = len(samples) // CHUNK
    return list(samples[: count * CHUNK].reshape(count, CHUNK))


NETWORK = Network("silero-vad", "which sounds are speech?", build, ask)
