"""Writes seeds for the fuzz targets: one small program for each op that has a rule.

Usage: python -m fuzz.seeds FOLDER; makes FOLDER/ir and FOLDER/pte.
"""

from __future__ import annotations

import random
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import networkx as nx
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.nn import functional

from ggml_delegate import ir
from ggml_delegate.registry import HALF_DTYPES, rules
from orchestrator.frontend.torch_speed import repeated_work_spared
from orchestrator.planner import CostGraph, Plan, Segment, price_plan, split_into_segments
from tests.differential.generate import random_graph, targets
from tests.differential.graphs import Graph
from tests.differential.plans import export_graphs, lower_plans, only
from tests.harness.activations import INT8, WAYS, dequantize, quantize
from tests.harness.integer_weights import SCHEMES, Convolution, Several

DYNAMIC = 12
HALVES = 16
WHOLE_FILES = 12


class MadeFromNothing(nn.Module):
    """Ops that read no tensor, or only its sizes; those are dynamic, or the results were folded.

    Random graphs have none: what they make says nothing about a backend's arithmetic.
    """

    targets = ("aten.full.default", "aten.full_like.default", "aten.arange.start_step")

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: of sizes [n, 5]."""
        sizes = (x.shape[0], 5)
        places = torch.arange(x.shape[0])
        return [
            torch.full(sizes, 2.5) * x,
            torch.full(sizes, True) & (x > 0),
            torch.ones(sizes, dtype=torch.int64) * 3,
            torch.full_like(x, -1.5).maximum(x),
            places * 2 + 1,
            torch.arange(2 * x.shape[0] + 1, dtype=torch.float32),
        ]


def made_from_nothing() -> ExportedProgram:
    """The model above with a dynamic batch size."""
    return export(MadeFromNothing(), (torch.randn(4, 5),), dynamic_shapes=({0: Dim("n", max=9)},))


def integer_weights() -> ExportedProgram:
    """A linear layer for each way to expand a weight of 8 or 4 bits."""
    layers = [make(20, 64, bits=bits) for make in SCHEMES.values() for bits in (8, 4)]
    return export(Several(layers), tuple(torch.randn(3, 64) for _ in layers))


def quantized_activations() -> ExportedProgram:
    """Tensors of a dynamic size, each way to quantize them by their own range."""

    class Model(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [make()(x + number) for number, make in enumerate(WAYS.values())]

    return export(Model(), (torch.randn(4, 5),), dynamic_shapes=({0: Dim("n", max=9)},))


def static_layers() -> ExportedProgram:
    """A convolution of integers, before it and after it activations of fixed scales."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Convolution((5, 3, 3, 3), "channel, zero points", padding=1)

        def forward(self, q: Tensor) -> list[Tensor]:
            before, after = (0.05, -3, -128, 127, INT8), (0.5, 9, 0, 255, torch.uint8)
            made = quantize(self.layer(dequantize(q, before)), after)
            return [made, dequantize(quantize(dequantize(made, after) + 1, after), after)]

    sizes = {2: Dim("h", min=3, max=9), 3: Dim("w", min=3, max=9)}
    image = torch.randint(-128, 128, (1, 3, 6, 5), dtype=INT8)
    return export(Model(), (image,), dynamic_shapes=(sizes,))


class HalfCaches(nn.Module):
    """Caches of keys and values of a half type, which stay as they lie in memory.

    Attention reads them as they are, others widened: each row across, and their sum.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.keys: Tensor
        self.values: Tensor
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(1, 9, 2, 5, dtype=dtype))

    def forward(self, x: Tensor, at: Tensor) -> list[Tensor]:
        """x: of a half type, [1, rows, 4, 5]. at: the rows' places."""
        self.keys[:, at], self.values[:, at] = x[:, :, :2], x[:, :, 2:]
        keys, values = self.keys.transpose(1, 2), self.values.transpose(1, 2)
        seen = torch.arange(9) <= at[:, None]
        y = functional.scaled_dot_product_attention(
            x.transpose(1, 2), keys, values, attn_mask=seen, enable_gqa=True
        )
        return [y, self.keys[:, 2:7].mT, self.values.sum()]


def half_caches() -> ExportedProgram:
    """Such caches of both half types, with few queries and with many."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([HalfCaches(dtype) for dtype in HALF_DTYPES for _ in "12"])

        def forward(self, *inputs: Tensor) -> list[list[Tensor]]:
            pairs = zip(inputs[::2], inputs[1::2], strict=True)
            return [part(*pair) for part, pair in zip(self.parts, pairs, strict=True)]

    inputs = [
        each
        for dtype in HALF_DTYPES
        for rows in (1, 6)
        for each in (torch.randn(1, rows, 4, 5).to(dtype), torch.arange(rows))
    ]
    return export(Model(), tuple(inputs))


def one_call_each(graph: CostGraph) -> Plan:
    """Everything on ggml that can be, with a call of its own for each connected part."""
    assignment = only("ggml")(graph).assignment
    links: nx.Graph[str] = nx.Graph()
    links.add_nodes_from(atom.id for atom in graph.atoms if assignment[atom.id] == "ggml")
    for index, readers in enumerate(graph.succs):
        for reader in readers:
            pair = graph.atoms[index].id, graph.atoms[reader].id
            if all(atom in links for atom in pair):
                links.add_edge(*pair)
    part_of = {
        atom: number for number, part in enumerate(nx.connected_components(links)) for atom in part
    }
    segments: list[Segment] = []
    for segment in split_into_segments(graph, assignment):
        parts: dict[int, list[str]] = {}
        for atom in segment.atoms:
            parts.setdefault(part_of.get(atom, -1), []).append(atom)
        segments += [
            Segment(segment.backend, tuple(atoms), segment.is_delegate) for atoms in parts.values()
        ]
    return price_plan(graph, segments, solver="parts")


def write_ir(folder: Path, graphs: list[Graph], name: str) -> int:
    """Writes the IR of each delegate call; returns how many there were.

    A graph that cannot be lowered costs only itself and is told: a fault to be looked at, but none
    of the runtime.
    """
    try:
        return write_program(folder, export_graphs(graphs), name)
    except Exception as error:
        if len(graphs) == 1:
            ops = ", ".join(step.op for step in graphs[0].steps)
            print(f"cannot lower {ops}: {type(error).__name__}: {error}")
            return 0
    middle = len(graphs) // 2
    halves = (graphs[:middle], graphs[middle:])
    return sum(write_ir(folder, half, f"{name}_{part}") for part, half in enumerate(halves))


def write_program(folder: Path, program: ExportedProgram, name: str) -> int:
    """Writes the IR of each delegate call of a program; returns how many there were."""
    made: list[bytes] = []
    serialize = ir.serialize

    def noted(program: Any) -> bytes:
        made.append(serialize(program))
        return made[-1]

    with mock.patch("ggml_delegate.preprocess.ir.serialize", noted):
        lower_plans(program, {"parts": one_call_each})
    for number, data in enumerate(made):
        (folder / f"{name}_{number}").write_bytes(data)
    return len(made)


def ops_with_random_graphs() -> list[str]:
    """The targets to seed with random graphs: every rule's but those seeded above."""
    others = {rules()[name] for name in MadeFromNothing.targets}
    return [name for name in dict.fromkeys(targets()) if rules()[name] not in others]


def main() -> None:
    """Runs the command."""
    warnings.filterwarnings("ignore")
    folder = Path(sys.argv[1])
    rng = random.Random(0)
    for kind in ("ir", "pte"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    with repeated_work_spared():
        count = write_program(folder / "ir", made_from_nothing(), "nothing")
        count += write_program(folder / "ir", integer_weights(), "integers")
        count += write_program(folder / "ir", quantized_activations(), "activations")
        count += write_program(folder / "ir", static_layers(), "static")
        count += write_program(folder / "ir", half_caches(), "caches")
        names = ops_with_random_graphs()
        for start in range(0, len(names), 32):
            chosen = [random_graph(rng, target=name) for name in names[start : start + 32]]
            count += write_ir(folder / "ir", chosen, f"ops_{start}")
        dynamic = [random_graph(rng, dynamic=True) for _ in range(DYNAMIC)]
        count += write_ir(folder / "ir", dynamic, "dynamic")
        for dtype in HALF_DTYPES:
            halves = [random_graph(rng, dtype=dtype) for _ in range(HALVES)]
            count += write_ir(folder / "ir", halves, str(dtype).removeprefix("torch."))
        for number in range(WHOLE_FILES):
            graphs = [random_graph(rng, dynamic=number % 4 == 0) for _ in range(2)]
            data = lower_plans(export_graphs(graphs), {"forward": only("ggml")})
            (folder / "pte" / f"{number}.pte").write_bytes(data)
    print(f"{count} seeds of IR, {WHOLE_FILES} of whole files in {folder}")


if __name__ == "__main__":
    main()
