"""How the layers of a program are quantized, and how large an error of their results may be.

The error is that of one layer against the converted model in eager PyTorch. It depends on what is
quantized:

* weights alone: floats are multiplied by the dequantized weights, which is as exact as float32 is
  (1e-6 of the largest value);
* activations, with scales that are found in every run: a value near the middle between two integers
  may be rounded to either (2e-3 of the largest value);
* activations, with fixed scales: for the same reason, one step of the result's scale.

The errors of layers that follow each other add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Literal

from torch.fx import Node

from ggml_delegate.node_view import DEQUANTIZE_HALF, op_name
from orchestrator.graph.quantized import (
    Quantization,
    is_choose_qparams,
    is_dequantize,
    is_quantize,
    quantization,
)
from orchestrator.graph.queries import dtype_name, nbytes

DYNAMIC_ERROR = 2e-3
"""Of a dynamically quantized layer, over its largest value."""

Activations = Literal["float", "dynamic", "static"]
_PRODUCTS = {
    "aten.linear.default": 1,
    "aten.addmm.default": 2,
    "aten.mm.default": 1,
    "aten.convolution.default": 1,
    "aten.embedding.default": 0,
}
_DYNAMIC_PER_TENSOR = "quantized_decomposed.quantize_per_tensor.tensor"
_TABLES = "quantized_decomposed.embedding_"


@dataclass(frozen=True)
class Scheme:
    """How a layer with a weight is quantized.

    activations: "float", or int8 with scales that are found in every run ("dynamic") or fixed
    ("static"). bits: of the weight's integers, or floats. group: how many elements of a row share a
    scale; None where all of a row or of the weight do. dtype: of a weight of floats of a half type,
    which meets float32.
    """

    activations: Activations
    bits: int
    group: int | None = None
    dtype: str | None = None

    def __str__(self) -> str:
        if self.dtype is not None:
            return f"{self.dtype} weights"
        weights = f"int{self.bits} weights"
        if self.group is not None:
            weights += f" in groups of {self.group}"
        if self.activations == "float":
            return weights
        return f"int8 activations ({self.activations}), {weights}"


def schemes(nodes: Iterable[Node]) -> dict[Scheme, int]:
    """Count the layers of each scheme, the most frequent first."""
    found = (layer_scheme(node) for node in nodes)
    return dict(Counter(scheme for scheme in found if scheme is not None).most_common())


def layer_scheme(layer: Node) -> Scheme | None:
    """Return how a product or an embedding is quantized; None if it is not, or of other nodes."""
    if op_name(layer).startswith(_TABLES):
        return _table_scheme(layer)
    place = _PRODUCTS.get(op_name(layer))
    if place is None:
        return None
    weight = _dequantize_of(layer.args[place])
    if weight is not None and op_name(weight) == DEQUANTIZE_HALF:
        stored = weight.all_input_nodes[0].meta["val"]
        return Scheme("float", 16, dtype=dtype_name(stored.dtype))
    found = None if weight is None else quantization(weight)
    if weight is None or found is None or _is_computed(weight):
        return None
    row = weight.meta["val"].shape[-1]
    group = None if found.group_size in (None, row) else found.group_size
    source = layer.args[1 if place == 2 else 0]
    return Scheme("float" if place == 0 else _activations(source), _bits(found), group)


def _table_scheme(layer: Node) -> Scheme:
    """The scheme of an op that reads rows of a quantized table; a byte holds 1, 2 or 4 elements."""
    bits = {"byte": 8, "4bit": 4, "2bit": 2}[op_name(layer).removeprefix(_TABLES).split(".")[0]]
    table, scales = (layer.args[place].meta["val"] for place in (0, 1))  # type: ignore[union-attr]
    width, groups = table.shape[-1] * 8 // bits, scales.shape[-1] if scales.dim() > 1 else 1
    return Scheme("float", bits, None if groups == 1 else width // groups)


def stored_bytes(weight: Node) -> int:
    """Return the bytes of a constant in the file, where two integers of 4 bits share a byte."""
    readers = [
        quantization(user) if is_dequantize(user) and user.args[0] is weight else None
        for user in weight.users
    ]
    if readers and all(found is not None and _bits(found) <= 4 for found in readers):
        value = weight.meta["val"]
        return int(-(-value.numel() // 2) * value.element_size())
    return nbytes(weight)


def _bits(found: Quantization) -> int:
    low, high = found.limits
    return max((-low - 1).bit_length(), high.bit_length()) + (low < 0)


def _dequantize_of(value: object) -> Node | None:
    """The dequantize that makes a value, perhaps with transposes behind it; None if none does."""
    while isinstance(value, Node) and not is_dequantize(value):
        if op_name(value) not in {"aten.permute_copy.default", "aten.t_copy.default"}:
            return None
        value = value.args[0]
    return value if isinstance(value, Node) else None


def _is_computed(dequantize: Node) -> bool:
    return dequantize.all_input_nodes[0].op == "call_function"


def _activations(source: object) -> Activations:
    dequantize = _dequantize_of(source)
    if dequantize is None or not _is_computed(dequantize):
        return "float"
    return "static" if _is_fixed(dequantize) else "dynamic"


def _is_fixed(node: Node) -> bool:
    """Whether the scale of a quantize or dequantize is a constant."""
    return not any(
        is_choose_qparams(source) or any(map(is_choose_qparams, source.all_input_nodes))
        for source in node.all_input_nodes[1:]
    )


@dataclass(frozen=True)
class Allowed:
    """What quantization lies between a program's inputs and a tensor: its error may be as large.

    Where paths join, the largest number of each kind counts.

    dynamic: how often activations are quantized with a scale that is found in every run.
    per_tensor: how often of these one scale is for all rows. static: how often they are quantized
    with a fixed scale. step: the last one of these scales. grouped: layers whose weights have
    scales by group. rounded: layers whose weights, or the scales of these, may have been rounded.
    """

    dynamic: int = 0
    static: int = 0
    step: float = 0.0
    grouped: int = 0
    per_tensor: int = 0
    rounded: int = 0

    def error(
        self,
        largest: float,
        of_floats: float,
        groups: float = 0.0,
        per_tensor: float = 0.0,
        weights: float = 0.0,
    ) -> float:
        """Return the largest error that is allowed, over the largest value.

        Args:
            largest: the largest absolute value that is expected.
            of_floats: the same where nothing is quantized.
            groups, per_tensor, weights: as of `backends.base.QuantizedErrors`.
        """
        steps = self.static * self.step / largest if largest else 0.0
        layers = self.dynamic * DYNAMIC_ERROR + self.grouped * groups + self.per_tensor * per_tensor
        return of_floats + layers + self.rounded * weights + steps

    def text(self, groups: float = 0.0, per_tensor: float = 0.0, weights: float = 0.0) -> str:
        """Return what adds to the error of floats: "2 steps of 0.1, 3 layers of 0.002"."""
        parts = []
        if self.static:
            parts.append(f"{self.static} steps of {self.step:.2g}")
        if self.dynamic:
            parts.append(f"{self.dynamic} layers of {DYNAMIC_ERROR:g}")
        if self.grouped and groups:
            parts.append(f"{self.grouped} with scales by group of {groups:.2g}")
        if self.per_tensor and per_tensor:
            parts.append(f"{self.per_tensor} with one scale for all rows of {per_tensor:.2g}")
        if self.rounded and weights:
            parts.append(f"{self.rounded} with weights of {weights:.2g}")
        return ", ".join(parts)


def allowed_errors(nodes: Sequence[Node]) -> dict[Node, Allowed]:
    """Return how large the errors of nodes' results may be, if inputs are exact.

    nodes: in graph order.
    """
    found: dict[Node, Allowed] = {}
    for node in nodes:
        before = [found[source] for source in node.all_input_nodes if source in found]
        found[node] = _after(node, _longest(before))
    return found


def _longest(ways: Sequence[Allowed]) -> Allowed:
    rows = [astuple(each) for each in ways] or [astuple(Allowed())]
    return Allowed(*(max(column) for column in zip(*rows, strict=True)))


def _after(node: Node, before: Allowed) -> Allowed:
    scheme = layer_scheme(node)
    if scheme is not None:
        in_groups = scheme.group is not None
        return replace(
            before,
            grouped=before.grouped + in_groups,
            rounded=before.rounded + (in_groups or scheme.dtype is not None),
        )
    if not is_quantize(node):
        return before
    if not _is_fixed(node):
        per_tensor = op_name(node) == _DYNAMIC_PER_TENSOR
        return replace(
            before, dynamic=before.dynamic + 1, per_tensor=before.per_tensor + per_tensor
        )
    found = quantization(node)
    scale = found.scale if found is not None else None
    step = float(scale) if isinstance(scale, (int, float)) else before.step
    return replace(before, static=before.static + 1, step=step)
