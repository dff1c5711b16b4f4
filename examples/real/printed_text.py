"""Legere: what does this line of print say? Depthwise convolutions and a GRU in both directions."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from .media import pixels
from .spec import Answer, Network, Part, Runs, packaged

HEIGHT, WIDTH = 32, 320
_BLOCKS = (  # channels, strides
    *((48, (2, 2)), (64, (1, 1)), (96, (2, 1)), (128, (1, 1)), (160, (2, 1)), (192, (2, 1))),
)
LINES = ("Invoice number 1784", "Total: 42.50", "Paid in full", "Nota fiscal")


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.pointwise = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.pointwise(self.bn1(self.depthwise(x)).relu())).relu()


class Reader(nn.Module):
    """A line [1, 1, 32, width] of -1 to 1 -> [1, width / 4, characters] logits; 0 is none."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()
        )
        befores = (24, *(channels for channels, _ in _BLOCKS))
        self.blocks = nn.Sequential(
            *(_Block(b, a, s) for b, (a, s) in zip(befores, _BLOCKS, strict=False))
        )
        self.rnn = nn.GRU(befores[-1], 128, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, characters)

    def forward(self, line: Tensor) -> Tensor:
        x = self.blocks(self.stem(line)).squeeze(2).transpose(1, 2)
        return self.head(self.rnn(x)[0])


def _stored() -> dict[str, object]:
    path = packaged("legere", "legere/data/model.pt")
    return torch.load(path, weights_only=True, map_location="cpu")


def build() -> dict[str, Part]:
    """The network with its weights, for lines of 320 pixels."""
    stored = _stored()
    model = Reader(len(stored["charset"]) + 1).eval()
    model.load_state_dict(stored["model"])
    return {"read": Part(model, (_line(LINES[0]),))}


def _line(text: str) -> Tensor:
    """A text in print, black on white."""
    font = ImageFont.load_default(22)
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    ImageDraw.Draw(picture).text((4, HEIGHT // 2), text, "black", font, anchor="lm")
    return pixels(picture)[:1, None].transpose(0, 1) / 127.5 - 1


def ask(run: Runs) -> Answer:
    """What do four lines of print say?"""
    characters = str(_stored()["charset"])
    said = []
    for line in LINES:
        best = run["read"](_line(line))[0].argmax(1).tolist()
        changes = [each for before, each in zip([0, *best], best, strict=False) if each != before]
        said.append("".join(characters[each - 1] for each in changes if each > 0).strip())
    return Answer(" / ".join(said), right=said == list(LINES))


NETWORK = Network("legere", "what does this line say?", build, ask)
