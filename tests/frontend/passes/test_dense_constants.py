"""Constants in any layout: models in channels-last, weights that are views."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import export

from orchestrator import lower
from orchestrator.frontend.passes import dense_constants

BACKENDS = pytest.mark.parametrize(
    "backends", [["ggml", "xnnpack"], ["xnnpack"], ["ggml"]], ids=lambda names: "-".join(names)
)


def _linear_of(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(6, 6)
    layer.weight = nn.Parameter(weight)
    return layer


class Layers(nn.Module):
    """A layer of each kind, each on an input of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Conv1d(4, 6, 3)
        self.flat.weight = nn.Parameter(torch.randn(3, 4, 6).permute(2, 1, 0))
        self.image = nn.Conv2d(4, 6, 3, padding=1).to(memory_format=torch.channels_last)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4).to(memory_format=torch.channels_last)
        self.up = nn.ConvTranspose2d(4, 6, 2, 2).to(memory_format=torch.channels_last)
        self.volume = nn.Conv3d(4, 2, 2).to(memory_format=torch.channels_last_3d)
        self.transposed = _linear_of(torch.randn(6, 6).t())
        self.expanded = _linear_of(torch.randn(6, 1).expand(6, 6))
        self.part = _linear_of(torch.randn(6, 12)[:, ::2])
        self.register_buffer("place", torch.randn(1, 4, 9, 9).to(memory_format=torch.channels_last))

    def forward(self, image: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        return (
            self.flat(image[:, :, 0]),
            self.image(image),
            self.depthwise(image).relu(),
            self.up(image),
            self.volume(image.unsqueeze(2).expand(-1, -1, 3, -1, -1)),
            self.transposed(rows) + self.expanded(rows) * self.part(rows),
            torch.exp(image + self.place),
            torch.exp(self.place * image.mean()),
        )


INPUTS = (torch.randn(2, 4, 9, 9), torch.randn(3, 6))


@BACKENDS
def test_layers_with_weights_in_any_layout_equal_eager(backends: list[str]) -> None:
    model = Layers().eval()
    program = lower(model, INPUTS, backends=backends, strategy="greedy")
    for got, want in zip(program(*INPUTS), model(*INPUTS), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
        if want.dim() == 4:  # volumes are computed as images
            assert got.stride() == want.stride()


@BACKENDS
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_network_in_channels_last_equals_eager(
    backends: list[str], order: torch.memory_format
) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        nn.Hardswish(),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    network = network.eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 17, 15).contiguous(memory_format=order)
    got = lower(network, (x,), backends=backends)(x)
    torch.testing.assert_close(got, network(x), rtol=1e-5, atol=1e-5)


def test_a_weight_that_layers_share_is_stored_once() -> None:
    first = nn.Conv2d(32, 32, 3, padding=1).to(memory_format=torch.channels_last)
    second = copy.deepcopy(first)
    second.weight = first.weight
    model = nn.Sequential(first, nn.ReLU(), second).eval()
    x = torch.randn(1, 32, 5, 5)
    program = lower(model, (x,), backends=["xnnpack"])
    torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)
    assert len(program.buffer) < 1.5 * first.weight.nbytes


@pytest.mark.parametrize(
    "view", [lambda x: x.permute(0, 2, 3, 1).reshape(2, -1), lambda x: x.permute(0, 2, 3, 1)]
)
def test_views_of_a_result_are_those_of_its_layout(view: Callable[[Tensor], Tensor]) -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)

        def forward(self, x: Tensor) -> Tensor:
            return view(self.conv(x)).view(2, -1).exp()

    model = Viewed().eval()
    program = lower(model, INPUTS[:1], backends=["ggml", "xnnpack"])
    torch.testing.assert_close(program(INPUTS[0]), model(INPUTS[0]), rtol=1e-5, atol=1e-5)


def test_programs_with_contiguous_constants_are_left_alone() -> None:
    program = export(nn.Linear(6, 2), (torch.ones(1, 6),))
    assert dense_constants(program) is program


def test_the_program_is_left_as_it_was() -> None:
    model = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    program = export(model, INPUTS[:1])
    before = str(program)
    rewritten = dense_constants(program)
    assert rewritten.state_dict["weight"].is_contiguous()
    assert not program.state_dict["weight"].is_contiguous()
    assert str(program) == before
