"""Commands that take a model: plan and verify; and what lies behind them."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from orchestrator import lower
from orchestrator.cli import main
from orchestrator.dry_run import plan
from orchestrator.native import NativeProgram
from orchestrator.options import OptionError
from orchestrator.report.data import AlternativeReport, Report
from orchestrator.verify import VerifyError, verify

MODULE = """
import torch
from tests.cli.test_models import Net, X, exported_methods

def net():
    return Net().eval(), (X,)

def other_weights():
    net = Net().eval()
    with torch.no_grad():
        net.linear.weight.mul_(2)
    return net, (X,)

def other_model():
    return torch.nn.Sequential(torch.nn.Tanh()), (X,)

def methods():
    return exported_methods(1.0)

def other_methods():
    return exported_methods(2.0)
"""


class Net(nn.Module):
    """A call of each backend, kernels between, a value that two segments read."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.conv(x)).mean((2, 3))
        z = torch.cumsum(self.linear(y), 1)
        return z.exp(), y + 1


class Half(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.linear.weight.data *= factor

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x)) / 2


def exported_methods(factor: float) -> dict[str, torch.export.ExportedProgram]:
    """Two methods, of different models."""
    return {
        "whole": torch.export.export(Net().eval(), (X,)),
        "half": torch.export.export(Half(factor).eval(), (torch.ones(3, 4),)),
    }


X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "net.pte"
    lower(Net().eval(), (X,), strategy="greedy").save(path)
    return path


@pytest.fixture(scope="module")
def methods_pte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("methods") / "methods.pte"
    lower(exported_methods(1.0), tune="off").save(path)
    return path


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "verify_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


class TestPlan:
    def test_it_is_what_lower_does(self) -> None:
        planned = plan(Net().eval(), (X,), tune="off").report.methods[0]
        lowered = lower(Net().eval(), (X,), tune="off").report.methods[0]
        assert planned.plan is not None
        assert lowered.plan is not None
        # Planning alone takes the time to price what needs another graph.
        others = [each for each in lowered.plan.alternatives if not each.problem]
        assert others
        assert set(others) <= set(planned.plan.alternatives)
        assert replace(planned.plan, alternatives=()) == replace(lowered.plan, alternatives=())
        assert [each.nodes for each in planned.segments] == [
            each.nodes for each in lowered.segments
        ]
        assert planned.rejections == lowered.rejections

    def test_measuring_is_refused(self) -> None:
        with pytest.raises(OptionError, match="cannot be timed"):
            plan(Net().eval(), (X,), tune="measure")

    def test_the_command_shows_a_priced_plan(
        self, models: None, capfd: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["plan", "verify_models:net", "--tune", "off", "--pin", "linear=xnnpack"]
        assert main([*arguments, "--json"]) == 0
        (method,) = Report.from_json(capfd.readouterr().out).methods
        assert method.plan is not None
        assert method.plan.predicted_ns
        assert {other.name for other in method.plan.alternatives} >= {"ggml alone", "xnnpack alone"}
        (linear,) = [atom for atom in method.atoms if "aten.linear.default" in atom.ops]
        assert linear.backend == "xnnpack"
        assert linear.source.startswith("tests/cli/test_models.py:")

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            (["--pin", "linear"], "expected PATTERN=BACKEND"),
            (["--pin", "no_such_op=ggml"], "no_such_op"),
            (["--max-partitions", "-1"], "max_partitions is -1"),
        ],
    )
    def test_wrong_options_are_one_line(
        self,
        models: None,
        capfd: pytest.CaptureFixture[str],
        option: list[str],
        message: str,
    ) -> None:
        assert main(["plan", "verify_models:net", "--tune", "off", *option]) == 1
        printed = capfd.readouterr().err
        assert message in printed


class TestAlternatives:
    """Attention is preserved for ggml, XNNPACK and the kernels need it decomposed."""

    @pytest.fixture(scope="class")
    def found(self) -> dict[str, AlternativeReport]:
        class Attention(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return nn.functional.scaled_dot_product_attention(x, x + 1, x - 1)

        planned = plan(Attention(), (torch.randn(1, 2, 16, 16),), tune="off")
        described = planned.report.methods[0].plan
        assert described is not None
        assert planned.methods["forward"].report.segments[0].backend == "ggml"
        return {each.name: each for each in described.alternatives}

    def test_every_backend_alone_has_a_price(self, found: dict[str, AlternativeReport]) -> None:
        assert not [each.problem for each in found.values() if each.problem]
        for name in ("ggml alone", "xnnpack alone", "no delegate"):
            assert found[name].predicted_ns

    def test_the_price_is_that_of_lowering_for_it_alone(
        self, found: dict[str, AlternativeReport]
    ) -> None:
        class Attention(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return nn.functional.scaled_dot_product_attention(x, x + 1, x - 1)

        alone = lower(
            Attention(),
            (torch.randn(1, 2, 16, 16),),
            backends=["xnnpack"],
            tune="off",
            strategy="greedy",
        ).report.methods[0]
        assert alone.plan is not None
        assert found["xnnpack alone"].partitions == len(alone.partitions)
        assert found["xnnpack alone"].predicted_ns == pytest.approx(alone.plan.predicted_ns)


class TestReportOfAModel:
    def test_it_is_that_of_plan(self, models: None, capfd: pytest.CaptureFixture[str]) -> None:
        options = ["verify_models:net", "--tune", "off", "--pin", "linear=xnnpack"]
        assert main(["plan", *options]) == 0
        planned = capfd.readouterr().out
        assert main(["report", *options]) == 0
        assert capfd.readouterr().out == planned

    def test_it_reads_exported_programs(
        self, models: None, capfd: pytest.CaptureFixture[str]
    ) -> None:
        torch.export.save(torch.export.export(Net().eval(), (X,)), "net.pt2")
        assert main(["report", "net.pt2", "--tune", "off", "--backends", "xnnpack"]) == 0
        assert capfd.readouterr().out.startswith("forward: ")

    def test_it_measures(self, models: None, capfd: pytest.CaptureFixture[str]) -> None:
        arguments = ["report", "verify_models:net", "--measure", "--runs", "2", "--json"]
        assert main(arguments) == 0
        (method,) = Report.from_json(capfd.readouterr().out).methods
        assert method.profile == "median of 2 profiled runs"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["verify_models:net", "--etdump", "p.etdump"], "a profile is of one .pte"),
            (["net.pte", "--pin", "linear=ggml"], "net.pte is planned already"),
            (["net.pte", "--backends", "ggml"], "net.pte is planned already"),
            (["net.pte", "--measure", "--runs", "0"], "--runs is 0; expected 1 or more"),
        ],
    )
    def test_options_that_do_not_fit_are_refused(
        self,
        models: None,
        capfd: pytest.CaptureFixture[str],
        arguments: list[str],
        message: str,
    ) -> None:
        assert main(["report", *arguments]) == 1
        assert message in capfd.readouterr().err


class TestVerify:
    def test_every_call_and_result_is_checked(self, pte: Path) -> None:
        found = verify(pte, Net().eval(), (X,))
        assert found.first_off is None
        segments = {check.segment for check in found.checks}
        assert segments == {*found.method.calls, None}
        assert all(check.error < 1e-5 for check in found.checks)
        assert {check.backend for check in found.checks} == {"ggml", "xnnpack", ""}

    def test_the_call_that_is_off_is_named_and_no_other(
        self, pte: Path, models: None, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["verify", str(pte), "verify_models:other_weights"]) == 3
        text = capfd.readouterr().out
        assert "the first call that is off: segment" in text
        assert "aten.linear.default" in text
        assert main(["verify", str(pte), "verify_models:other_weights", "--json"]) == 3
        (method,) = json.loads(capfd.readouterr().out)["methods"]
        checks = method["checks"]
        calls = [check for check in checks if check["segment"] is not None]
        assert len({check["segment"] for check in calls if not check["passed"]}) == 1
        assert any(check["passed"] for check in calls)

    def test_the_command_passes_what_is_right(
        self, pte: Path, models: None, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["verify", str(pte), "verify_models:net"]) == 0
        assert "tensors within what is allowed" in capfd.readouterr().out

    def test_every_method_is_checked_unless_one_is_named(
        self, methods_pte: Path, models: None, capfd: pytest.CaptureFixture[str]
    ) -> None:
        command = ["verify", str(methods_pte), "verify_models:methods"]
        assert main(command) == 0
        text = capfd.readouterr().out
        assert re.search(r"^whole: \d+ tensors within", text, re.MULTILINE)
        assert "half: 1 tensor within" in text
        assert main([*command, "--method", "half", "--json"]) == 0
        found = json.loads(capfd.readouterr().out)["methods"]
        assert [each["method"] for each in found] == ["half"]
        assert all(check["passed"] for check in found[0]["checks"])

    def test_the_method_that_is_off_is_named(
        self, methods_pte: Path, models: None, capfd: pytest.CaptureFixture[str]
    ) -> None:
        command = ["verify", str(methods_pte), "verify_models:other_methods", "--json"]
        assert main(command) == 3
        found = {each["method"]: each for each in json.loads(capfd.readouterr().out)["methods"]}
        assert found["whole"]["passed"]
        assert not found["half"]["passed"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["verify_models:methods", "--method", "x"], "no method 'x'; it has whole, half"),
            (["verify_models:net"], "the model has no method 'whole'; it has forward"),
        ],
    )
    def test_methods_that_are_not_there_are_an_error(
        self,
        methods_pte: Path,
        models: None,
        capfd: pytest.CaptureFixture[str],
        arguments: list[str],
        message: str,
    ) -> None:
        assert main(["verify", str(methods_pte), *arguments]) == 1
        assert message in capfd.readouterr().err

    def test_another_model_is_an_error(self, pte: Path) -> None:
        with pytest.raises(VerifyError, match="made from another model"):
            verify(pte, nn.Sequential(nn.Tanh()).eval(), (X,))


class TestValues:
    def test_they_are_what_calls_take_and_give(self, pte: Path) -> None:
        program = NativeProgram(pte, values=True)
        program(X)
        values = program.values()
        first = [value for instruction, value in values if instruction == 0]
        assert torch.equal(first[0], X)
        assert program.values() == []
        assert program.etdump()

    def test_they_have_to_be_asked_for(self, pte: Path) -> None:
        with pytest.raises(ValueError, match="load it with values"):
            NativeProgram(pte).values()
