"""Synthetic cost graphs in the shapes of real networks, for benchmarks/planner.py.

Costs follow measured proportions: a delegate call costs a few microseconds, an image layer tens to
thousands, and which backend is faster depends on the kind of layer. With `distinct`, every atom's
costs are scaled at random, so that no two layers look the same and nothing can be reused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random

from orchestrator.planner import (
    Atom,
    AtomCost,
    Backend,
    CostGraph,
    Layout,
    Price,
    Tensor,
    Transfer,
)

BACKENDS = (
    Backend("ggml", 4_000.0, layouts=(Layout.CONTIGUOUS, Layout.CHANNELS_LAST)),
    Backend("xnnpack", 2_500.0, layouts=(Layout.CHANNELS_LAST, Layout.CONTIGUOUS)),
    Backend("portable", is_delegate=False),
)

#: Time per byte of output in ns on ggml, XNNPACK and ExecuTorch's kernels; None: cannot run it.
_KINDS: Mapping[str, tuple[float | None, float | None, float]] = {
    "conv": (0.90, 0.55, 150.0),
    "conv_grouped": (None, 0.80, 150.0),
    "depthwise": (0.35, 0.50, 60.0),
    "linear": (0.70, 0.75, 40.0),
    "matmul": (0.60, 0.65, 40.0),
    "elementwise": (0.04, 0.03, 0.4),
    "norm": (0.06, None, 2.0),
    "softmax": (0.08, 0.10, 3.0),
    "attention": (0.90, None, 60.0),
    "pool": (0.10, 0.06, 2.0),
    "shape": (0.01, 0.02, 0.3),
    "cat": (0.05, 0.05, 0.4),
    "gather": (0.05, None, 0.5),
}


class _Builder:
    def __init__(self, distinct: bool) -> None:
        self._random = Random(17)
        self._distinct = distinct
        self._atoms: list[Atom] = []
        self._makers: dict[str, tuple[str | None, int, bool]] = {}
        self._users: dict[str, list[str]] = {}

    @property
    def size(self) -> int:
        return len(self._atoms)

    def caller(self, name: str, nbytes: int, image: bool = False) -> str:
        self._makers[name] = (None, nbytes, image)
        self._users[name] = []
        return name

    def add(self, kind: str, *inputs: str, nbytes: int = 0, image: bool = False) -> str:
        """An atom that makes one tensor, by default of the size and rank of its first input."""
        _, size, is_image = self._makers[inputs[0]]
        name = f"{kind}_{len(self._atoms)}"
        nbytes = nbytes or size
        image = image or is_image
        self._atoms.append(Atom(name, self._costs(kind, nbytes, image), trivial=kind == "shape"))
        for tensor in inputs:
            self._users[tensor].append(name)
        self._makers[f"{name}_out"] = (name, nbytes, image)
        self._users[f"{name}_out"] = []
        return f"{name}_out"

    def _costs(self, kind: str, nbytes: int, image: bool) -> dict[str, AtomCost]:
        costs: dict[str, AtomCost] = {}
        for backend, per_byte in zip(BACKENDS, _KINDS[kind], strict=True):
            if per_byte is None:
                continue
            ns = per_byte * nbytes + 300.0
            if self._distinct:
                ns *= self._random.uniform(0.6, 1.6)
            price = Price(round(ns), spread_ns=round(0.02 * ns))
            slow = Price(round(4 * ns), spread_ns=round(0.08 * ns))
            needs_channels_last = image and kind in ("conv", "conv_grouped", "depthwise", "pool")
            if needs_channels_last and backend.name == "ggml":
                costs[backend.name] = {Layout.CHANNELS_LAST: price, Layout.CONTIGUOUS: slow}
            elif needs_channels_last and backend.name == "xnnpack":
                costs[backend.name] = {Layout.CHANNELS_LAST: price}
            elif kind == "shape":
                costs[backend.name] = {Layout.CONTIGUOUS: price}
            else:
                costs[backend.name] = price
        return costs

    def graph(self) -> CostGraph:
        """Whatever nothing reads is an output."""
        tensors = []
        for name, (maker, nbytes, image) in self._makers.items():
            copy, convert = 0.02 * nbytes + 100, 0.12 * nbytes + 200
            transfers = {
                "ggml": Transfer(copy / 4, copy / 4, convert),
                "xnnpack": Transfer(copy, copy, convert),
                "portable": Transfer(0.0, 0.0, 8 * convert),
            }
            layouts = (Layout.CONTIGUOUS, Layout.CHANNELS_LAST)
            tensors.append(
                Tensor(
                    id=name,
                    producer=maker,
                    consumers=tuple(self._users[name]),
                    nbytes=nbytes,
                    is_output=maker is not None and not self._users[name],
                    layouts=layouts if image else layouts[:1],
                    transfers=transfers,
                )
            )
        return CostGraph(BACKENDS, self._atoms, tensors)


def chain(atoms: int, distinct: bool) -> CostGraph:
    """Convolutions, depthwise convolutions, activations and the like, one after another."""
    build = _Builder(distinct)
    x = build.caller("x", 600_000, image=True)
    kinds = ["conv", "elementwise", "depthwise", "elementwise", "conv_grouped", "norm"]
    while build.size < atoms:
        x = build.add(kinds[build.size % len(kinds)], x)
    return build.graph()


def residual(atoms: int, distinct: bool) -> CostGraph:
    """Inverted residual blocks, every third with squeeze and excitation."""
    build = _Builder(distinct)
    x = build.add("conv", build.caller("x", 600_000, image=True))
    block = 0
    while build.size < atoms:
        y = build.add("elementwise", build.add("conv", x))
        y = build.add("elementwise", build.add("depthwise", y))
        if block % 3 == 0:
            gate = build.add("conv", build.add("pool", y, nbytes=4_000), nbytes=4_000)
            y = build.add("elementwise", y, build.add("elementwise", gate))
        y = build.add("norm" if block % 5 == 4 else "conv", y)
        x = build.add("elementwise", x, y)
        block += 1
    return build.graph()


def inception(atoms: int, distinct: bool) -> CostGraph:
    """Blocks of four branches, up to five atoms long, that a concatenation joins."""
    build = _Builder(distinct)
    x = build.add("conv", build.caller("x", 600_000, image=True))
    while build.size < atoms:
        one = build.add("elementwise", build.add("conv", x))
        two = build.add("conv", build.add("elementwise", build.add("conv", x)))
        three = build.add("conv", build.add("elementwise", build.add("conv_grouped", x)))
        three = build.add("elementwise", build.add("depthwise", three))
        four = build.add("conv", build.add("pool", x))
        x = build.add("cat", one, two, three, four)
    return build.graph()


def decoder(atoms: int, distinct: bool, masks: bool = False) -> CostGraph:
    """Attention decoder layers with rotary embeddings and norms unfolded, and shared tables.

    masks: every layer prepares the mask anew, which could happen at any time before.
    """
    build = _Builder(distinct)
    ids = build.caller("ids", 1_024)
    mask = build.caller("mask", 262_144)
    positions = build.caller("positions", 1_024)
    cos = build.add("gather", positions, nbytes=32_768)
    sin = build.add("gather", positions, nbytes=32_768)
    x = build.add("gather", ids, nbytes=393_216)
    while build.size < atoms:
        y = _rms_norm(build, x)
        query = _rotary(build, build.add("shape", build.add("linear", y)), cos, sin)
        key = _rotary(build, build.add("shape", build.add("linear", y)), cos, sin)
        value = build.add("shape", build.add("linear", y))
        scores = build.add("matmul", query, build.add("shape", key), nbytes=786_432)
        added = build.add("shape", mask) if masks else mask
        weights = build.add("softmax", build.add("elementwise", scores, added))
        y = build.add("shape", build.add("matmul", weights, value, nbytes=393_216))
        x = build.add("elementwise", x, build.add("linear", y))
        y = _rms_norm(build, x)
        gate = build.add("linear", y, nbytes=1_572_864)
        gate = build.add("elementwise", gate, build.add("elementwise", gate))
        gate = build.add("elementwise", gate, build.add("linear", y, nbytes=1_572_864))
        x = build.add("elementwise", x, build.add("linear", gate, nbytes=393_216))
    return build.graph()


def _rms_norm(build: _Builder, x: str) -> str:
    mean = build.add("pool", build.add("elementwise", x), nbytes=1_024)
    return build.add("elementwise", build.add("elementwise", x, build.add("elementwise", mean)))


def _rotary(build: _Builder, x: str, cos: str, sin: str) -> str:
    half = build.add("elementwise", build.add("shape", x, nbytes=196_608))
    turned = build.add("cat", half, build.add("shape", x, nbytes=196_608), nbytes=393_216)
    return build.add(
        "elementwise", build.add("elementwise", x, cos), build.add("elementwise", turned, sin)
    )


FAMILIES: Mapping[str, Callable[[int, bool], CostGraph]] = {
    "chain": chain,
    "residual": residual,
    "inception": inception,
    "decoder": decoder,
    "decoder, masks": partial(decoder, masks=True),
}
