"""What delegates hold in memory of their own, from a program to the limit that is put on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from orchestrator import lower
from orchestrator.backends import PrivateMemory, Support, find_backend
from orchestrator.backends.candidates import collect_candidates
from orchestrator.graph.queries import constant_nodes
from orchestrator.planner import ConstraintError, private_bytes
from orchestrator.planning.pricing_graph import cost_graph
from tests.backends.toy import Toy
from tests.harness.compare import assert_close_to_eager
from tests.harness.fakes import edge_program

WIDTH = 256
LAYER = 4 * WIDTH * WIDTH
BACKENDS = ["xnnpack", "ggml"]


class Layers(nn.Module):
    """Two linear layers, of 256 kB each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


class Counter(nn.Module):
    """Changes a buffer of 16 floats, and reads one of 8 that stays as it is."""

    total: Tensor
    step: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(2, 8))
        self.register_buffer("step", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        self.total.add_(x * self.step)
        return self.total + x


class Packing(Toy):
    """Wants all buffers that its nodes read, also those that the model changes."""

    def propose(self, ep: ExportedProgram) -> Support:
        found, buffers = super().propose(ep), constant_nodes(ep)
        candidates = [
            replace(each, constants=tuple(buffers.intersection(each.nodes[0].all_input_nodes)))
            for each in found.candidates
        ]
        return Support(candidates, found.rejections)


class Keeping(Packing):
    """Keeps what state its nodes write twice."""

    private_memory = PrivateMemory(per_weight_byte=3.0, per_state_byte=2.0)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Layers().eval()


@pytest.mark.parametrize("pin", BACKENDS)
def test_the_report_says_what_is_held(model: nn.Module, pin: str) -> None:
    x = torch.randn(3, WIDTH)
    program = lower(model, (x,), backends=BACKENDS, pins={"*": pin}, tune="off")
    plan = program.report.methods[0].plan
    assert plan is not None
    share = find_backend(pin).private_memory.per_weight_byte
    assert plan.private_bytes == 2 * int(share * LAYER)


@pytest.mark.parametrize(
    ("layers", "limit"), [(2, 3 * LAYER), (1, int(1.2 * LAYER)), (0, int(0.1 * LAYER))]
)
def test_a_limit_leaves_to_xnnpack_what_it_may_pack(
    model: nn.Module, layers: int, limit: int
) -> None:
    """Of two layers, XNNPACK may hold as many as the limit has room for."""
    x = torch.randn(3, WIDTH)
    program = lower(
        model, (x,), backends=BACKENDS, tune="off", max_private_bytes=limit, strategy="cost"
    )
    method = program.report.methods[0]
    assert method.plan is not None and method.plan.private_bytes is not None
    assert method.plan.private_bytes <= limit
    packed = sum(part.weight_bytes for part in method.partitions if part.backend == "xnnpack")
    assert packed <= layers * LAYER
    assert_close_to_eager(program, model, (x,), other_inputs=(-2 * x + 1,), tolerance=1e-5)


def test_a_limit_that_pins_exceed_is_an_error(model: nn.Module) -> None:
    pins = {"*": "xnnpack"}
    with pytest.raises(ConstraintError, match="max_private_bytes=1000"):
        lower(
            model,
            (torch.randn(3, WIDTH),),
            backends=BACKENDS,
            pins=pins,
            tune="off",
            max_private_bytes=1000,
        )


@pytest.mark.parametrize(("toy", "held"), [(Packing(), 3 * 32), (Keeping(), 3 * 32 + 2 * 64)])
def test_state_is_held_by_what_writes_it_and_is_no_weight(toy: Toy, held: int) -> None:
    program = edge_program(Counter(), torch.randn(2, 8))
    graph = cost_graph(program, collect_candidates(program, [toy]), [toy])
    assert private_bytes(graph, {atom.id: "toy" for atom in graph.atoms}) == held
    assert private_bytes(graph, {atom.id: "portable" for atom in graph.atoms}) == 0
