"""Graphs exported side by side, and what they have to compute."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram, export
from torch.utils import _pytree as pytree

from ggml_delegate.recurrent_ops import RecurrentLayersPreserved
from tests.differential.graphs import Graph, Symbol, UnionModule, resolve
from tests.differential.quantizing import CALIBRATION_RUNS, PT2E, quantized_by_pt2e
from tests.differential.tolerance import allowed_between, allowed_outputs, run_eagerly
from tests.harness.allowed import Allowed
from tests.harness.quantized import allowed_outputs as allowed_quantized

METHOD = "forward"
PREFILL, DECODE = "prefill", "decode"


@dataclass(frozen=True)
class Call:
    """One call of a method, with what each graph has to return.

    what: for people.
    """

    method: str
    inputs: list[Tensor]
    wanted: list[list[Allowed]]
    what: str


@dataclass
class Subject:
    """Some graphs, to be lowered as one program.

    two_methods: they have a method for several rows at a time and one for one row, which share
        their states. as_lower_does: plans are lowered one by one, each as `lower()` lowers its own.
        third: a backend beside ggml and XNNPACK.
    """

    graphs: Sequence[Graph]
    two_methods: bool = False
    as_lower_does: bool = False
    third: str = ""

    @cached_property
    def model(self) -> nn.Module:
        """What the graphs compute, in eager PyTorch; quantized ones are quantized."""
        model = UnionModule(self.graphs).eval()
        way = self._quantized
        if way not in PT2E:
            return model
        calibration = [self._arguments(seed, 0) for seed in range(10, 10 + CALIBRATION_RUNS)]
        return quantized_by_pt2e(model, calibration, way)

    @cached_property
    def programs(self) -> dict[str, ExportedProgram]:
        """The exported programs, by method; each dynamic graph has sizes of its own."""
        if self.two_methods:
            # Of one module, or of modules that are alike: both are one cache.
            alike = len(self.graphs[0].steps) % 2 == 0
            other = copy.deepcopy(self.model) if alike else self.model
            return {
                PREFILL: export(self.model, tuple(self._arguments(0, 0))),
                DECODE: export(other, tuple(self._arguments(0, 1))),
            }
        dynamic = any(graph.dynamic for graph in self.graphs)
        shapes = (self._dynamic_shapes(),) if dynamic else None
        if self._quantized in PT2E:
            shapes = None if shapes is None else shapes[0]
        inputs = tuple(self._arguments(0, 0))
        with RecurrentLayersPreserved():
            return {METHOD: export(self.model, inputs, dynamic_shapes=shapes)}

    @cached_property
    def calls(self) -> list[Call]:
        """Calls to make one after another, beginning with a program just loaded."""
        if self._quantized:
            return list(self._quantized_calls())
        if any(graph.writes for graph in self.graphs):
            return list(self._calls_with_states())
        return [self._plain_call(seed, run) for seed, run in self._runs()]

    def halves(self) -> list[Subject]:
        """Two subjects, of the first and the last graphs."""
        middle = len(self.graphs) // 2
        return [
            replace(self, graphs=self.graphs[:middle]),
            replace(self, graphs=self.graphs[middle:]),
        ]

    @property
    def _quantized(self) -> str:
        return self.graphs[0].quantized

    def _arguments(self, seed: int, run: int) -> list[Tensor]:
        return [
            value
            for graph in self.graphs
            for value in graph.arguments(graph.make_inputs(seed, run))
        ]

    def _dynamic_shapes(self) -> tuple[dict[int, object] | None, ...]:
        shapes: list[dict[int, object] | None] = []
        for index, graph in enumerate(self.graphs):
            dims = {symbol: _dim(symbol, index) for symbol in graph.symbols}
            shapes += [
                {dim: dims[symbol] for dim, symbol in spec.symbols} or None
                for spec in graph.inputs
                if not spec.state
            ]
        return tuple(shapes)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Seeds and numbers of runs, which sizes depend on."""
        yield 1, 0
        yield 2, 0
        symbols = [symbol for graph in self.graphs for symbol in graph.symbols]
        if symbols:
            yield 3, 1
            yield 4, 2
        if any(symbol.name != "n" for symbol in symbols):
            yield 5, 3

    def _plain_call(self, seed: int, run: int) -> Call:
        wanted = [allowed_outputs(graph, graph.make_inputs(seed, run)) for graph in self.graphs]
        return Call(METHOD, self._arguments(seed, run), wanted, f"seed {seed}, sizes {run}")

    def _calls_with_states(self) -> Iterator[Call]:
        tracks = [StateTracks(graph) for graph in self.graphs]
        for number, run in enumerate((0, 1, 1, 0, 1) if self.two_methods else (0, 0, 0, 0)):
            seed = 20 + number
            wanted = [track.step(seed, run) for track in tracks]
            method = (PREFILL, DECODE)[run] if self.two_methods else METHOD
            yield Call(method, self._arguments(seed, run), wanted, f"call {number} ({method})")

    def _quantized_calls(self) -> Iterator[Call]:
        module = self.programs[METHOD].module()
        counts = [len(graph.outputs) for graph in self.graphs]
        for seed, run in self._runs():
            inputs = self._arguments(seed, run)
            results = iter(allowed_quantized(module, inputs))
            with torch.no_grad():
                converted = iter(pytree.tree_leaves(self.model(*inputs)))
            wanted = [
                [Allowed(next(converted), next(results).error) for _ in range(count)]
                for count in counts
            ]
            yield Call(METHOD, inputs, wanted, f"seed {seed}, sizes {run}")


class StateTracks:
    """The states of a graph over several calls, without rounding errors and with draws of them.

    One draw may leave a result of few numbers where it was. What float32 allows makes up for that,
    and half types get several.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        draws = 1 if graph.dtype == torch.float32 else 4
        self._exact = graph.first_states()
        self._noisy = [graph.first_states() for _ in range(draws)]

    def step(self, seed: int, run: int) -> list[Allowed]:
        """The outputs of the next call, with the error that each may have."""
        inputs = self._graph.make_inputs(seed, run)
        exact = self._step(self._exact, inputs)
        noisy = [
            self._step(states, inputs, noise=True, draw=draw)
            for draw, states in enumerate(self._noisy)
        ]
        return allowed_between(self._graph, exact, *noisy)

    def _step(
        self,
        states: dict[int, Tensor],
        inputs: Sequence[Tensor],
        *,
        noise: bool = False,
        draw: int = 0,
    ) -> list[Tensor]:
        """The outputs of one call, which changes `states`."""
        graph, inputs = self._graph, list(inputs)
        for index, value in states.items():
            inputs[index] = value
        values = run_eagerly(graph, inputs, noise=noise, draw=draw)
        outputs = [resolve(ref, values).clone() for ref in graph.outputs]
        states.update({i: resolve(ref, values).clone() for i, ref in graph.writes.items()})
        return outputs


def is_exportable(graph: Graph) -> bool:
    """Whether torch exports the graph with the sizes that are to stay dynamic."""
    try:
        Subject([graph]).programs  # noqa: B018  (made when first asked for)
    except UserError:  # an op fixes the size, or a relation of sizes
        return False
    return True


def _dim(symbol: Symbol, index: int) -> object:
    low, high = symbol.low // symbol.step, symbol.high // symbol.step
    size = Dim(f"{symbol.name}{index}", min=low, max=high)
    return symbol.step * size if symbol.step > 1 else size
