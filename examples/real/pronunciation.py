"""g2p-en (Park and Kim, 2019): how is an English word pronounced?

A recurrent network reads the letters, another writes the phonemes. Each is one GRU cell, called
once a letter or phoneme.
"""

from __future__ import annotations

import string

import numpy as np
import torch
from torch import Tensor, nn

from .spec import Answer, Network, Part, Runs, packaged

_LETTERS = ("<pad>", "<unk>", "</s>", *string.ascii_lowercase)
# ARPAbet's sounds in alphabetical order; a digit is the stress of a vowel.
_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
_OTHERS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH"),
    *("T", "TH", "UW", "V", "W", "Y", "Z", "ZH"),
)
_SOUNDS = (
    *("<pad>", "<unk>", "<s>", "</s>"),
    *sorted([*(f"{vowel}{stress}" for vowel in _VOWELS for stress in range(3)), *_OTHERS]),
)
_START, _END = _SOUNDS.index("<s>"), _SOUNDS.index("</s>")
_HIDDEN = 256
WORDS = {  # as dictionaries have them
    "computer": "K AH0 M P Y UW1 T ER0",
    "thinking": "TH IH1 NG K IH0 NG",
    "photograph": "F OW1 T AH0 G R AE2 F",
    "knight": "N AY1 T",
    "delegate": "D EH1 L AH0 G EY2 T",
    "cheese": "CH IY1 Z",
}


class Cell(nn.Module):
    """A symbol [1] and a state [1, 256] -> the next state, and the logits of what comes next."""

    def __init__(self, symbols: int, outputs: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(symbols, _HIDDEN)
        self.cell = nn.GRUCell(_HIDDEN, _HIDDEN)
        self.fc = nn.Linear(_HIDDEN, outputs) if outputs else None

    def forward(self, symbol: Tensor, state: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        state = self.cell(self.emb(symbol), state)
        return state if self.fc is None else (state, self.fc(state))


def build() -> dict[str, Part]:
    """Reader and writer with their weights."""
    stored = np.load(packaged("g2p-en", "g2p_en/checkpoint20.npz"))
    parts = {}
    for name, prefix, symbols, outputs in [
        ("read", "enc", len(_LETTERS), 0),
        ("write", "dec", len(_SOUNDS), len(_SOUNDS)),
    ]:
        weights = {"emb.weight": stored[f"{prefix}_emb"]}
        for gate in ("ih", "hh"):
            weights[f"cell.weight_{gate}"] = stored[f"{prefix}_w_{gate}"]
            weights[f"cell.bias_{gate}"] = stored[f"{prefix}_b_{gate}"]
        if outputs:
            weights |= {"fc.weight": stored["fc_w"], "fc.bias": stored["fc_b"]}
        model = Cell(symbols, outputs).eval()
        model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        parts[name] = Part(model, (torch.tensor([3]), torch.zeros(1, _HIDDEN)))
    return parts


def ask(run: Runs) -> Answer:
    """How are six words pronounced?"""
    said = {word: _pronounce(run, word) for word in WORDS}
    text = ", ".join(f"{word}: {sounds}" for word, sounds in said.items())
    return Answer(text, right=said == WORDS)


def _pronounce(run: Runs, word: str) -> str:
    state = torch.zeros(1, _HIDDEN)
    for letter in (*word, "</s>"):
        state = run["read"](torch.tensor([_LETTERS.index(letter)]), state)
    sound, sounds = _START, []
    while len(sounds) < 20:
        state, logits = run["write"](torch.tensor([sound]), state)
        sound = int(logits.argmax())
        if sound == _END:
            break
        sounds.append(_SOUNDS[sound])
    return " ".join(sounds)


NETWORK = Network("g2p-en", "how is an English word pronounced?", build, ask)
