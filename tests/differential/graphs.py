"""Small graphs of ATen ops as data: they can be printed, cut down, run eagerly and exported."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.frontend.half_weights import dequantize_half
from tests.differential.grouped_weights import GroupedConstant
from tests.differential.quantizing import GROUP, HALVES, OF_WEIGHTS, quantized_weight

# The seed of the states' first values.
_FIRST_STATES = 77


@dataclass(frozen=True)
class Ref:
    """An input ("x"), a constant ("w") or a step's result ("v"), by number.

    `item` picks one result of a step that has several.
    """

    kind: str
    index: int
    item: int | None = None


@dataclass(frozen=True)
class Step:
    """One call of an ATen op, such as "aten.add.Tensor"; tensors among its arguments are Refs."""

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def refs(self) -> tuple[Ref, ...]:
        """The values it reads, each once, in the order of its arguments."""
        return tuple(dict.fromkeys(refs((*self.args, *self.kwargs.values()))))

    def renamed(self, rename: Callable[[Ref], Ref]) -> Step:
        """The step with other Refs."""
        return Step(
            self.op,
            tuple(_renamed(arg, rename) for arg in self.args),
            {name: _renamed(value, rename) for name, value in self.kwargs.items()},
        )


@dataclass(frozen=True)
class Symbol:
    """A size that may change from run to run, in multiples of `step`: `low`, `high`, or `other`.

    Inputs of one graph that name equal symbols share the size.
    """

    name: str
    example: int
    low: int
    high: int
    other: int
    step: int = 1

    def at(self, run: int) -> int:
        """The size in the run of a number: the example's, the smallest, the largest, another."""
        return (self.example, self.low, self.high, self.other)[run]


@dataclass(frozen=True)
class Input:
    """An input: float32 noise, or integers from 0 to `below` - 1.

    symbols: the dimensions whose sizes may change, each with its symbol. ascending: the integers
    follow each other. state: what the graph itself keeps from call to call and changes; not passed
    by callers. zeros: the state's first value, else noise.
    """

    sizes: tuple[int, ...]
    below: int = 0
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    symbols: tuple[tuple[int, Symbol], ...] = ()
    ascending: bool = False
    state: bool = False
    zeros: bool = False

    def sizes_in(self, run: int) -> tuple[int, ...]:
        """Its sizes in the run of a number."""
        sizes = list(self.sizes)
        for dim, symbol in self.symbols:
            sizes[dim] = symbol.at(run)
        return tuple(sizes)


Constant = Tensor | GroupedConstant


@dataclass
class Graph:
    """A program of steps; `outputs` are what it returns.

    writes: the new values of states, by the number of their input. quantized: how its weights and
    activations are quantized, one of `quantizing.WAYS`. dtype: of inputs, constants and results.
    """

    inputs: list[Input] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    outputs: list[Ref] = field(default_factory=list)
    writes: dict[int, Ref] = field(default_factory=dict)
    quantized: str = ""
    dtype: torch.dtype = torch.float32

    def module(self) -> GraphModule:
        """The graph as a model in eval mode."""
        return GraphModule(self).eval()

    def make_inputs(self, seed: int, run: int = 0) -> list[Tensor]:
        """Values for all inputs, states too, of the sizes in the run of a number."""
        generator = torch.Generator().manual_seed(seed)
        return [self.cast(_make_input(spec, generator, run)) for spec in self.inputs]

    def arguments(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Those among the values of all inputs that a caller passes."""
        return [value for spec, value in zip(self.inputs, values, strict=True) if not spec.state]

    def first_states(self) -> dict[int, Tensor]:
        """What the states hold before the first call, by the number of their input."""
        values = self.make_inputs(_FIRST_STATES)
        return {
            i: torch.zeros_like(values[i]) if spec.zeros else values[i]
            for i, spec in enumerate(self.inputs)
            if spec.state
        }

    def quantized_weights(self) -> dict[int, bool]:
        """The weights that are stored otherwise, by number; True for tables of embeddings."""
        if self.quantized not in OF_WEIGHTS:
            return {}
        places = {"aten.linear.default": 1, "aten.embedding.default": 0}
        return {
            step.args[places[step.op]].index: step.op == "aten.embedding.default"
            for step in self.steps
            if step.op in places and self._divides(step.args[places[step.op]])
        }

    def _divides(self, ref: Ref) -> bool:
        """Whether it is a constant that can be quantized: its rows divide into the groups."""
        value = self.constants[ref.index] if ref.kind == "w" else None
        if not isinstance(value, Tensor):
            return False
        return not self.quantized.endswith("groups") or (value.shape[-1] % GROUP == 0)

    @typing.overload
    def cast(self, value: Tensor) -> Tensor: ...

    @typing.overload
    def cast(self, value: GroupedConstant) -> GroupedConstant: ...

    def cast(self, value: Constant) -> Constant:
        """A value in the graph's dtype, if it is no integer."""
        if isinstance(value, GroupedConstant):
            return replace(value, dtype=self.dtype)
        return value.to(self.dtype) if value.is_floating_point() else value

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The sizes that may change, each once."""
        return tuple(dict.fromkeys(symbol for spec in self.inputs for _, symbol in spec.symbols))

    @property
    def dynamic(self) -> bool:
        """Whether some input has a size that may change."""
        return bool(self.symbols)

    def pruned(self) -> Graph:
        """The graph without inputs, constants and steps that no output and no state needs."""
        needed = {*self.outputs, *self.writes.values(), *(Ref("x", i) for i in self.writes)}
        for index in reversed(range(len(self.steps))):
            if any(ref.kind == "v" and ref.index == index for ref in needed):
                needed.update(self.steps[index].refs())
        kept = {kind: sorted({r.index for r in needed if r.kind == kind}) for kind in "xwv"}

        def rename(ref: Ref) -> Ref:
            return Ref(ref.kind, kept[ref.kind].index(ref.index), ref.item)

        return replace(
            self,
            inputs=[self.inputs[old] for old in kept["x"]],
            constants=[self.constants[old] for old in kept["w"]],
            steps=[self.steps[old].renamed(rename) for old in kept["v"]],
            outputs=[rename(ref) for ref in self.outputs],
            writes={kept["x"].index(i): rename(ref) for i, ref in self.writes.items()},
        )

    def source(self) -> str:
        """The graph as text, to be read by whoever looks into a failure."""
        lines = [f"x{i} = {_described(spec)}" for i, spec in enumerate(self.inputs)]
        for i, value in enumerate(self.constants):
            shown = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else value
            lines.append(f"w{i} = {shown}")
        for i, step in enumerate(self.steps):
            arguments = [_text(arg) for arg in step.args]
            arguments += [f"{name}={_text(value)}" for name, value in step.kwargs.items()]
            lines.append(f"v{i} = {step.op}({', '.join(arguments)})")
        lines += [f"x{i} <- {_text(ref)}" for i, ref in self.writes.items()]
        lines.append(f"return {', '.join(map(_text, self.outputs))}")
        lines += [f"quantized: {self.quantized}"] if self.quantized else []
        lines += [f"in {self.dtype}"] if self.dtype != torch.float32 else []
        return "\n".join(lines)


class GraphModule(nn.Module):
    """Runs a graph; its constants are parameters, its states are buffers."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        weights = graph.quantized_weights()
        for index, value in enumerate(graph.constants):
            if isinstance(value, GroupedConstant):
                value.registered(self, f"constant_{index}")
            elif index in weights:
                weight = quantized_weight(value, graph.quantized, is_table=weights[index])
                self.register_parameter(f"constant_{index}", weight)
            elif value.is_floating_point():
                parameter = nn.Parameter(graph.cast(value).clone(), requires_grad=False)
                self.register_parameter(f"constant_{index}", parameter)
            else:
                self.register_buffer(f"constant_{index}", value.clone())
        for index, value in graph.first_states().items():
            self.register_buffer(f"state_{index}", value)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Calls the steps in order, then writes the states."""
        constants = [self._constant(i) for i in range(len(self.graph.constants))]
        passed = iter(inputs)
        specs = enumerate(self.graph.inputs)
        values = [getattr(self, f"state_{i}") if s.state else next(passed) for i, s in specs]
        everything = Values(values, constants, [])
        for step in self.graph.steps:
            everything.results.append(call(step, everything))
        results = tuple(resolve(ref, everything) for ref in self.graph.outputs)
        for i, ref in self.graph.writes.items():
            getattr(self, f"state_{i}").copy_(resolve(ref, everything))
        return results

    def _constant(self, index: int) -> Constant:
        name, value = f"constant_{index}", self.graph.constants[index]
        if isinstance(value, GroupedConstant):
            return self.graph.cast(value).of_buffers(self, name)
        tensor: Tensor = getattr(self, name)
        if self.graph.quantized in HALVES and index in self.graph.quantized_weights():
            tensor = dequantize_half(tensor)
        return tensor


class UnionModule(nn.Module):
    """Several graphs side by side in one model, so that they share what exporting costs."""

    def __init__(self, graphs: Iterable[Graph]) -> None:
        super().__init__()
        self.parts = nn.ModuleList([graph.module() for graph in graphs])

    def forward(self, *inputs: Tensor) -> list[tuple[Tensor, ...]]:
        """Hands each graph its inputs."""
        results, start = [], 0
        for part in self.parts:
            count = sum(not spec.state for spec in part.graph.inputs)
            results.append(part(*inputs[start : start + count]))
            start += count
        return results


@dataclass
class Values:
    """What the Refs of a graph stand for in one run."""

    inputs: list[Any]
    constants: list[Any]
    results: list[Any]

    def get(self, ref: Ref) -> Any:
        """The value of a Ref."""
        value = {"x": self.inputs, "w": self.constants, "v": self.results}[ref.kind][ref.index]
        return value if ref.item is None else value[ref.item]


def call(step: Step, values: Values) -> Any:
    """Runs one step on the values before it."""
    args = [resolve(arg, values) for arg in step.args]
    kwargs = {name: resolve(value, values) for name, value in step.kwargs.items()}
    return _FUNCTIONS.get(step.op, overload(step.op))(*args, **kwargs)


def _linear(x: Tensor, weight: Constant, bias: Tensor | None = None) -> Tensor:
    if isinstance(weight, GroupedConstant):
        weight = weight.matrix()
    return functional.linear(x, weight, bias)


def _embedding(table: Constant, indices: Tensor) -> Tensor:
    if isinstance(table, GroupedConstant):
        return table.rows(indices)
    return functional.embedding(indices, table)


# Torchao's weights replace these, not the ops that they call.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "aten.linear.default": _linear,
    "aten.embedding.default": _embedding,
}


def resolve(argument: Any, values: Values) -> Any:
    """An argument with the values its Refs stand for."""
    if isinstance(argument, Ref):
        return values.get(argument)
    if isinstance(argument, list | tuple):
        return [resolve(part, values) for part in argument]
    return argument


def _renamed(argument: Any, rename: Callable[[Ref], Ref]) -> Any:
    if isinstance(argument, Ref):
        return rename(argument)
    if isinstance(argument, list | tuple):
        return [_renamed(part, rename) for part in argument]
    return argument


def refs(argument: Any) -> Iterable[Ref]:
    """The Refs in an argument."""
    if isinstance(argument, Ref):
        yield argument
    elif isinstance(argument, list | tuple):
        for part in argument:
            yield from refs(part)


@functools.cache
def overload(name: str) -> Any:
    """The op of a name such as "aten.add.Tensor"."""
    return functools.reduce(getattr, name.split("."), torch.ops)


def _make_input(spec: Input, generator: torch.Generator, run: int) -> Tensor:
    sizes = spec.sizes_in(run)
    if spec.dtype == torch.bool:
        return torch.randint(0, 2, sizes, generator=generator).bool()
    if spec.ascending:
        start = torch.randint(0, spec.below - sizes[0] + 1, (1,), generator=generator)
        return torch.arange(sizes[0]) + start
    if spec.below:
        return torch.randint(0, spec.below, sizes, generator=generator, dtype=spec.dtype)
    value = torch.randn(sizes, generator=generator)
    return value.contiguous(memory_format=torch.channels_last) if spec.channels_last else value


def _described(spec: Input) -> str:
    """An input's fields that are not as usual."""
    shown = [
        f"{each.name}={getattr(spec, each.name)}"
        for each in fields(spec)
        if getattr(spec, each.name) != each.default
    ]
    return f"Input({', '.join(shown)})"


def _text(argument: Any) -> str:
    if isinstance(argument, Ref):
        item = "" if argument.item is None else f"[{argument.item}]"
        return f"{argument.kind}{argument.index}{item}"
    if isinstance(argument, list | tuple):
        return f"[{', '.join(map(_text, argument))}]"
    return repr(argument)
