"""Commands that take a model: plan and verify; and what lies behind them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ggml_delegate.native import NativeProgram
from orchestrator import lower
from orchestrator.cli import main
from orchestrator.dry_run import plan
from orchestrator.options import OptionError
from orchestrator.report.data import Report
from orchestrator.verify import VerifyError, verify

MODULE = """
import torch
from tests.cli.test_models import Net, X

def net():
    return Net().eval(), (X,)

def other_weights():
    net = Net().eval()
    with torch.no_grad():
        net.linear.weight.mul_(2)
    return net, (X,)

def other_model():
    return torch.nn.Sequential(torch.nn.Tanh()), (X,)
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


X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "net.pte"
    lower(Net().eval(), (X,), strategy="greedy").save(path)
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
        assert planned.plan == lowered.plan
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
        checks = json.loads(capfd.readouterr().out)["checks"]
        calls = [check for check in checks if check["segment"] is not None]
        assert len({check["segment"] for check in calls if not check["passed"]}) == 1
        assert any(check["passed"] for check in calls)

    def test_the_command_passes_what_is_right(
        self, pte: Path, models: None, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["verify", str(pte), "verify_models:net"]) == 0
        assert "tensors are within 0.0001" in capfd.readouterr().out

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
