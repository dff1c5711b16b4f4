"""Thousands of malformed programs end in errors or results. `make fuzz` tries millions."""

from __future__ import annotations

import functools
import random

import pytest
import torch
from torch import Tensor, nn

from orchestrator.native import NativeProgram
from tests.harness.changeable import ChangeableFile, changeable_file
from tests.harness.ir_mutations import mutated

PROGRAMS_PER_TEST = 300


class _Images(nn.Module):
    """Convolutions of every kind, pools, norms and changes of size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(torch.relu(self.conv(x))))
        z = nn.functional.interpolate(nn.functional.max_pool2d(y, 2), scale_factor=2.0)
        y = nn.functional.pad(torch.cat([y, z], 1), (1, 1, 0, 0))
        return self.up(y[:, 4:12, :, 1:-1]).mean(3)


class _Rows(nn.Module):
    """Products, attention, norms, reductions and activations."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.embedding = nn.Embedding(10, 16)

    def forward(self, x: Tensor) -> Tensor:
        q = self.linear(self.norm(x)).view(2, 5, 2, 8).transpose(1, 2)
        y = nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).reshape(2, 5, 16)
        places = (torch.softmax(y, -1) * 5).long()
        y = y + nn.functional.gelu(self.embedding(places.amax(-1)))
        y = torch.where(y > 0, y * 2 + 1, torch.cumsum(y, 1))
        return torch.bmm(y, y.transpose(1, 2)).sum(-1) + torch.gather(y, 2, places).amax(2)


class _Steps(nn.Module):
    """Recurrent layers of all kinds, in both directions, projected, from states and from zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 20, 2, bidirectional=True, proj_size=3, batch_first=True)
        self.gru = nn.GRU(6, 17, bidirectional=True)
        self.rnn = nn.RNN(34, 4, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        y, (h, _) = self.lstm(x)
        z, last = self.gru(y, y[:2, :, :1].expand(2, 7, 17) + 1)
        return self.rnn(z)[0].sum() + (last * h[0].sum()).sum(-1)


# By name: the model and its input's sizes.
_MODELS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "images": (_Images, (2, 3, 8, 8)),
    "rows": (_Rows, (2, 5, 16)),
    "steps": (_Steps, (3, 7, 5)),
}


@functools.cache
def _file(name: str, dynamic: bool) -> ChangeableFile:
    torch.manual_seed(0)
    model, sizes = _MODELS[name]
    shapes = ({0: torch.export.Dim("n", min=1, max=4)},) if dynamic else None
    return changeable_file(model(), (torch.randn(sizes),), shapes)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("name", "dynamic"),
    [("images", False), ("images", True), ("rows", False), ("steps", False), ("steps", True)],
)
def test_changed_programs_never_crash(name: str, dynamic: bool, seed: int) -> None:
    file = _file(name, dynamic)
    program = file.program()
    rng = random.Random(seed)
    x = torch.randn(_MODELS[name][1])
    ended = {"error": 0, "result": 0}
    while sum(ended.values()) < PROGRAMS_PER_TEST:
        data = mutated(program, rng)
        changed = None if data is None else file.with_ir(data)
        if changed is None:
            continue
        try:
            NativeProgram(changed).run("forward", [x])
        except RuntimeError as error:
            assert "GGML_ASSERT" not in str(error), f"an assertion of ggml was reached: {error}"
            ended["error"] += 1
        else:
            ended["result"] += 1
    # Changes that are all refused at once, or mean nothing, would test little.
    assert min(ended.values()) > PROGRAMS_PER_TEST // 50, ended
