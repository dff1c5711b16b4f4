"""lower(): what it accepts, what it returns, and how its programs are called and saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.export import export

from orchestrator import BackendError, LoweredProgram, ModelError, lower, read_report
from orchestrator.native import NativeProgram
from tests.harness.compare import assert_close_to_eager

TOLERANCE = 1e-5
X = torch.linspace(-1.0, 1.0, 2 * 3 * 9 * 9).reshape(2, 3, 9, 9)
OTHER = (torch.cos(7 * X),)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


@pytest.fixture(scope="module")
def program(model: nn.Module) -> LoweredProgram:
    return lower(model, (X,), backends=["xnnpack"])


ORDERS = [[], ["portable"], ["ggml"], ["xnnpack"], ["ggml", "xnnpack"], ["xnnpack", "ggml"]]


@pytest.mark.parametrize("backends", ORDERS, ids=lambda names: "-".join(names) or "none")
def test_any_choice_and_order_of_backends_equals_eager(
    model: nn.Module, backends: list[str]
) -> None:
    program = lower(model, (X,), backends=backends)
    assert_close_to_eager(program, model, (X,), other_inputs=OTHER, tolerance=TOLERANCE)
    method = program.report.methods[0]
    assert {partition.backend for partition in method.partitions} <= set(backends)
    assert program.report.backends == tuple(name for name in backends if name != "portable")


def test_without_backends_everything_is_left_to_kernels(model: nn.Module) -> None:
    method = lower(model, (X,), backends=[]).report.methods[0]
    assert method.partitions == ()
    assert method.node_count == sum(method.kernels.values()) > 0
    assert method.rejections == ()


def test_ggml_and_xnnpack_are_the_default(model: nn.Module) -> None:
    assert lower(model, (X,)).report.backends == ("ggml", "xnnpack")


def test_unknown_backends_are_refused_before_any_work() -> None:
    with pytest.raises(BackendError, match="unknown backend 'gmml'"):
        lower(nn.Identity(), object(), backends=["gmml"])  # type: ignore[arg-type]


class TestModels:
    def test_an_exported_program(self, model: nn.Module) -> None:
        program = lower(export(model, (X,)), backends=["xnnpack"])
        assert_close_to_eager(program, model, (X,), other_inputs=OTHER, tolerance=TOLERANCE)

    def test_the_exported_program_is_left_as_it_was(self, model: nn.Module) -> None:
        exported = export(model, (X,))
        before = str(exported)
        lower(exported, backends=["xnnpack"])
        assert str(exported) == before

    def test_a_lone_tensor_as_example(self, model: nn.Module) -> None:
        torch.testing.assert_close(lower(model, X, backends=["xnnpack"])(X), model(X))

    def test_several_methods(self) -> None:
        class Double(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * 2.0

        class Difference(nn.Module):
            def forward(self, x: Tensor, y: Tensor) -> Tensor:
                return (x - y).exp()

        methods = {
            "double": export(Double(), (X,)),
            "difference": export(Difference(), (X, X.clone())),
        }
        program = lower(methods, backends=["xnnpack"])
        assert [method.name for method in program.report.methods] == ["double", "difference"]
        assert set(program.plan) == set(methods)
        torch.testing.assert_close(program(X, method="double"), 2 * X)
        y = torch.cos(X)
        torch.testing.assert_close(program(X, y, method="difference"), (X - y).exp())
        with pytest.raises(KeyError, match=r"'forward'; this program has double, difference"):
            program(X)

    def test_one_tensor_given_as_two_examples_stands_for_two_arguments(self) -> None:
        class Difference(nn.Module):
            def forward(self, x: Tensor, y: Tensor) -> Tensor:
                return (x - y).exp()

        program = lower(Difference(), (X, X), backends=["xnnpack"])
        torch.testing.assert_close(program(X, X.cos()), (X - X.cos()).exp())

    def test_arguments_and_results_nest_as_in_the_model(self) -> None:
        class Nested(nn.Module):
            def forward(
                self, pair: tuple[Tensor, Tensor], *, scale: Tensor, shift: Tensor
            ) -> dict[str, Tensor | list[Tensor]]:
                x, y = pair
                return {"sum": x + y, "parts": [x * scale, y + shift]}

        values = {"scale": torch.tensor(2.0), "shift": torch.tensor(3.0)}
        pair = (X, X.cos())
        program = lower(Nested(), (pair,), backends=["xnnpack"], example_kwargs=values)
        expected = Nested()(pair, **values)
        torch.testing.assert_close(program(pair, **values), expected)
        # Keywords have no order.
        torch.testing.assert_close(program(pair, **dict(reversed(values.items()))), expected)
        with pytest.raises(TypeError, match="differ from those the model was exported with"):
            program(*pair, **values)

    def test_a_module_without_inputs_is_an_error(self, model: nn.Module) -> None:
        with pytest.raises(ModelError, match="needs example inputs"):
            lower(model)

    def test_inputs_for_an_exported_program_are_an_error(self, model: nn.Module) -> None:
        with pytest.raises(ModelError, match="exported already"):
            lower(export(model, (X,)), (X,))

    def test_training_mode_is_an_error_where_it_matters(self) -> None:
        with pytest.raises(ModelError, match=r"1 \(Dropout\) is in training mode"):
            lower(nn.Sequential(nn.Linear(9, 9), nn.Dropout()), (X,))
        lower(nn.Linear(9, 9), (X,), backends=[])  # the same in either mode

    @pytest.mark.parametrize("wrong", [{}, {"f": 1}, {"": None}, "model", None])
    def test_other_things_are_an_error(self, wrong: object) -> None:
        with pytest.raises(ModelError):
            lower(wrong)  # type: ignore[arg-type]


def test_constant_methods_are_kept(model: nn.Module) -> None:
    program = lower(model, (X,), backends=[], constant_methods={"classes": 5})
    assert NativeProgram(program.buffer).run("classes", []) == [5]


def test_the_initial_state_of_buffers_is_kept() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.tensor([41.0]))
            self.register_buffer("seen", torch.zeros(1), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            self.count.add_(1)
            self.seen.add_(x)
            return self.count + self.seen

    program = lower(Counter(), (torch.ones(1),), backends=["xnnpack"])
    assert [program(torch.ones(1)).item() for _ in range(3)] == [43.0, 45.0, 47.0]


class TestPlan:
    def test_it_says_which_backend_runs_what_in_which_order(self, program: LoweredProgram) -> None:
        plan = program.plan["forward"]
        method = program.report.methods[0]
        assert [part.backend for part in plan.partitions] == [
            part.backend for part in method.partitions
        ]
        assert sum(len(segment.atoms) for segment in plan.segments) == len(plan.assignment)


class TestSaving:
    def test_a_saved_program_runs_and_reports(
        self, program: LoweredProgram, model: nn.Module, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.pte"
        program.save(path)
        (output,) = NativeProgram(path).run("forward", [X])
        torch.testing.assert_close(output, model(X))
        assert read_report(path) == program.report

    def test_an_existing_file_is_replaced(self, program: LoweredProgram, tmp_path: Path) -> None:
        path = tmp_path / "model.pte"
        path.write_bytes(b"old")
        program.save(str(path))
        assert path.read_bytes() == program.buffer
        assert list(tmp_path.iterdir()) == [path]

    def test_a_file_that_cannot_be_written_leaves_nothing_behind(
        self, program: LoweredProgram, tmp_path: Path
    ) -> None:
        target = tmp_path / "folder.pte"
        target.mkdir()
        with pytest.raises(OSError, match=r"folder\.pte"):
            program.save(target)
        assert list(tmp_path.iterdir()) == [target]
        with pytest.raises(FileNotFoundError):
            program.save(tmp_path / "nowhere" / "model.pte")

    def test_repr_is_short(self, program: LoweredProgram) -> None:
        assert repr(program) == f"LoweredProgram(forward: {len(program.buffer)} bytes)"


def test_a_mapping_that_is_no_dict(model: nn.Module) -> None:
    class Methods(Mapping[str, object]):
        def __getitem__(self, name: str) -> object:
            return export(model, (X,))

        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(["classify"])

        def __len__(self) -> int:
            return 1

    program = lower(Methods(), backends=["xnnpack"])  # type: ignore[arg-type]
    torch.testing.assert_close(program(X), model(X))


class Function(nn.Module):
    """A function of a module with one weight, and the tensors it is called with."""

    def __init__(self, function: Callable[..., object], *inputs: object) -> None:
        super().__init__()
        self.function, self.inputs = function, inputs
        self.weight = nn.Parameter(torch.linspace(0.1, 1.0, 36).reshape(6, 6))

    def forward(self, *inputs: object) -> object:
        return self.function(self.weight, *inputs)


Y = torch.linspace(-1.0, 1.0, 24).reshape(4, 6)
UNUSUAL = {
    "an input is the output": Function(lambda w, y: y, Y),
    "an input is also an output": Function(lambda w, y: (y, y.exp()), Y),
    "one result is two outputs": Function(lambda w, y: [y.exp()] * 2, Y),
    "a weight is an output": Function(lambda w, y: (w, y.exp()), Y),
    "no inputs": Function(lambda w: w.exp()),
    "an unused input": Function(lambda w, x, y: y.exp(), Y, 2 * Y),
    "a number as input": Function(lambda w, y, n: y * n, Y, 3),
    "None as input": Function(lambda w, y, n: y.exp() if n is None else y, Y, None),
    "only views": Function(lambda w, y: y.view(24).unsqueeze(0), Y),
    "only weights": Function(lambda w, y: y @ (w.exp() * 2.0), Y),
    "a weight in a list": Function(lambda w, y: torch.cat([(y @ w).exp(), w]) + w.cumsum(0)[0], Y),
    "no elements": Function(lambda w, y: y.exp() @ w, Y[:0]),
    "no dimensions": Function(lambda w, y: y.exp() + 1.0, torch.tensor(2.0)),
    "integers": Function(lambda w, y: y.argmax(1), Y),
    "float16": Function(lambda w, y: (y @ w.half()).relu(), Y.half()),
}


@pytest.mark.parametrize("backends", [["ggml", "xnnpack"], ["xnnpack"]], ids="-".join)
@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_programs_equal_eager(name: str, backends: list[str]) -> None:
    module = UNUSUAL[name].eval()
    program = lower(module, module.inputs, backends=backends)
    with torch.no_grad():
        expected = module(*module.inputs)
    torch.testing.assert_close(program(*module.inputs), expected, rtol=1e-5, atol=1e-5)


def test_a_1d_convolution_with_a_shared_weight_is_not_for_xnnpack() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x).sigmoid())

    model, x = Shared().eval(), X[:, :, 0]
    program = lower(model, (x,), backends=["xnnpack"])
    assert program.report.methods[0].kernels["aten.convolution.default"] == 2
    assert_close_to_eager(
        program, model, (x,), other_inputs=(torch.cos(7 * x),), tolerance=TOLERANCE
    )
