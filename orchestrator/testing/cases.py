"""Small models that the kit lowers, and what they are run on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F  # noqa: N812

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Case:
    """A model with the inputs that it is exported with, and those that it is run on.

    inputs: drawn by a generator, given a size that counts where sizes are dynamic.
    sizes: to run it at. dynamic_shapes: as in `torch.export.export`.
    channels_last: whether inputs of rank 4 lie in memory so.
    """

    name: str
    model: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator, int], Inputs]
    sizes: Sequence[int] = (3,)
    dynamic_shapes: Any = None
    channels_last: bool = False

    def __str__(self) -> str:
        """Return its name."""
        return self.name

    def draw(self, seed: int, size: int | None = None) -> Inputs:
        """Return inputs, other ones for another seed."""
        drawn = self.inputs(torch.Generator().manual_seed(seed), size or self.sizes[0])
        if not self.channels_last:
            return drawn
        last = torch.channels_last
        return tuple(each.to(memory_format=last) if each.dim() == 4 else each for each in drawn)

    def eager(self) -> nn.Module:
        """Return the model, which always has the same weights."""
        return _made(self)

    def exported(self) -> ExportedProgram:
        """Return it as an exported program, one and the same each time."""
        return _exported(self)


@functools.cache
def _made(case: Case) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return case.model().eval()


@functools.cache
def _exported(case: Case) -> ExportedProgram:
    with torch.no_grad():
        return torch.export.export(
            case.eager(), case.draw(0, max(case.sizes)), dynamic_shapes=case.dynamic_shapes
        )


class _Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self._function(*inputs)


class _Attention(nn.Module):
    """Two heads over a sequence, with what is around them in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.queries, self.keys, self.values, self.out = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        y = self.norm(x)
        q, k, v = (
            layer(y).view(batch, length, 2, 6).transpose(1, 2)
            for layer in (self.queries, self.keys, self.values)
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) / 6**0.5, dim=-1)
        heads = (weights @ v).transpose(1, 2).reshape(batch, length, 12)
        return x + F.gelu(self.out(heads))


class _Image(nn.Module):
    """Sums and products of images between convolutions, and what reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.first(x)
        z = self.second(y + y * x)
        return z + x * z, torch.cos(y).mean(dim=(2, 3))


class _Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        rows = self.table(ids) * 2.0
        return torch.where(mask.unsqueeze(-1), rows, -rows + 1.0)


def _convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Hardtanh(0.0, 6.0),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 7),
    )


def _layers() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 13), nn.ReLU(), nn.Linear(13, 5), nn.Sigmoid())


def _floats(*shapes: tuple[int, ...]) -> Callable[[torch.Generator, int], Inputs]:
    """Return what draws tensors; a size of -1 is the one that counts where sizes are dynamic."""

    def drawn(generator: torch.Generator, size: int) -> Inputs:
        return tuple(
            torch.randn([size if each == -1 else each for each in shape], generator=generator)
            for shape in shapes
        )

    return drawn


def _ids_and_mask(generator: torch.Generator, size: int) -> Inputs:
    ids = torch.randint(0, 11, (size, 5), generator=generator)
    return ids, torch.rand(size, 5, generator=generator) > 0.5


def _integers(generator: torch.Generator, size: int) -> Inputs:
    return tuple(torch.randint(-9, 9, (size, 7), generator=generator) for _ in range(2))


def _masks(generator: torch.Generator, size: int) -> Inputs:
    return tuple(torch.rand(size, 7, generator=generator) > 0.5 for _ in range(2))


def _elementwise(x: Tensor, y: Tensor) -> Tensor:
    return ((x + y) * y - x) * 0.5 + y / (1.0 + x * x)


def _activations(x: Tensor) -> Tensor:
    y = torch.tanh(x) + torch.sigmoid(x) * F.gelu(x)
    return F.silu(y) + torch.exp(-torch.abs(x)) - F.relu(x).clamp(max=1.5)


def _sums(x: Tensor, y: Tensor) -> Tensor:
    return torch.cos((((x + y) * y + x) * 0.5 + y) - y.cos()) + x * y


def _reductions(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y = x * 2.0
    return y.mean(-1), y.sum(dim=(1, 2)), y.amax(dim=1, keepdim=True), x - y.mean(1, keepdim=True)


def _shapes(x: Tensor, y: Tensor) -> Tensor:
    z = torch.cat([x[:, 1:], y.permute(0, 2, 1)], dim=1)
    return F.pad(z, (1, 2)).reshape(z.shape[0], -1) * 2.0


def _products(x: Tensor, y: Tensor) -> Tensor:
    return torch.softmax(x @ y, dim=1) @ y.transpose(1, 2)


def _image_sums(x: Tensor, y: Tensor) -> Tensor:
    return (x + y) * x + torch.cos(x * y)


def _image_ops(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    z = x + y * x
    return torch.softmax(z, dim=1) + z[:, 1:2], torch.softmax(z, dim=-1), z.mean(dim=-1) * 2.0


PLAIN = (
    Case("sums", lambda: _Function(_sums), _floats((-1, 5), (-1, 5))),
    Case("elementwise", lambda: _Function(_elementwise), _floats((-1, 5, 7), (-1, 1, 7))),
    Case("activations", lambda: _Function(_activations), _floats((-1, 5, 7))),
    Case("linear", _layers, _floats((-1, 7))),
    Case("products", lambda: _Function(_products), _floats((-1, 5, 7), (-1, 7, 3))),
    Case("convolutions", _convolutions, _floats((-1, 3, 11, 9))),
    Case("image", _Image, _floats((-1, 4, 5, 7))),
    Case("attention", _Attention, _floats((-1, 5, 12))),
    Case("reductions", lambda: _Function(_reductions), _floats((-1, 5, 7))),
    Case("shapes", lambda: _Function(_shapes), _floats((-1, 5, 7), (-1, 7, 3))),
    Case("lookup", _Lookup, _ids_and_mask),
    Case("integers", lambda: _Function(lambda x, y: (x + y) * y), _integers),
    Case("bools", lambda: _Function(lambda x, y: (x & y) | ~x), _masks),
)
"""Of all sorts: what a backend does not take of them, kernels run."""

AGAIN = tuple(each for each in PLAIN if str(each) in ("sums", "linear", "convolutions", "image"))
"""Those that are lowered twice."""

LAYOUTS = tuple(
    Case(f"{name} in channels-last", model, inputs, channels_last=True)
    for name, model, inputs in (
        ("image sums", lambda: _Function(_image_sums), _floats((-1, 4, 5, 7), (-1, 4, 5, 7))),
        ("image ops", lambda: _Function(_image_ops), _floats((-1, 4, 5, 7), (-1, 4, 5, 7))),
        ("convolutions", _convolutions, _floats((-1, 3, 11, 9))),
        ("image", _Image, _floats((-1, 4, 5, 7))),
    )
)
"""Images that are given in channels-last."""

_BATCH = Dim("batch", max=6)
_LENGTH = Dim("length", min=2, max=9)

DYNAMIC = (
    Case(
        "sums, dynamic batch",
        lambda: _Function(_sums),
        _floats((-1, 5), (-1, 5)),
        sizes=(3, 1, 6, 2),
        dynamic_shapes=(({0: _BATCH}, {0: _BATCH}),),
    ),
    Case(
        "linear, dynamic batch",
        _layers,
        _floats((-1, 7)),
        sizes=(3, 1, 6, 2),
        dynamic_shapes=({0: _BATCH},),
    ),
    Case(
        "convolutions, dynamic batch",
        _convolutions,
        _floats((-1, 3, 11, 9)),
        sizes=(3, 1, 6, 2),
        dynamic_shapes=({0: _BATCH},),
    ),
    Case(
        "attention, dynamic length",
        _Attention,
        _floats((2, -1, 12)),
        sizes=(5, 2, 9, 3),
        dynamic_shapes=({1: _LENGTH},),
    ),
    Case(
        "sums, dynamic length",
        lambda: _Function(_sums),
        _floats((2, -1), (2, -1)),
        sizes=(5, 2, 9, 3),
        dynamic_shapes=(({1: _LENGTH}, {1: _LENGTH}),),
    ),
)
"""Of sizes that differ from run to run."""

ALL = (*PLAIN, *LAYOUTS, *DYNAMIC)

HEAVY = (
    Case(
        "wide layers",
        lambda: nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(2))),
        _floats((64, 1024)),
    ),
    Case(
        "wide convolution",
        lambda: nn.Conv2d(32, 32, 3, padding=1),
        _floats((1, 32, 64, 64)),
    ),
    Case(
        "wide sums",
        lambda: _Function(lambda x, y: ((x + y) * y + x) * x),
        _floats((1024, 1024), (1024, 1024)),
    ),
)
"""Enough work for threads to share."""
