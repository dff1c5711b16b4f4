"""What a graph under construction has computed so far, and which steps it accepts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.differential.graphs import Constant, Graph, Input, Ref, Step, Symbol, Values, call
from tests.differential.scale import LARGEST, scale_of

SMALLEST_SCALE = 1e-3
NUDGE = 1e-5
"""By how much of its scale an argument is changed to see how sensitive a step is."""
MAX_GAIN = 30.0
"""How many times the change of its arguments a step's result may change by."""
MAX_BATCH = 9
"""The largest batch of dynamic graphs."""
MAX_ELEMENTS = 6000
MAX_ELEMENTS_LARGE = 80_000


class Pool:
    """Builds one graph: holds the value of every Ref for several sets of inputs.

    Two sets have the graph's own sizes; if the graph is dynamic, the others have the extreme sizes.

    dynamic: the batch may change, the first size of inputs that is as large. symbols: other sizes
    that may change, wherever an input is as large as a symbol's example. dtype: of the graph that
    is to be; the values here are float32.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        dynamic: bool = False,
        channels_last: bool = False,
        large: bool = False,
        symbols: Sequence[Symbol] = (),
        channels_last_weights: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.rng = rng
        self.dtype = dtype
        self.graph = Graph()
        self.symbols = tuple(symbols)
        self.channels_last_weights = channels_last_weights
        self.dynamic = dynamic
        self.channels_last = channels_last
        self.max_elements = MAX_ELEMENTS_LARGE if large else MAX_ELEMENTS
        self.batch = rng.choice([2, 3, 5])
        self._batch = Symbol("n", self.batch, 1, MAX_BATCH, 4)
        self.runs = (0, 0, 1, 2, 3) if symbols else (0, 0, 1, 2) if dynamic else (0, 0)
        self._seed = rng.randrange(1 << 30)
        self._generator = torch.Generator().manual_seed(self._seed)
        self._values = [Values([], self.graph.constants, []) for _ in self.runs]

    # ---- values ---------------------------------------------------------------------------------

    def refs(self, *, dtype: torch.dtype | None = torch.float32) -> list[Ref]:
        """Every input and result that is one tensor of a dtype (None: of any)."""
        found = [Ref("x", i) for i in range(len(self.graph.inputs))]
        for i, result in enumerate(self._values[0].results):
            if isinstance(result, Tensor):
                found.append(Ref("v", i))
            else:
                # Where pools found their values is no rule's business, and has no kernel.
                pooled = self.graph.steps[i].op == "aten.adaptive_max_pool2d.default"
                found += [Ref("v", i, item) for item in range(1 if pooled else len(result))]
        return [ref for ref in found if dtype is None or self.value(ref).dtype == dtype]

    def pick(self, *, dtype: torch.dtype | None = torch.float32, rank: int | None = None) -> Ref:
        """A value, later ones more often; a new input if there is none that fits."""
        fit = [r for r in self.refs(dtype=dtype) if rank is None or self.value(r).dim() == rank]
        if not fit or (len(self.graph.inputs) < 3 and self.rng.random() < 0.08):
            return self.new_input(self.sizes(rank))
        return fit[min(self.rng.randrange(len(fit)) + self.rng.randrange(3), len(fit) - 1)]

    def value(self, ref: Ref, which: int = 0) -> Tensor:
        """What a Ref is for one of the sets of inputs."""
        value: Tensor = self._values[which].get(ref)
        return value

    def last(self) -> Ref:
        """The result of the last step, which has one."""
        return Ref("v", len(self.graph.steps) - 1)

    def sizes(self, rank: int | None = None) -> tuple[int, ...]:
        """Sizes for a new input.

        The first one is the batch size, or the last ones are the symbols', where those may change.
        """
        rng = self.rng
        rank = rng.choice([0, 1, 2, 2, 3, 3, 4, 4, 4, 5]) if rank is None else rank
        large = self.max_elements > MAX_ELEMENTS
        choices = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17] + ([24, 33, 40, 65] if large else [])
        while True:
            sizes = tuple(rng.choice(choices) for _ in range(rank))
            if self.dynamic and rank:
                sizes = (self.batch, *sizes[1:])
            if self.symbols and rank > len(self.symbols):
                sizes = (*sizes[: -len(self.symbols)], *(each.example for each in self.symbols))
            if torch.Size(sizes).numel() * 5 <= self.max_elements * (1 if large else 2):
                return sizes

    # ---- growing --------------------------------------------------------------------------------

    def new_input(
        self, sizes: Sequence[int], *, below: int = 0, dtype: torch.dtype = torch.float32
    ) -> Ref:
        """Adds an input: noise, or integers from 0 to `below` - 1."""
        channels_last = self.channels_last and len(sizes) == 4 and not below
        symbols = self.symbols_of(sizes)
        return self.add_input(Input(tuple(sizes), below, dtype, channels_last, symbols))

    def add_input(self, spec: Input) -> Ref:
        """Adds an input that is described already."""
        self.graph.inputs.append(spec)
        for which, values in enumerate(self._values):
            values.inputs[:] = self.graph.make_inputs(self._seed + which % 2, self.runs[which])
        return Ref("x", len(self.graph.inputs) - 1)

    def symbols_of(self, sizes: Sequence[int]) -> tuple[tuple[int, Symbol], ...]:
        """The dimensions of an input of these sizes that may change."""
        if self.dynamic and len(sizes) > 0 and sizes[0] == self.batch:
            return ((0, self._batch),)
        known = {symbol.example: symbol for symbol in self.symbols}
        return tuple((dim, known[size]) for dim, size in enumerate(sizes) if size in known)

    def new_constant(self, value: Tensor) -> Ref:
        """Adds a weight, or gives one of the same sizes that is there already."""
        for i, known in enumerate(self.graph.constants):
            if not isinstance(known, Tensor) or known.shape != value.shape:
                continue
            if known.dtype == value.dtype and value.is_floating_point() and self.rng.random() < 0.4:
                return Ref("w", i)
        return self.own_constant(value)

    def own_constant(self, value: Constant) -> Ref:
        """Adds a constant that nothing shares by chance."""
        self.graph.constants.append(value)
        return Ref("w", len(self.graph.constants) - 1)

    def weight(self, *sizes: int, spread: float = 1.0, around: float = 0.0) -> Ref:
        """A constant of normally distributed numbers."""
        value = torch.randn(sizes, generator=self._generator) * spread + around
        if self.channels_last_weights and len(sizes) == 4:
            value = value.contiguous(memory_format=torch.channels_last)
        return self.new_constant(value)

    def try_step(self, step: Step, *, checked: bool = True) -> bool:
        """Appends a step if torch takes it and its results are fit for a comparison.

        checked: whether they have to be; a mask need not.
        """
        results = []
        for which in range(len(self.runs)):
            try:
                results.append(call(step, self._values[which]))
            except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError):
                return False
        if checked and not self._is_fit(step, results):
            return False
        self.graph.steps.append(step)
        for values, result in zip(self._values, results, strict=True):
            values.results.append(result)
        return True

    def _is_fit(self, step: Step, results: list[Any]) -> bool:
        parts = [list(r) if isinstance(r, list | tuple) else [r] for r in results]
        if not all(isinstance(part, Tensor) for result in parts for part in result):
            return False
        if len({len(result) for result in parts}) > 1:
            return False  # the number of results depends on the batch size
        return all(
            self._is_fit_result(*sets) for sets in zip(*parts, strict=True)
        ) and self._is_smooth(step, results[0])

    def _is_fit_result(self, first: Tensor, second: Tensor, *others: Tensor) -> bool:
        if first.numel() > self.max_elements or first.dim() > 8:
            return False
        if any(value.numel() == 0 for value in (first, second, *others)):
            return False
        if any(value.dim() != first.dim() for value in others):
            return False  # eager squeezes a batch of one, an exported program no dynamic size
        if not first.is_floating_point():
            return first.dtype in (torch.int32, torch.int64, torch.bool)
        if first.dtype != torch.float32:
            return False
        for value in (first, second, *others):
            if not value.isfinite().all() or not SMALLEST_SCALE < value.abs().max() < LARGEST:
                return False
        scale = first.abs().max()
        # Another input must make a difference, and so must the place in the tensor.
        if (first - second).abs().max() < 0.01 * scale:
            return False
        return first.numel() < 3 or bool(first.std() > 1e-3 * scale)

    def _is_smooth(self, step: Step, result: Any) -> bool:
        """Whether rounding errors in the arguments stay small in the result."""
        values = self._values[0]
        nudged = Values(list(values.inputs), list(values.constants), list(values.results))
        lists = {"x": nudged.inputs, "w": nudged.constants, "v": nudged.results}
        for ref in step.refs():
            lists[ref.kind][ref.index] = self._nudge(values.get(Ref(ref.kind, ref.index)))
        other = call(step, nudged)
        before, after = ([r] if isinstance(r, Tensor) else list(r) for r in (result, other))
        for a, b in zip(before, after, strict=True):
            if not a.is_floating_point():
                if not a.equal(b):
                    return False
            elif (a - b).abs().max() > MAX_GAIN * NUDGE * a.abs().max():
                return False
        return True

    def _nudge(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._nudge(part) for part in value]
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() == 0:
            return value
        noise = torch.rand(value.shape, generator=self._generator) * 2 - 1
        return value + noise * NUDGE * scale_of(value)
