"""The convolutional part of wav2vec 2.0 (Baevski et al. 2020): feature encoder and positions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .seeding import signals
from .spec import ModelSpec

# kernel and stride
_LAYERS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))


class Wav2VecFeatures(nn.Module):
    """Turns samples into tokens.

    Args:
        channels: Of each convolution.
        dim: Width of the tokens.
        kernel: Width of the grouped convolution that encodes positions; even, as in the paper.
        groups: Its groups.
        layers: Kernel and stride of each convolution.
    """

    def __init__(
        self,
        channels: int = 512,
        dim: int = 768,
        kernel: int = 128,
        groups: int = 16,
        layers: Sequence[tuple[int, int]] = _LAYERS,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        previous = 1
        for width, stride in layers:
            self.convs.append(nn.Conv1d(previous, channels, width, stride, bias=False))
            previous = channels
        self.group_norm = nn.GroupNorm(channels, channels)
        self.norm_in, self.project = nn.LayerNorm(channels), nn.Linear(channels, dim)
        self.positions = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, samples: Tensor) -> Tensor:
        """float32 [batch, 1, samples] to float32 [batch, tokens, dim]."""
        x = samples
        for index, conv in enumerate(self.convs):
            x = conv(x)
            x = F.gelu(self.group_norm(x) if index == 0 else x)
        x = self.project(self.norm_in(x.transpose(1, 2)))
        # An even kernel padded on both sides gives one token too many.
        positions = self.positions(x.transpose(1, 2))[:, :, :-1]
        return self.norm_out(x + F.gelu(positions).transpose(1, 2))


SPECS = (
    ModelSpec(
        "wav2vec_features",
        "audio",
        Wav2VecFeatures,
        lambda batch, seed: (signals(batch, 1, 16000, seed),),
        tolerance=1e-3,
        small=ModelSpec(
            "wav2vec_features",
            "audio",
            lambda: Wav2VecFeatures(16, 32, 8, 4, _LAYERS[:4]),
            lambda batch, seed: (signals(batch, 1, 800, seed),),
            tolerance=1e-3,
        ),
    ),
)
