"""Splits that have to become legal programs, through ExecuTorch's own calls and through lower()."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, export

from orchestrator import OrchestratorPartitioner, lower
from orchestrator.backends import Rejection, Support
from orchestrator.native import NativeProgram
from orchestrator.options import PlanOptions
from orchestrator.partitioner import UndecomposedOpError
from tests.harness.compare import assert_close_to_eager
from tests.harness.fakes import OpsBackend, plain_flow

TOLERANCE = 1e-5
# Which backend gets what must not depend on costs here.
lower_greedily = partial(lower, strategy="greedy")


class Ladder(nn.Module):
    """p -> q -> p, with an edge that skips q."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.exp()
        return y * y.neg()


class TwoPartsThatFeedEachOther(nn.Module):
    """p's two nodes are independent and so are q's, yet merging both pairs makes a cycle."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.exp().neg(), y.neg().exp()


class DiamondAcrossBackends(nn.Module):
    """One branch of a diamond on each backend, and a reader of both."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.exp()
        left, right = y.neg(), y.sigmoid()
        return (left * right).exp() + left


class Crossing(nn.Module):
    """Three alternations with edges that skip one, two and three of them."""

    def forward(self, x: Tensor) -> Tensor:
        a = x.exp()
        b = a.neg()
        c = b * a
        d = (c + b).neg()
        return d * a + c


class KernelInBetween(nn.Module):
    """p -> kernel -> p: one delegate cannot hold both."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.exp()
        return torch.cumsum(y, 0) * y


class SeveralOutputs(nn.Module):
    """Results that leave from the middle, twice, and from several nodes."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = x.exp()
        z = y.neg()
        return y, z * y, z


ONE = (torch.linspace(-1.0, 1.0, 24).reshape(4, 6),)
TWO = (*ONE, torch.linspace(-2.0, 1.5, 24).reshape(4, 6))
CASES: list[tuple[nn.Module, tuple[Tensor, ...]]] = [
    (Ladder(), ONE),
    (TwoPartsThatFeedEachOther(), TWO),
    (DiamondAcrossBackends(), ONE),
    (Crossing(), ONE),
    (KernelInBetween(), ONE),
    (SeveralOutputs(), ONE),
]


def _backends() -> list[OpsBackend]:
    return [OpsBackend("p", ["exp", "mul", "add"]), OpsBackend("q", ["neg", "sigmoid"])]


def _by_lower(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., object]:
    return lower_greedily(module, inputs, backends=_backends())


def _by_plain_flow(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., object]:
    partitioner = OrchestratorPartitioner(_backends(), PlanOptions(strategy="greedy"))
    return NativeProgram(plain_flow(export(module, inputs), partitioner))


@pytest.mark.parametrize("make", [_by_lower, _by_plain_flow])
@pytest.mark.parametrize(("module", "inputs"), CASES, ids=lambda case: type(case).__name__)
def test_graphs_that_would_cycle_run_and_equal_eager(
    make: Callable[..., Callable[..., object]], module: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    run = make(module, inputs)
    others = tuple(torch.cos(3 * value) for value in inputs)
    assert_close_to_eager(run, module, inputs, other_inputs=others, tolerance=TOLERANCE)


def test_both_backends_get_their_ops_and_nothing_is_left() -> None:
    method = lower_greedily(Crossing(), ONE, backends=_backends()).report.methods[0]
    assert not method.kernels
    ops = {(part.backend, op.split(".")[1]) for part in method.partitions for op in part.ops}
    assert ops == {("p", "exp"), ("p", "mul"), ("p", "add"), ("q", "neg")}


def test_two_parts_that_feed_each_other_are_cut() -> None:
    program = lower_greedily(TwoPartsThatFeedEachOther(), TWO, backends=_backends())
    method = program.report.methods[0]
    assert len(method.partitions) == 3


def test_the_first_backend_that_takes_a_node_gets_it() -> None:
    both = [OpsBackend("p", ["exp", "mul"]), OpsBackend("q", ["exp", "neg", "mul"])]
    for order in (both, both[::-1]):
        method = lower_greedily(Ladder(), ONE, backends=order).report.methods[0]
        first = method.partitions[0]
        assert first.backend == order[0].name
        assert "aten.exp.default" in first.ops


def test_no_partition_only_carries_a_view() -> None:
    class Views(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            z = torch.cumsum(x, 0).view(6, 4)
            return torch.cumsum(z, 0), y.exp().view(-1) * 2.0

    backend = OpsBackend("p", ["view_copy", "exp", "mul"])
    method = lower_greedily(Views(), TWO, backends=[backend]).report.methods[0]
    (partition,) = method.partitions
    assert dict(partition.ops) == {
        "aten.exp.default": 1,
        "aten.view_copy.default": 1,
        "aten.mul.Tensor": 1,
    }
    assert method.kernels == {"aten.cumsum.default": 2, "aten.view_copy.default": 1}


class TestSharedWeights:
    class FirstConvolution(OpsBackend):
        """Takes the first convolution and leaves the others."""

        def propose(self, ep: ExportedProgram) -> Support:
            offer = super().propose(ep)
            rest = (node for candidate in offer.candidates[1:] for node in candidate.nodes)
            left = (Rejection(node, f"{self.name} takes one convolution") for node in rest)
            return Support(offer.candidates[:1], [*offer.rejections, *left])

    class Tied(nn.Module):
        """One weight in a partition of each backend, and on ExecuTorch's kernels."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.linspace(-1.0, 1.0, 36).reshape(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.linear(x, self.weight).neg()
            x = nn.functional.linear(x, self.weight) + self.weight[:4]
            return torch.cumsum(self.weight, 0)[:4] + x

    @pytest.mark.parametrize("backends", [["xnnpack"], ["ggml", "xnnpack"], ["xnnpack", "ggml"]])
    def test_every_user_sees_the_same_weight(self, backends: list[str]) -> None:
        model = self.Tied().eval()
        program = lower_greedily(model, ONE, backends=[*backends])
        other = (torch.cos(3 * ONE[0]),)
        assert_close_to_eager(program, model, ONE, other_inputs=other, tolerance=TOLERANCE)

    def test_xnnpack_gets_a_weight_whose_first_user_is_elsewhere(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(2, 2, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.conv(self.conv(x).exp())

        model, x = Twice().eval(), (torch.linspace(-1.0, 1.0, 32).reshape(1, 2, 4, 4),)
        first = self.FirstConvolution("p", ["convolution"])
        program = lower_greedily(model, x, backends=[first, "xnnpack"])
        assert [part.backend for part in program.report.methods[0].partitions] == ["p", "xnnpack"]
        torch.testing.assert_close(program(*x), model(*x))

    def test_a_weight_on_two_backends_is_inside_both(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.linspace(0.5, 1.0, 24).reshape(4, 6))

            def forward(self, x: Tensor) -> Tensor:
                return torch.maximum((x * self.weight).exp(), self.weight)

        model = Twice().eval()
        backends = [OpsBackend("p", ["mul", "exp"]), OpsBackend("q", ["maximum"])]
        program = lower_greedily(model, ONE, backends=backends)
        weights = [part.weight_bytes for part in program.report.methods[0].partitions]
        assert weights == [96, 96]
        other = (torch.cos(3 * ONE[0]),)
        assert_close_to_eager(program, model, ONE, other_inputs=other, tolerance=TOLERANCE)


class TestOpsKeptWhole:
    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.hardswish(x) + nn.functional.hardswish(x.exp())

    hardswish = torch.ops.aten.hardswish.default

    def test_an_op_that_a_backend_wants_whole_reaches_it_whole(self) -> None:
        backend = OpsBackend("p", ["hardswish"], preserved=[self.hardswish])
        method = lower_greedily(self.Block(), ONE, backends=[backend]).report.methods[0]
        assert method.partitions[0].ops == {"aten.hardswish.default": 2}

    def test_nodes_that_its_filter_refuses_are_decomposed(self) -> None:
        backend = OpsBackend(
            "p",
            ["hardswish"],
            preserved=[self.hardswish],
            keeps=lambda node: node.all_input_nodes[0].op == "placeholder",
        )
        program = lower_greedily(self.Block(), ONE, backends=[backend])
        method = program.report.methods[0]
        assert [dict(part.ops) for part in method.partitions] == [{"aten.hardswish.default": 1}]
        assert "aten.hardtanh.default" in method.kernels or "aten.clamp.default" in method.kernels
        other = (torch.cos(3 * ONE[0]),)
        assert_close_to_eager(program, self.Block(), ONE, other_inputs=other, tolerance=TOLERANCE)

    def test_a_backend_that_breaks_its_promise_costs_nothing_but_the_op(self) -> None:
        backend = OpsBackend("p", ["add", "exp"], preserved=[self.hardswish])
        program = lower_greedily(self.Block(), ONE, backends=[backend])
        assert not any("hardswish" in op for op in program.report.methods[0].kernels)
        other = (torch.cos(3 * ONE[0]),)
        assert_close_to_eager(program, self.Block(), ONE, other_inputs=other, tolerance=TOLERANCE)

    def test_in_the_plain_flow_the_broken_promise_is_an_error_that_says_what_to_do(self) -> None:
        partitioner = OrchestratorPartitioner(
            [OpsBackend("p", ["add"], preserved=[self.hardswish])]
        )
        with pytest.raises(UndecomposedOpError, match=r"decompose=\['aten.hardswish.default'\]"):
            plain_flow(export(self.Block(), ONE), partitioner)

    def test_and_doing_so_helps(self) -> None:
        backend = OpsBackend("p", ["add"], preserved=[self.hardswish])
        partitioner = OrchestratorPartitioner([backend], decompose=[self.hardswish])
        NativeProgram(plain_flow(export(self.Block(), ONE), partitioner)).method("forward")

    def test_a_kept_op_that_has_a_kernel_may_be_left_to_it(self) -> None:
        linear = nn.Linear(6, 3).eval()
        backend = OpsBackend("p", ["add"], preserved=[torch.ops.aten.linear.default])
        program = lower_greedily(linear, ONE, backends=[backend])
        assert program.report.methods[0].kernels == {"aten.linear.default": 1}
        other = (torch.cos(3 * ONE[0]),)
        assert_close_to_eager(program, linear, ONE, other_inputs=other, tolerance=TOLERANCE)

    def test_ops_in_control_flow_are_decomposed(self) -> None:
        class Branches(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.cond(x.sum() > 0, nn.functional.hardswish, torch.neg, (x.exp(),))

        backend = OpsBackend("p", ["hardswish", "exp"], preserved=[self.hardswish])
        program = lower_greedily(Branches(), ONE, backends=[backend])
        for value in (ONE[0] - 1, ONE[0] + 1):
            torch.testing.assert_close(program(value), Branches()(value))


class TestMutableBuffers:
    class Cache(nn.Module):
        """Writes a row at a position, then reads the whole cache."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("cache", torch.zeros(4, 6))
            self.register_buffer("steps", torch.full((1,), 3.0))

        def forward(self, row: Tensor, position: Tensor) -> Tensor:
            self.steps.add_(1)
            self.cache[position] = row.exp()
            return (self.cache * self.steps).neg().sum(0)

    @pytest.mark.parametrize(
        "backends",
        [
            ["xnnpack"],
            ["ggml", "xnnpack"],
            [OpsBackend("p", ["mul", "add"]), OpsBackend("q", ["exp", "neg"])],
        ],
        ids=["xnnpack", "ggml-xnnpack", "both-fake"],
    )
    def test_state_carries_over_between_calls(self, backends: list[str | OpsBackend]) -> None:
        model = self.Cache().eval()
        rows = [torch.linspace(-1.0, scale, 6).reshape(1, 6) for scale in (0.5, 1.0, 2.0)]
        program = lower_greedily(model, (rows[0], torch.tensor([0])), backends=backends)
        eager = self.Cache().eval()
        for position, row in enumerate(rows):
            inputs = (row, torch.tensor([position]))
            torch.testing.assert_close(program(*inputs), eager(*inputs))


def test_sizes_may_vary_within_the_exported_bounds() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.exp()
            return (y * y.neg()).reshape(x.shape[0] * 2, 3) + 1

    batch = torch.export.Dim("batch", min=1, max=8)
    program = lower_greedily(Model(), ONE, backends=_backends(), dynamic_shapes={"x": {0: batch}})
    for count in (1, 4, 8):
        x = torch.linspace(-1.0, 1.0, 6 * count).reshape(count, 6)
        torch.testing.assert_close(program(x), Model()(x))
    sizes = [tensor.shape for tensor in program.report.methods[0].partitions[0].inputs]
    assert [[type(size) for size in shape] for shape in sizes] == [[str, int]]


def test_channels_last_inputs_and_changes_of_memory_format_survive() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x).to(memory_format=torch.contiguous_format)
            return y.to(memory_format=torch.channels_last).exp()

    model = Model().eval()
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = x.to(memory_format=torch.channels_last)
    program = lower_greedily(model, (x,), backends=["xnnpack"])
    assert_close_to_eager(program, model, (x,), other_inputs=(x.cos(),), tolerance=TOLERANCE)
    assert program(x).is_contiguous(memory_format=torch.channels_last)
