"""Single layers with the shapes that they have in well-known networks, for benchmarks/ops.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


@dataclass(frozen=True)
class Case:
    """One layer: `make()` gives the module and its inputs. Image layers run in both layouts."""

    family: str
    name: str
    make: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]
    image: bool = False


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Wraps it."""
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        """Calls it."""
        return self.function(*args)


# (in, out, side): MobileNetV2 and V3, bottlenecks of ResNet-50.
_POINTWISE = (
    (16, 96, 112), (24, 144, 56), (144, 24, 56), (32, 192, 28), (192, 32, 28), (64, 384, 14),
    (384, 64, 14), (576, 96, 14), (160, 960, 7), (320, 1280, 7), (200, 80, 14), (672, 112, 14),
    (64, 256, 56), (256, 64, 56), (512, 128, 28), (1024, 256, 14), (512, 2048, 7),
)  # fmt: skip
# (channels, side, kernel, stride): MobileNetV2, MobileNetV3, ConvNeXt-T.
_DEPTHWISE = (
    (32, 112, 3, 1), (96, 112, 3, 2), (144, 56, 3, 1), (192, 28, 3, 1), (384, 14, 3, 1),
    (576, 14, 3, 2), (960, 7, 3, 1), (72, 56, 5, 2), (120, 28, 5, 1), (672, 14, 5, 1),
    (960, 7, 5, 1), (96, 56, 7, 1), (384, 14, 7, 1),
)  # fmt: skip
# (in, out, side, kernel, stride, padding): MobileNet, ResNet-50, ConvNeXt-T and ViT.
_DENSE = (
    (3, 32, 224, 3, 2, 1), (3, 64, 224, 7, 2, 3), (64, 64, 56, 3, 1, 1), (128, 128, 28, 3, 1, 1),
    (128, 128, 56, 3, 2, 1), (256, 256, 14, 3, 1, 1), (512, 512, 7, 3, 1, 1),
    (256, 512, 56, 1, 2, 0), (3, 96, 224, 4, 4, 0), (96, 192, 56, 2, 2, 0),
    (3, 192, 224, 16, 16, 0),
)  # fmt: skip
# (rows, in, out): ViT-Ti, ViT-B, BERT-base, ConvNeXt-T, heads of MobileNetV2 and ResNet-50.
_LINEAR = (
    (197, 192, 576), (197, 192, 192), (197, 192, 768), (197, 768, 192), (197, 768, 2304),
    (197, 768, 768), (197, 3072, 768), (128, 768, 768), (128, 768, 3072), (3136, 96, 384),
    (3136, 384, 96), (1, 1280, 1000), (1, 2048, 1000),
)  # fmt: skip
# (rows, width): ViT-Ti, ViT-B, BERT-base, ConvNeXt-T.
_LAYER_NORM = ((197, 192), (197, 768), (128, 768), (3136, 96))
# (heads, rows, columns): scores of ViT-Ti, BERT-base.
_SOFTMAX = ((3, 197, 197), (12, 128, 128))
# (heads, tokens, head size, mask): ViT-Ti, ViT-B, BERT-base.
_ATTENTION = ((3, 197, 64, False), (12, 197, 64, False), (12, 128, 64, True))


def _image(channels: int, side: int) -> Tensor:
    return torch.randn(1, channels, side, side)


def _images() -> Iterator[Case]:
    for c, out, side in _POINTWISE:
        yield Case(
            "1x1",
            f"{c}->{out} at {side}",
            lambda c=c, out=out, side=side: (nn.Conv2d(c, out, 1), (_image(c, side),)),
            image=True,
        )
    for c, side, kernel, stride in _DEPTHWISE:
        yield Case(
            "depthwise",
            f"{c} at {side}, {kernel}x{kernel}" + (f" /{stride}" if stride > 1 else ""),
            lambda c=c, side=side, kernel=kernel, stride=stride: (
                nn.Conv2d(c, c, kernel, stride, kernel // 2, groups=c),
                (_image(c, side),),
            ),
            image=True,
        )
    for c, out, side, kernel, stride, padding in _DENSE:
        yield Case(
            "dense",
            f"{c}->{out} at {side}, {kernel}x{kernel}" + (f" /{stride}" if stride > 1 else ""),
            lambda c=c, out=out, side=side, kernel=kernel, stride=stride, padding=padding: (
                nn.Conv2d(c, out, kernel, stride, padding),
                (_image(c, side),),
            ),
            image=True,
        )
    pooling = nn.MaxPool2d(3, 2, 1)
    yield Case("pool", "max 64 at 112, 3x3 /2", lambda: (pooling, (_image(64, 112),)), image=True)
    yield Case(
        "elementwise",
        "hardswish 240 at 14",
        lambda: (nn.Hardswish(), (_image(240, 14),)),
        image=True,
    )
    yield Case(
        "elementwise",
        "add 256 at 56",
        lambda: (Function(torch.add), (_image(256, 56), _image(256, 56))),
        image=True,
    )
    yield Case(
        "elementwise",
        "scale 240 at 14",
        lambda: (Function(torch.mul), (_image(240, 14), _image(240, 1))),
        image=True,
    )


def _tokens() -> Iterator[Case]:
    for rows, c, out in _LINEAR:
        yield Case(
            "linear",
            f"{rows} x {c}->{out}",
            lambda rows=rows, c=c, out=out: (nn.Linear(c, out), (torch.randn(1, rows, c),)),
        )
    for rows, width in _LAYER_NORM:
        yield Case(
            "norm",
            f"layer_norm {rows} x {width}",
            lambda rows=rows, width=width: (nn.LayerNorm(width), (torch.randn(1, rows, width),)),
        )
    for heads, rows, columns in _SOFTMAX:
        yield Case(
            "softmax",
            f"{heads} x {rows} x {columns}",
            lambda shape=(1, heads, rows, columns): (nn.Softmax(-1), (torch.randn(shape),)),
        )
    for heads, tokens, size, mask in _ATTENTION:
        yield Case(
            "attention",
            f"{heads} heads, {tokens} x {size}" + (", mask" if mask else ""),
            lambda shape=(1, heads, tokens, size), mask=mask: (
                Function(_attention),
                (*(torch.randn(shape) for _ in range(3)), *_mask(shape[2], mask)),
            ),
        )
    for rows, width in ((197, 768), (128, 3072)):
        yield Case(
            "elementwise",
            f"gelu {rows} x {width}",
            lambda shape=(1, rows, width): (nn.GELU(), (torch.randn(shape),)),
        )


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _mask(tokens: int, wanted: bool) -> tuple[Tensor, ...]:
    return (torch.zeros(1, 1, 1, tokens).masked_fill(torch.arange(tokens) > 100, -1e4),) * wanted


CASES: tuple[Case, ...] = (*_images(), *_tokens())
