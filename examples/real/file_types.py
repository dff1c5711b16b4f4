"""Magika (Fratantonio et al., 2024): what kind of file is this?"""

from __future__ import annotations

import json

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from .spec import Answer, Network, Part, Runs, packaged

_FOLDER = "magika/models/standard_v3_3"
_ENDS, _PADDING = 1024, 256  # bytes of each end that are read, and what stands for no byte
FILES = {
    "python": """import sys

def main(names):
    for name in names:
        print(f"Hello, {name}!")

if __name__ == "__main__":
    main(sys.argv[1:])
""",
    "c": """#include <stdio.h>

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) printf("Hello, %s!\\n", argv[i]);
  return 0;
}
""",
    "json": json.dumps({"name": "Ada", "born": 1815, "languages": ["en", "fr"]}, indent=2),
    "html": """<!DOCTYPE html>
<html><head><title>Hello</title></head>
<body><p class="greeting">Hello!</p></body></html>
""",
    "shell": """#!/bin/bash
set -euo pipefail
for name in "$@"; do
  echo "Hello, $name!"
done
""",
    "sql": """CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT);
INSERT INTO people VALUES (1, 'Ada');
SELECT name FROM people WHERE id = 1 ORDER BY name;
""",
}


class Magika(nn.Module):
    """[batch, 2048] bytes, 256 for none -> [batch, kinds] probabilities."""

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.bytes = nn.Embedding(257, 64)
        self.norm1 = nn.LayerNorm(512, eps=1e-6)
        self.convolution = nn.Conv1d(256, 512, 5)
        self.norm2 = nn.LayerNorm(512, eps=1e-6)
        self.kinds = nn.Linear(512, kinds)

    def forward(self, content: Tensor) -> Tensor:
        x = functional.gelu(self.bytes(content), approximate="tanh")
        x = x.reshape(-1, 512, 256)  # four bytes to a step
        x = self.norm1(x.transpose(1, 2))
        x = functional.gelu(self.convolution(x), approximate="tanh").amax(2)
        return self.kinds(self.norm2(x)).softmax(1)


def build() -> dict[str, Part]:
    """The network with its weights, for 1 to 8 files at once."""
    model = Magika(len(_kinds())).eval()
    model.load_state_dict(_weights())
    batch = torch.full((2, 2 * _ENDS), _PADDING)
    return {"kind": Part(model, (batch,), ({0: Dim("files", min=1, max=8)},))}


def _weights() -> dict[str, Tensor]:
    """The ONNX file's weights, by the names here."""
    file = onnx.load(packaged("magika", f"{_FOLDER}/model.onnx"))
    stored = {
        each.name.partition("/pjit_get_logits_/")[2]
        or each.name.partition("/")[2]
        or each.name: torch.from_numpy(np.array(numpy_helper.to_array(each)))
        for each in file.graph.initializer
    }
    return {
        # A layer after a one-hot code is a table.
        "bytes.weight": stored["Const:0"] + stored["MagikaV2/Dense_0/Reshape:0"][0],
        "norm1.weight": stored["MagikaV2/LayerNorm_0/Reshape_2:0"].flatten(),
        "norm1.bias": stored["MagikaV2/LayerNorm_0/Reshape_3:0"].flatten(),
        "convolution.weight": stored["MagikaV2/Conv_0/transpose_3:0"].squeeze(-1),
        "convolution.bias": stored["const_fold_opt__209"].flatten(),
        "norm2.weight": stored["MagikaV2/LayerNorm_1/Reshape_2:0"].flatten(),
        "norm2.bias": stored["MagikaV2/LayerNorm_1/Reshape_3:0"].flatten(),
        "kinds.weight": stored["Const_24:0"].T,
        "kinds.bias": stored["MagikaV2/Dense_1/Reshape:0"].flatten(),
    }


def _kinds() -> list[str]:
    config = packaged("magika", f"{_FOLDER}/config.min.json").read_text()
    return list(json.loads(config)["target_labels_space"])


def _content(text: str) -> Tensor:
    """The first and the last 1,024 bytes of a file, without blanks at its ends."""
    stripped = text.encode().strip()
    begin, end = stripped[:_ENDS], stripped[-_ENDS:]
    padded = [*begin, *[_PADDING] * (_ENDS - len(begin)), *[_PADDING] * (_ENDS - len(end)), *end]
    return torch.tensor(padded)


def ask(run: Runs) -> Answer:
    """Six small files: of which kinds are they?"""
    likely = run["kind"](torch.stack([_content(text) for text in FILES.values()]))
    best, kinds = likely.argmax(1).tolist(), _kinds()
    found = [kinds[index] for index in best]
    shares = ", ".join(
        f"{kind} {row[index]:.0%}" for kind, index, row in zip(found, best, likely, strict=True)
    )
    return Answer(shares, right=found == list(FILES))


NETWORK = Network("magika", "what kind of file is this?", build, ask)
