"""AttaCut (Chormai et al., 2019): where do words begin in Thai, which writes no spaces?"""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn
from torch.export import Dim

from .spec import Answer, Network, Part, Runs, packaged

_FOLDER = "attacut/artifacts/attacut-c"
SENTENCES = {  # as people cut them
    "ฉัน|ชอบ|กิน|ข้าว": "I like to eat rice",
    "แม่|ซื้อ|ผลไม้|ที่|ตลาด": "mother buys fruit at the market",
    "น้อง|อ่าน|หนังสือ|ใน|ห้อง": "the younger one reads a book in the room",
    "เขา|พูด|ภาษา|อังกฤษ|ได้": "he can speak English",
    "แมว|นอน|บน|โต๊ะ": "a cat sleeps on the table",
}


class AttaCut(nn.Module):
    """[1, length] characters -> [1, length], positive where a word begins."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(characters, 48)
        sizes = ((3, 1), (5, 3), (9, 2))  # of the kernel, dilation
        self.convolutions = nn.ModuleList(
            nn.Conv1d(48, 196, size, padding=size // 2 * dilation, dilation=dilation)
            for size, dilation in sizes
        )
        self.linear1 = nn.Linear(196, 32)
        self.linear2 = nn.Linear(32, 1)

    def forward(self, characters: Tensor) -> Tensor:
        x = self.embeddings(characters).transpose(1, 2)
        x = torch.stack([convolution(x) for convolution in self.convolutions]).amax(0)
        return self.linear2(self.linear1(x.transpose(1, 2)).relu()).squeeze(-1)


def _characters() -> dict[str, int]:
    text = packaged("attacut", f"{_FOLDER}/characters.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def build() -> dict[str, Part]:
    """The network with its weights, for texts of 2 to 256 characters."""
    model = AttaCut(len(_characters())).eval()
    weights = torch.load(
        packaged("attacut", f"{_FOLDER}/model.pth"), weights_only=True, map_location="cpu"
    )
    for index in range(3):
        for kind in ("weight", "bias"):
            weights[f"convolutions.{index}.{kind}"] = weights.pop(f"conv{index + 1}.conv.{kind}")
    model.load_state_dict(weights)
    length = Dim("length", min=2, max=256)
    return {"begins": Part(model, (torch.randint(1, 100, (1, 24)),), ({1: length},))}


def ask(run: Runs) -> Answer:
    """Where do the words begin?"""
    codes = _characters()
    found = []
    for sentence in SENTENCES:
        text = sentence.replace("|", "")
        characters = torch.tensor([[codes.get(each, codes["<UNK>"]) for each in text]])
        begins = run["begins"](characters)[0] > 0
        pairs = zip(text, begins, strict=True)
        marked = "".join(f"|{each}" if begin else each for each, begin in pairs)
        found.append(marked.strip("|"))
    return Answer(", ".join(found), right=found == list(SENTENCES))


NETWORK = Network("attacut", "where do words begin in Thai?", build, ask)
