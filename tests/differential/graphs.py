"""Small graphs of ATen ops as data: they can be printed, cut down, run eagerly and exported."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


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
class Input:
    """An input: float32 noise, or integers from 0 to `below` - 1.

    `dynamic` inputs share their first size, which may change from run to run.
    """

    sizes: tuple[int, ...]
    below: int = 0
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    dynamic: bool = False


@dataclass
class Graph:
    """A program of steps; `outputs` are what it returns."""

    inputs: list[Input] = field(default_factory=list)
    constants: list[Tensor] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    outputs: list[Ref] = field(default_factory=list)

    def module(self) -> GraphModule:
        """The graph as a model in eval mode."""
        return GraphModule(self).eval()

    def make_inputs(self, seed: int, batch: int | None = None) -> list[Tensor]:
        """Inputs of the graph's sizes; `batch` replaces the first size of dynamic ones."""
        generator = torch.Generator().manual_seed(seed)
        return [_make_input(spec, generator, batch) for spec in self.inputs]

    @property
    def dynamic(self) -> bool:
        """Whether some input has a size that may change."""
        return any(spec.dynamic for spec in self.inputs)

    def pruned(self) -> Graph:
        """The graph without inputs, constants and steps that no output needs."""
        needed = set(self.outputs)
        for index in reversed(range(len(self.steps))):
            if any(ref.kind == "v" and ref.index == index for ref in needed):
                needed.update(self.steps[index].refs())
        kept = {kind: sorted({r.index for r in needed if r.kind == kind}) for kind in "xwv"}

        def rename(ref: Ref) -> Ref:
            return Ref(ref.kind, kept[ref.kind].index(ref.index), ref.item)

        return Graph(
            [self.inputs[old] for old in kept["x"]],
            [self.constants[old] for old in kept["w"]],
            [self.steps[old].renamed(rename) for old in kept["v"]],
            [rename(ref) for ref in self.outputs],
        )

    def source(self) -> str:
        """The graph as text, to be read by whoever looks into a failure."""
        lines = [f"x{i} = {spec}" for i, spec in enumerate(self.inputs)]
        for i, value in enumerate(self.constants):
            lines.append(f"w{i} = {value.dtype} {list(value.shape)}")
        for i, step in enumerate(self.steps):
            arguments = [_text(arg) for arg in step.args]
            arguments += [f"{name}={_text(value)}" for name, value in step.kwargs.items()]
            lines.append(f"v{i} = {step.op}({', '.join(arguments)})")
        lines.append(f"return {', '.join(map(_text, self.outputs))}")
        return "\n".join(lines)


class GraphModule(nn.Module):
    """Runs a graph; its constants are parameters."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        for index, value in enumerate(graph.constants):
            if value.is_floating_point():
                parameter = nn.Parameter(value.clone(), requires_grad=False)
                self.register_parameter(f"constant_{index}", parameter)
            else:
                self.register_buffer(f"constant_{index}", value.clone())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Calls the steps in order."""
        constants = [getattr(self, f"constant_{i}") for i in range(len(self.graph.constants))]
        values = Values(list(inputs), constants, [])
        for step in self.graph.steps:
            values.results.append(call(step, values))
        return tuple(resolve(ref, values) for ref in self.graph.outputs)


class UnionModule(nn.Module):
    """Several graphs side by side in one model, so that they share what exporting costs."""

    def __init__(self, graphs: Iterable[Graph]) -> None:
        super().__init__()
        self.parts = nn.ModuleList([graph.module() for graph in graphs])

    def forward(self, *inputs: Tensor) -> list[tuple[Tensor, ...]]:
        """Hands each graph its inputs."""
        results, start = [], 0
        for part in self.parts:
            count = len(part.graph.inputs)
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
    return overload(step.op)(*args, **kwargs)


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


def _make_input(spec: Input, generator: torch.Generator, batch: int | None) -> Tensor:
    sizes = spec.sizes
    if spec.dynamic and batch is not None:
        sizes = (batch, *sizes[1:])
    if spec.dtype == torch.bool:
        return torch.randint(0, 2, sizes, generator=generator).bool()
    if spec.below:
        return torch.randint(0, spec.below, sizes, generator=generator, dtype=spec.dtype)
    value = torch.randn(sizes, generator=generator)
    return value.contiguous(memory_format=torch.channels_last) if spec.channels_last else value


def _text(argument: Any) -> str:
    if isinstance(argument, Ref):
        item = "" if argument.item is None else f"[{argument.item}]"
        return f"{argument.kind}{argument.index}{item}"
    if isinstance(argument, list | tuple):
        return f"[{', '.join(map(_text, argument))}]"
    return repr(argument)
