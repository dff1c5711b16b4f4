"""Commands about programs that are there already: report, run, bench, compare."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orchestrator import lower, read_report, render_text
from orchestrator.cli import main
from orchestrator.report.data import Report


class Net(nn.Module):
    """Runs on both backends and on kernels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(self.linear(torch.relu(self.conv(x)).mean((2, 3))), 1)


X = torch.randn(2, 3, 6, 6)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model lowered in two ways."""
    folder = tmp_path_factory.mktemp("programs")
    lower(Net().eval(), (X,), pins={"conv": "ggml", "linear": "xnnpack"}).save(folder / "both.pte")
    lower(Net().eval(), (X,), backends=["xnnpack"]).save(folder / "xnnpack.pte")
    lower(Net().eval(), (X,), backends=[]).save(folder / "kernels.pte")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestReport:
    def test_files_are_written_instead_of_text(
        self, folder: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["report", "both.pte", "--html", "r.html", "--dot", "r.dot"]) == 0
        assert capfd.readouterr().out == ""
        assert (folder / "r.html").read_text().startswith("<!doctype html>")
        assert "both.pte" in (folder / "r.html").read_text()
        assert (folder / "r.dot").read_text().startswith("digraph")

    def test_it_measures(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert main(["report", "both.pte", "--measure", "--runs", "2", "--json"]) == 0
        captured = capfd.readouterr()
        report = Report.from_json(captured.out)
        assert captured.err == ""  # no progress when nobody looks
        assert report.methods[0].profile == "median of 2 profiled runs"
        assert all(segment.measured_ns for segment in report.methods[0].partitions)

    def test_a_profile_from_a_run(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert main(["run", "both.pte", "--runs", "2", "--etdump", "p.etdump"]) == 0
        capfd.readouterr()
        assert main(["report", "both.pte", "--etdump", "p.etdump"]) == 0
        assert "median of 2 profiled runs" in capfd.readouterr().out
        assert main(["report", "kernels.pte", "--etdump", "p.etdump"]) == 1
        assert "the profile is of another program" in capfd.readouterr().err

    def test_colours_and_details_can_be_asked_for(
        self, folder: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        report = read_report(folder / "both.pte")
        for arguments, expected in (
            ([], render_text(report)),
            (["--color", "always"], render_text(report, color=True)),
            (["--details"], render_text(report, details=True)),
        ):
            assert main(["report", "both.pte", *arguments]) == 0
            assert capfd.readouterr().out == expected


class TestRun:
    def test_outputs_are_those_of_the_model(
        self, folder: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        np.save("x.npy", X.numpy())
        assert main(["run", "both.pte", "--input", "x.npy", "--output-dir", ".", "--json"]) == 0
        assert json.loads(capfd.readouterr().out)["runs"] == 1
        with torch.no_grad():
            expected = Net().eval()(X)
        torch.testing.assert_close(torch.from_numpy(np.load("output_0.npy")), expected)

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["missing.pte"], 3),
            (["both.pte", "--method", "backward"], 2),
            (["both.pte", "--input", "none.npy"], 4),
        ],
    )
    def test_exit_codes_are_the_runners(
        self, folder: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], code: int
    ) -> None:
        assert main(["run", *arguments]) == code
        assert capfd.readouterr().err.startswith("orchestrator-run: ")


class TestBench:
    def test_ratios_are_to_the_first(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        arguments = ["bench", "both.pte", "xnnpack.pte", "--rounds", "4", "--threads", "1"]
        assert main([*arguments, "--json"]) == 0
        rows = json.loads(capfd.readouterr().out)["programs"]
        assert [row["program"] for row in rows] == ["both.pte", "xnnpack.pte"]
        assert rows[0]["ratio"] == 1.0
        assert all(len(row["times_ns"]) == 4 for row in rows)
        assert main(arguments) == 0
        lines = capfd.readouterr().out.splitlines()
        assert lines[0].split() == ["program", "median", "+-", "ratio", "+-"]
        assert len(lines) == 3

    def test_eager_pytorch_can_take_part(
        self, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = "import torch\ndef model(): return torch.nn.ReLU(), (torch.ones(2),)\n"
        (folder / "bench_models.py").write_text(module)
        arguments = ["bench", "both.pte", "--rounds", "4", "--eager", "bench_models:model"]
        assert main(arguments) == 0
        assert "eager bench_models:model" in capfd.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["both.pte", "--rounds", "1"], "expected 4 or more"),
            (["none.pte"], "there is no program file 'none.pte'"),
            (["both.pte", "--input", "x.npy", "--input", "x.npy"], "takes 1 tensors"),
        ],
    )
    def test_failures_are_one_line(
        self,
        folder: Path,
        capfd: pytest.CaptureFixture[str],
        arguments: list[str],
        message: str,
    ) -> None:
        np.save("x.npy", X.numpy())
        assert main(["bench", *arguments]) == 1
        printed = capfd.readouterr().err
        assert message in printed
        assert len(printed.splitlines()) == 1


class TestCompare:
    def test_what_runs_elsewhere_is_named(
        self, folder: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["compare", "both.pte", "xnnpack.pte"]) == 0
        text = capfd.readouterr().out
        assert "ggml in A, xnnpack in B" in text
        assert "1 aten.convolution.default" in text
        assert main(["compare", "both.pte", "xnnpack.pte", "--json"]) == 0
        (method,) = json.loads(capfd.readouterr().out)["methods"]
        (move,) = [each for each in method["moved"] if each["from"] == "ggml"]
        assert move["to"] == "xnnpack"
        assert method["calls"][1] >= 1

    def test_a_program_is_like_itself(
        self, folder: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["compare", "both.pte", "both.pte"]) == 0
        assert "every node runs on the same backend in both" in capfd.readouterr().out


def test_backends_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["backends", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    backends = {each["name"]: each for each in found["backends"]}
    assert list(backends)[:2] == ["ggml", "xnnpack"]
    assert list(backends)[-1] == "portable"
    for name in ("ggml", "xnnpack", "portable"):
        assert backends[name]["available"]
        assert backends[name]["elsewhere"] is None
    assert backends["vulkan"]["available"]
    assert "'VulkanBackend' is not in this process" in backends["vulkan"]["elsewhere"]
    assert found["machine"]["executorch"] == "1.5.1"


def test_help_of_every_command_explains_it(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capfd.readouterr().out
    for command in ("lower", "report", "run", "bench", "compare", "backends"):
        assert command in text
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        assert len(capfd.readouterr().out.splitlines()) >= 8
