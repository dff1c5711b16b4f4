"""Images stay in channels-last between delegates, whatever the plan, and results stay eager's."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn
from torch.export import Dim, export

from orchestrator import OrchestratorPartitioner, lower
from orchestrator.backends import resolve_backends
from orchestrator.dim_orders.channels_last import ChannelsLastPass
from orchestrator.edge import edge_compile_config
from orchestrator.frontend.torch_speed import repeated_work_spared
from orchestrator.native import NativeProgram
from orchestrator.planner import CostGraph, Plan, price_plan, split_into_segments
from orchestrator.verify import verify
from tests.harness.ops import outputs_of, relative_error

BACKENDS = ("ggml", "xnnpack")
LAST = (0, 2, 3, 1)


def _random_solver(seed: int) -> Callable[[CostGraph], Plan]:
    """Gives every atom to some delegate that can run it."""

    def solve(graph: CostGraph) -> Plan:
        choose = random.Random(seed).choice
        assignment = {}
        for atom in graph.atoms:
            able = [b for b in graph.backends if graph.capable(atom.id, b.name)]
            delegates = [backend for backend in able if backend.is_delegate]
            assignment[atom.id] = choose(delegates or able).name
        return price_plan(graph, split_into_segments(graph, assignment), solver="random")

    return solve


def _assert_equal(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Values agree, and the dim orders of images do."""
    for got, want in zip(actual, expected, strict=True):
        assert relative_error(got, want) <= 1e-5
        if want.dim() == 4 and want.shape[2:] != (1, 1):
            assert got.stride() == want.stride()


class _Lowered:
    def __init__(self, model: nn.Module, inputs: Any, seed: int = 0, dynamic: Any = None) -> None:
        with torch.no_grad(), repeated_work_spared():
            self.edge = to_edge_transform_and_lower(
                export(model.eval(), inputs, dynamic_shapes=dynamic),
                transform_passes=[ChannelsLastPass(resolve_backends(BACKENDS))],
                partitioner=[OrchestratorPartitioner(BACKENDS, solver=_random_solver(seed))],
                compile_config=edge_compile_config(),
            )
        self.graph = self.edge.exported_program().graph
        self.native = NativeProgram(self.edge.to_executorch().buffer)

    def crossing(self) -> list[tuple[int, ...]]:
        """Dim orders of the images of more than one pixel that one call hands to another."""
        values = [
            node.meta["val"]
            for node in self.graph.nodes
            if node.op == "call_function"
            and isinstance(node.meta.get("val"), Tensor)
            and any("call_delegate" in user.name for user in node.users)
        ]
        images = [value for value in values if value.dim() == 4 and value.shape[2:] != (1, 1)]
        return [tuple(value.dim_order()) for value in images]

    def check(self, model: nn.Module, *inputs: Tensor) -> None:
        """Runs and compares values, sizes and dim orders with eager."""
        with torch.no_grad():
            expected = outputs_of(model(*inputs))
        actual = outputs_of(self.native.run("forward", list(inputs)))
        _assert_equal(actual, expected)


def _image(*sizes: int) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(3))


class _Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU6(), nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Hardswish(), nn.Conv2d(8, 16, 1), nn.MaxPool2d(2), nn.Conv2d(16, 4, 3, stride=2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Block(nn.Module):
    """Squeeze and excitation, shortcuts, a concatenation, a head, and an image as a result."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.left, self.right = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 5, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(1, 11, 1, 1) + 0.5)
        self.position = nn.Parameter(torch.randn(1, 8, 9, 7))
        self.head = nn.Linear(11, 5)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        x = torch.relu(self.stem(x)) + y
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        joined = torch.cat((self.left(x), self.right(x)), 1) * self.scale
        placed = x + self.position
        pooled = torch.nn.functional.max_pool2d(joined, (9, 7))
        flat = joined.flatten(2).transpose(1, 2)
        return self.head(pooled.flatten(1)), joined, flat, placed, pooled


def test_what_crosses_between_delegates_is_channels_last() -> None:
    model, x = _Chain(), _image(2, 3, 15, 13)
    lowered = _Lowered(model, (x,), seed=1)
    crossing = lowered.crossing()
    assert len(crossing) >= 3, "the plan has to cut the chain"
    assert set(crossing) == {LAST}
    lowered.check(model, x)


@pytest.mark.parametrize("seed", range(4))
def test_any_plan_gives_eager_results(seed: int) -> None:
    model, inputs = _Block(), (_image(2, 3, 9, 7), _image(2, 8, 9, 7))
    lowered = _Lowered(model, inputs, seed=seed)
    lowered.check(model, *inputs)


def test_a_channels_last_program_needs_no_conversion() -> None:
    x = _image(1, 3, 15, 13).to(memory_format=torch.channels_last)
    model = _Chain()
    lowered = _Lowered(model, (x,), seed=1)
    report = lower(model, (x,)).report
    assert "_to_dim_order_copy" not in str(report)
    assert set(lowered.crossing()) == {LAST}
    lowered.check(model, x)


def test_channels_last_results_stay_so() -> None:
    model = _Block()
    inputs = tuple(
        x.to(memory_format=torch.channels_last) for x in (_image(2, 3, 9, 7), _image(2, 8, 9, 7))
    )
    program = lower(model.eval(), inputs, backends=("xnnpack", "ggml"))
    with torch.no_grad():
        _assert_equal(outputs_of(program(*inputs)), outputs_of(model(*inputs)))


def test_batches_may_change() -> None:
    model, batch = _Chain(), Dim("batch", min=1, max=4)
    lowered = _Lowered(model, (_image(3, 3, 15, 13),), seed=1, dynamic=({0: batch},))
    assert set(lowered.crossing()) == {LAST}
    for size in (1, 3, 4):
        lowered.check(model, _image(size, 3, 15, 13))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_batches_of_resized_images_stay_open(mode: str) -> None:
    """The fake versions of resizing ask how large a batch of channels-last images is."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Upsample(scale_factor=2, mode=mode)).eval()
    inputs = (torch.randn(5, 3, 4, 6),)
    for backends in (BACKENDS, ("ggml",), ("xnnpack",)):
        sizes = ({0: Dim("n", min=1, max=9)},)
        program = lower(model, inputs, backends=backends, strategy="greedy", dynamic_shapes=sizes)
        for batch in (5, 1, 9):
            x = torch.randn(batch, 3, 4, 6)
            _assert_equal([program(x)], [model(x)])


def test_an_image_of_one_channel_is_computed_all_the_same() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3), nn.Conv2d(1, 2, 3))
    x = _image(1, 1, 12, 11)
    for seed in range(3):
        _Lowered(model, (x,), seed=seed).check(model, x)


class _Sorted(nn.Module):
    """With an op in the middle that only ExecuTorch's kernels have, for contiguous tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.third = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.second(torch.relu(self.first(x))))
        return self.third(torch.topk(y, y.shape[3], 3).values)


@pytest.mark.parametrize(
    "options",
    [
        {"pins": {"first": "ggml", "second": "xnnpack"}},
        {"pins": {"second": "portable"}},
        {"exclude": ["second"]},
        {"max_partitions": 1},
        {"max_partitions": 0},
        {"strategy": "greedy"},
    ],
    ids=str,
)
def test_constraints_are_met_and_programs_can_be_verified(
    options: dict[str, Any], tmp_path: Path
) -> None:
    model, x = _Sorted().eval(), _image(1, 3, 12, 10)
    program = lower(model, (x,), tune="off", **options)
    with torch.no_grad():
        _assert_equal(outputs_of(program(x)), outputs_of(model(x)))
    assert len(program.plan["forward"].partitions) <= options.get("max_partitions", 9)
    program.save(tmp_path / "sorted.pte")
    checks = verify(tmp_path / "sorted.pte", model, (x,)).checks
    assert len(checks) > len(program.plan["forward"].partitions)
    assert all(check.passed for check in checks)


def test_a_limit_on_partitions_leaves_images_in_channels_last_where_it_can() -> None:
    model, x = _Chain(), _image(2, 3, 15, 13)
    program = lower(model.eval(), (x,), tune="off", max_partitions=1)
    assert "_to_dim_order_copy" in str(program.report)
    assert len(program.plan["forward"].partitions) == 1
    with torch.no_grad():
        _assert_equal(outputs_of(program(x)), outputs_of(model(x)))


def test_kernels_are_given_the_order_that_they_were() -> None:
    model, x = _Sorted(), _image(1, 3, 12, 10)
    lowered = _Lowered(model, (x,), seed=0)
    kernel = next(node for node in lowered.graph.nodes if "topk" in node.name)
    assert tuple(kernel.args[0].meta["val"].dim_order()) == (0, 1, 2, 3)
    lowered.check(model, x)


@pytest.mark.parametrize(
    ("model", "backends"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), BACKENDS),  # it hands no image over
        (_Chain(), ("ggml",)),
        (nn.Sequential(nn.Linear(7, 3), nn.ReLU()), BACKENDS),
    ],
)
def test_nothing_is_converted_where_nothing_could_cross(
    model: nn.Module, backends: tuple[str, ...]
) -> None:
    report = lower(model.eval(), (_image(1, 3, 8, 7),), backends=backends).report
    assert "_to_dim_order_copy" not in str(report)
