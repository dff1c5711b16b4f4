"""MTCNN (Zhang et al., 2016): where are faces in this photograph?

Three networks in turn. The first looks at the whole picture in many sizes and proposes squares; the
second and third look at each square and correct it.
"""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from .media import photograph, pixels
from .spec import Answer, Network, Part, Runs, packaged

SMALLEST = 60  # faces are looked for from this many pixels on
_CELL, _STRIDE, _SHRINK = 12, 2, 0.709
_LIKELY = (0.6, 0.7, 0.8)
_MOST = 64  # squares at once
LONGEST = 256  # of the sides of a picture that the first network sees


class Proposals(nn.Module):
    """A picture, even sides [1, 3, H, W] -> corrections [1, 4, h, w], likelihoods [1, 2, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.max_pool2d(self.prelu1(self.conv1(x)), 2, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), self.conv4_1(x).softmax(1)


class Refinement(nn.Module):
    """Squares [n, 3, 24, 24] -> corrections [n, 4], how likely each is a face [n, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.dense4(x.permute(0, 3, 2, 1).flatten(1)))
        return self.dense5_2(x), self.dense5_1(x).softmax(1)


class Output(nn.Module):
    """Squares [n, 3, 48, 48] -> corrections [n, 4], eyes, nose and mouth [n, 10], [n, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = functional.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu3(self.conv3(x)), 2, 2, ceil_mode=True)
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(x.permute(0, 3, 2, 1).flatten(1)))
        return self.dense6_2(x), self.dense6_3(x), self.dense6_1(x).softmax(1)


def build() -> dict[str, Part]:
    """The three networks with their weights: pictures of any size, up to 64 squares at once."""
    count = Dim("squares", min=1, max=_MOST)
    # Even ones: where a window that reaches over the edge counts depends on it.
    half = [Dim(name, min=_CELL // 2 + 1, max=LONGEST // 2) for name in ("height", "width")]
    sides = {2: 2 * half[0], 3: 2 * half[1]}
    parts = {}
    for name, model, shape, sizes in [
        ("pnet", Proposals(), (1, 3, 96, 128), sides),
        ("rnet", Refinement(), (8, 3, 24, 24), {0: count}),
        ("onet", Output(), (4, 3, 48, 48), {0: count}),
    ]:
        path = packaged("facenet-pytorch", f"facenet_pytorch/data/{name}.pt")
        model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        generator = torch.Generator().manual_seed(0)
        parts[name] = Part(model.eval(), (torch.randn(shape, generator=generator),), (sizes,))
    return parts


def find(run: Runs, picture: Image.Image) -> Tensor:
    """Faces in a picture: [faces, 5], each left, top, right, bottom and how likely it is one."""
    image = (pixels(picture) - 127.5)[None] / 128
    boxes = _propose(run, image)
    for stage, (name, side) in enumerate([("rnet", 24), ("onet", 48)], 1):
        if len(boxes) == 0:
            break
        boxes = _square(boxes)
        corrections, *_, likely = run[name](_crops(image, boxes, side))
        kept = likely[:, 1] > _LIKELY[stage]
        boxes, corrections, likely = boxes[kept], corrections[kept], likely[kept]
        sizes = (boxes[:, 2:4] - boxes[:, :2]).repeat(1, 2)
        boxes = torch.cat([boxes[:, :4] + corrections * sizes, likely[:, 1:]], 1)
        boxes = boxes[_distinct(boxes, 0.7 if stage == 1 else 0.5)]
    return boxes


def _propose(run: Runs, image: Tensor) -> Tensor:
    """Squares that may hold a face, from the picture in many sizes."""
    found, scale = [torch.zeros(0, 5)], _CELL / SMALLEST
    while min(image.shape[2:]) * scale > _CELL:
        size = [2 * math.ceil(length * scale / 2) for length in image.shape[2:]]
        _, likely = run["pnet"](functional.interpolate(image, size, mode="area"))
        rows, columns = torch.nonzero(likely[0, 1] > _LIKELY[0], as_tuple=True)
        corner = torch.stack([columns, rows], 1) * _STRIDE
        ends = torch.cat([corner, corner + _CELL], 1) / scale
        boxes = torch.cat([ends, likely[0, 1, rows, columns][:, None]], 1)
        found.append(boxes[_distinct(boxes, 0.5)])
        scale *= _SHRINK
    boxes = torch.cat(found)
    return boxes[_distinct(boxes, 0.7)][:_MOST]


def _square(boxes: Tensor) -> Tensor:
    """The smallest squares around boxes, with the same middles."""
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    half = (boxes[:, 2:4] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([middle - half, middle + half, boxes[:, 4:]], 1)


def _crops(image: Tensor, boxes: Tensor, side: int) -> Tensor:
    """What is inside the boxes, in one size; black where a box leaves the picture."""
    crops = []
    for left, top, right, bottom in boxes[:, :4].round().int().tolist():
        height, width = image.shape[2:]
        outside = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
        inside = image[:, :, max(top, 0) : bottom, max(left, 0) : right]
        crop = functional.pad(inside, outside, value=-127.5 / 128)
        crops.append(functional.interpolate(crop, (side, side), mode="area"))
    return torch.cat(crops)


def _distinct(boxes: Tensor, overlap: float) -> Tensor:
    """Which boxes are left, likeliest first, where each removes what overlaps it by more."""
    order, kept = boxes[:, 4].argsort(descending=True).tolist(), []
    while order:
        best, *order = order
        kept.append(best)
        order = [other for other in order if _overlap(boxes[best], boxes[other]) <= overlap]
    return torch.tensor(kept, dtype=torch.int64)


def _overlap(a: Tensor, b: Tensor) -> float:
    """Area that two boxes share over the area that they cover."""
    shared = (torch.minimum(a[2:4], b[2:4]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
    covered = (a[2:4] - a[:2]).prod() + (b[2:4] - b[:2]).prod() - shared
    return float(shared / covered)


def pictures() -> dict[str, tuple[Image.Image, Tensor]]:
    """Photographs and where their faces are: left, top, right, bottom."""
    astronaut = photograph("astronaut.png")
    face = torch.tensor([[177.0, 68, 275, 190]])
    both = Image.new("RGB", (700, 400), "black")
    both.paste(astronaut.crop((60, 0, 360, 400)), (0, 0))
    both.paste(astronaut.crop((60, 0, 360, 400)).resize((225, 300)), (400, 60))
    first, second = face - torch.tensor([60.0, 0, 60, 0]), face - torch.tensor([60.0, 0, 60, 0])
    shift = torch.tensor([400.0, 60, 400, 60])
    return {
        "an astronaut": (astronaut, face),
        "the astronaut twice": (both, torch.cat([first, second * 0.75 + shift])),
        "a cup of coffee": (photograph("coffee.png"), torch.zeros(0, 4)),
    }


def ask(run: Runs) -> Answer:
    """Where are the faces in three photographs with one, two and none?"""
    texts, right = [], True
    for what, (picture, faces) in pictures().items():
        found = find(run, picture)
        overlaps = [max((_overlap(face, box) for box in found), default=0.0) for face in faces]
        right &= len(found) == len(faces) and all(each > 0.5 for each in overlaps)
        places = ", ".join(
            f"{box[0]:.0f} to {box[2]:.0f} across and {box[1]:.0f} to {box[3]:.0f} down"
            for box in found
        )
        texts.append(f"{what}: {places or 'no face'}")
    return Answer("; ".join(texts), right)


NETWORK = Network("facenet-pytorch", "where are the faces?", build, ask)
