"""BatchNorm folding: what is folded, what becomes scale and shift, what stays, and why."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from orchestrator.frontend.passes import FoldResult, fold_batch_norm, fold_batch_norm_with_notes
from orchestrator.frontend.torch_speed import repeated_work_spared
from tests.frontend.passes.batch_norm_cases import (
    FOLDABLE,
    NOT_FOLDABLE,
    Chain,
    InvertedResidual,
    SharedWeight,
    norm,
)
from tests.harness.compare import assert_close_to_eager, seeded

aten = torch.ops.aten


def export(model: nn.Module, inputs: tuple[Tensor, ...], decomposed: bool) -> ExportedProgram:
    with repeated_work_spared():
        program = torch.export.export(model, inputs)
        return program.run_decompositions() if decomposed else program


def operators(program: ExportedProgram) -> list[str]:
    """The names of the operators in a program, without overloads."""
    calls = (node for node in program.graph.nodes if node.op == "call_function")
    return [getattr(node.target, "overloadpacket", node.target).__name__ for node in calls]


def has_batch_norm(program: ExportedProgram) -> bool:
    return any("batch_norm" in name for name in operators(program))


def actions(result: FoldResult) -> list[str]:
    return [note.action for note in result.notes]


def fold_and_check(
    model: nn.Module, shape: tuple[int, ...], decomposed: bool, tolerance: float = 1e-5
) -> FoldResult:
    """Folds, and checks what holds for every program: values, consistency, the untouched source."""
    seeded(model)
    generator = torch.Generator().manual_seed(1)
    inputs, other = ((torch.randn(shape, generator=generator),) for _ in range(2))
    program = export(model, inputs, decomposed)
    source, names = str(program.graph), list(program.state_dict)
    tensors = [tensor.clone() for tensor in program.state_dict.values()]

    result = fold_batch_norm_with_notes(program)

    assert str(program.graph) == source
    assert list(program.state_dict) == names
    for before, after in zip(tensors, program.state_dict.values(), strict=True):
        assert torch.equal(before, after)
    check_consistent(result.program, program)
    assert_close_to_eager(
        result.program.module(), model, inputs, other_inputs=other, tolerance=tolerance
    )
    if not decomposed:
        with repeated_work_spared():
            again = result.program.run_decompositions().module()
        assert_close_to_eager(again, model, inputs, other_inputs=other, tolerance=tolerance)
    return result


def check_consistent(program: ExportedProgram, source: ExportedProgram) -> None:
    """Placeholders, input specs and tensors agree, and no parameter or statistic is left over."""
    # torch.export keeps an unused placeholder for the second name of a tied weight.
    aliases = {node.name for node in source.graph.nodes if not node.users}
    aliases = {name for name in aliases if not name.endswith("num_batches_tracked")}
    program.validate()
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    specs = program.graph_signature.input_specs
    assert [node.name for node in placeholders] == [spec.arg.name for spec in specs]
    held = set(program.state_dict) | set(program.constants)
    assert {spec.target for spec in specs if spec.target is not None} == held
    for node, spec in zip(placeholders, specs, strict=True):
        if spec.target in program.state_dict:
            assert node.meta["val"].shape == program.state_dict[spec.target].shape
            assert node.users or node.name in aliases, f"{spec.target} is not used"


@pytest.mark.parametrize("decomposed", [False, True], ids=["exported", "decomposed"])
@pytest.mark.parametrize("layer", FOLDABLE)
def test_batch_norm_is_folded_into_the_layer_before_it(layer: str, decomposed: bool) -> None:
    class Branches(nn.Module):
        """The layer with every combination of bias and affine, each followed by BatchNorm."""

        def __init__(self) -> None:
            super().__init__()
            build, channels, dims, _ = FOLDABLE[layer]
            self.branches = nn.ModuleList(
                Chain(build(bias), norm(channels, dims, affine))
                for bias in (True, False)
                for affine in (True, False)
            )

        def forward(self, x: Tensor) -> list[Tensor]:
            return [branch(x) for branch in self.branches]

    result = fold_and_check(Branches(), FOLDABLE[layer][3], decomposed)

    assert actions(result) == ["folded"] * 4
    assert len(result.program.state_dict) == 4 * 2  # a weight and a bias each
    names = operators(result.program)
    assert len(set(names) - {"constant_pad_nd", "permute"}) == 1
    assert not {"getitem", "mul", "add"} & set(names)


@pytest.mark.parametrize("decomposed", [False, True], ids=["exported", "decomposed"])
class TestForerunnersFailures:
    def test_conv_batch_norm_relu6(self, decomposed: bool) -> None:
        model = Chain(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        result = fold_and_check(model, (1, 3, 8, 8), decomposed)
        assert actions(result) == ["folded"]
        assert len(operators(result.program)) == 2

    @pytest.mark.parametrize("expansion", [1, 6])
    def test_inverted_residual(self, expansion: int, decomposed: bool) -> None:
        result = fold_and_check(InvertedResidual(8, expansion), (2, 8, 7, 7), decomposed)
        assert set(actions(result)) == {"folded"}
        assert not has_batch_norm(result.program)
        assert "getitem" not in operators(result.program)


@pytest.mark.parametrize("decomposed", [False, True], ids=["exported", "decomposed"])
@pytest.mark.parametrize("case", NOT_FOLDABLE)
def test_batch_norm_that_cannot_be_folded_becomes_scale_and_shift(
    case: str, decomposed: bool
) -> None:
    build, shape, count, reason = NOT_FOLDABLE[case]
    result = fold_and_check(build(), shape, decomposed)
    assert actions(result) == ["scale_shift"] * count
    assert all(reason in note.reason for note in result.notes), result.notes
    assert not has_batch_norm(result.program)
    assert operators(result.program).count("mul") == count


def test_scale_and_shift_broadcast_over_the_channel_axis() -> None:
    result = fold_and_check(Chain(nn.BatchNorm2d(3)), (2, 3, 4, 5), decomposed=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in result.program.state_dict.items()}
    assert shapes == {"0.scale": (3, 1, 1), "0.shift": (3, 1, 1)}


def test_shared_conv_weight_stays_as_it_was() -> None:
    model = SharedWeight(True)
    result = fold_and_check(model, (2, 4, 6, 6), decomposed=False)
    assert result.program.state_dict["first.weight"] is model.first.weight


def test_two_batch_norms_in_a_row_are_both_folded() -> None:
    model = Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    result = fold_and_check(model, (2, 3, 6, 6), decomposed=False)
    assert actions(result) == ["folded", "folded"]
    assert operators(result.program) == ["conv2d"]
    assert len(result.program.state_dict) == 2


def test_one_batch_norm_module_after_two_convolutions_is_folded_into_both() -> None:
    class SharedNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.a(x)) * self.norm(self.b(x))

    result = fold_and_check(SharedNorm(), (2, 3, 5, 5), decomposed=False)
    assert actions(result) == ["folded", "folded"]
    assert not any("norm" in name for name in result.program.state_dict)


def test_bias_shared_by_two_convolutions_is_replaced_only_where_batch_norm_follows() -> None:
    class SharedBias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.b.bias = self.a.bias

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.a(x)) * self.b(x)

    assert actions(fold_and_check(SharedBias(), (2, 3, 5, 5), decomposed=False)) == ["folded"]


def test_output_that_was_a_batch_norm_is_named_in_the_signature() -> None:
    model = seeded(Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    program = fold_batch_norm(export(model, (torch.randn(1, 3, 5, 5),), decomposed=True))
    (spec,) = program.graph_signature.output_specs
    assert spec.arg.name == "convolution"


def test_parameters_of_reduced_precision_keep_their_type() -> None:
    model = Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)).bfloat16()
    program = export(seeded(model), (torch.randn(1, 3, 5, 5).bfloat16(),), decomposed=False)
    folded = fold_batch_norm(program)
    assert {tensor.dtype for tensor in folded.state_dict.values()} == {torch.bfloat16}


def test_weight_that_would_overflow_its_type_is_not_folded() -> None:
    model = seeded(Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    model[0].weight.data.fill_(100.0)
    model[1].running_var.fill_(1e-6)
    model[1].weight.data.fill_(10.0)
    program = export(model.half(), (torch.randn(1, 3, 5, 5).half(),), decomposed=False)
    result = fold_batch_norm_with_notes(program)
    assert actions(result) == ["scale_shift"]
    assert "exceed the range of torch.float16" in result.notes[0].reason
    assert all(tensor.isfinite().all() for tensor in result.program.state_dict.values())


def test_dynamic_batch_and_size_are_kept() -> None:
    model = seeded(Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)))
    dims = {0: torch.export.Dim("batch", max=8), 2: torch.export.Dim("height", min=4, max=64)}
    program = torch.export.export(model, (torch.randn(2, 3, 9, 9),), dynamic_shapes=(dims,))

    folded = fold_batch_norm(program)
    assert folded.range_constraints == program.range_constraints
    x, other = torch.randn(5, 3, 20, 9), torch.randn(5, 3, 20, 9)
    assert_close_to_eager(folded.module(), model, (x,), other_inputs=(other,), tolerance=1e-5)


class TestKept:
    @pytest.mark.parametrize("decomposed", [False, True], ids=["exported", "decomposed"])
    def test_training_mode_stays_with_a_warning_that_says_what_to_do(
        self, decomposed: bool
    ) -> None:
        model = Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
        program = export(copy.deepcopy(model), (torch.randn(2, 3, 6, 6),), decomposed)
        with pytest.warns(UserWarning, match=r"call model\.eval\(\)"):
            folded = fold_batch_norm(program)
        assert has_batch_norm(folded)
        assert set(folded.state_dict) == set(program.state_dict)
        x = torch.randn(2, 3, 6, 6)
        torch.testing.assert_close(folded.module()(x), model(x))

    @pytest.mark.parametrize("decomposed", [False, True], ids=["exported", "decomposed"])
    def test_statistics_of_the_input_stay_without_a_warning(self, decomposed: bool) -> None:
        model = Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            result = fold_and_check(model, (2, 3, 6, 6), decomposed, tolerance=1e-5)
        assert actions(result) == ["kept"]
        assert "statistics of each input" in result.notes[0].reason

    def test_statistics_that_the_program_writes_to(self) -> None:
        class Drifting(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm = nn.BatchNorm2d(3)

            def forward(self, x: Tensor) -> Tensor:
                y = self.norm(x)
                self.norm.running_mean.add_(1.0)
                return y

        for decomposed in (False, True):
            program = export(seeded(Drifting()), (torch.randn(2, 3, 4, 4),), decomposed)
            result = fold_batch_norm_with_notes(program)
            assert actions(result) == ["kept"]
            assert "running_mean is computed or written to" in result.notes[0].reason

    def test_a_scale_that_is_not_finite(self) -> None:
        model = seeded(Chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.0)))
        model[1].running_var.zero_()
        result = fold_batch_norm_with_notes(export(model, (torch.randn(1, 3, 5, 5),), False))
        assert actions(result) == ["kept"]
        assert "not finite" in result.notes[0].reason

    def test_a_program_without_batch_norm_is_returned_as_it_is(self) -> None:
        program = export(Chain(nn.Linear(3, 4)), (torch.randn(2, 3),), decomposed=False)
        assert fold_batch_norm(program) is program
