"""The command line, in this process and in one of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from orchestrator import lower, read_report, render_text
from orchestrator.cli import main

MODULE = """
import torch

def model():
    return torch.nn.Linear(6, 3), (torch.ones(4, 6),)

class Inverse(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.inv_ex(x)[0]

def inverse():
    return Inverse(), (torch.eye(3),)

def no_pair():
    return 3

def broken():
    raise RuntimeError("the weights are gone")

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a module of models."""
    (tmp_path / "cli_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "cli_models", raising=False)
    return tmp_path


def test_lower_makes_a_program_of_a_function(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lower", "cli_models:model", "-o", "out.pte", "--backends", "xnnpack"]) == 0
    assert capsys.readouterr().out == ""
    assert read_report(folder / "out.pte").backends == ("xnnpack",)


def test_lower_makes_a_program_of_an_exported_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.export.save(torch.export.export(nn.Linear(6, 3), (torch.ones(4, 6),)), "model.pt2")
    arguments = ["lower", "model.pt2", "-o", "out.pte", "--backends", "", "--report"]
    assert main(arguments) == 0
    report = read_report(folder / "out.pte")
    assert report.backends == ()
    assert capsys.readouterr().out == render_text(report)


def test_weights_may_be_off(folder: Path) -> None:
    arguments = ["lower", "cli_models:model", "-o", "out.pte", "--backends", "ggml"]
    assert main([*arguments, "--weight-error", "5e-4"]) == 0
    (method,) = read_report(folder / "out.pte").methods
    assert method.weight_error == 5e-4
    assert method.plan is not None
    assert any("1 weights stored in half types" in note for note in method.plan.notes)


def test_warnings_are_a_line_and_the_program_is_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lower", "cli_models:inverse", "-o", "out.pte", "--backends", ""]) == 0
    printed = capsys.readouterr().err
    assert printed.startswith("orchestrator: warning: method 'forward' will not load")
    assert len(printed.splitlines()) == 1
    assert (folder / "out.pte").exists()


class TestReport:
    @pytest.fixture
    def saved(self, folder: Path) -> Path:
        program = lower(nn.Linear(6, 3), (torch.ones(4, 6),), backends=["xnnpack"])
        program.save(folder / "out.pte")
        return folder / "out.pte"

    def test_text(self, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["report", str(saved)]) == 0
        assert capsys.readouterr().out == render_text(read_report(saved))

    def test_json(self, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["report", "--json", str(saved)]) == 0
        assert json.loads(capsys.readouterr().out)["backends"] == ["xnnpack"]

    def test_it_imports_neither_torch_nor_executorch(self, saved: Path) -> None:
        code = (
            "import sys; from orchestrator.cli import main; status = main(['report', sys.argv[1]]);"
            "sys.exit(status or bool({'torch', 'executorch'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_backends_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backends"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["backend", "delegate", "state", "software"]
    found = {line.split()[0]: line for line in lines[1:] if line}
    assert list(found)[:2] == ["ggml", "xnnpack"]
    assert found["ggml"].split()[1:3] == ["GgmlBackend", "available"]
    assert found["xnnpack"].split()[1:3] == ["XnnpackBackend", "available"]
    assert found["portable"].split()[1:3] == ["-", "available"]
    assert "VulkanBackend lowers here, runs elsewhere" in " ".join(found["vulkan"].split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "missing.pte"], "No such file or directory: missing.pte"),
        (["report", "cli_models.py"], "cli_models.py: not an ExecuTorch program"),
        (["report", "."], "Is a directory: ."),
        (["lower", "missing.pt2", "-o", "x.pte"], "there is no file 'missing.pt2'"),
        (
            ["lower", "missing.onnx", "-o", "x.pte"],
            "'missing.onnx' is not a model; expected a .pt2",
        ),
        (["lower", "no_such_module:f", "-o", "x.pte"], "there is no module 'no_such_module'"),
        (["lower", "cli_models:f", "-o", "x.pte"], "module 'cli_models' has no function 'f'"),
        (["lower", "cli_models:number", "-o", "x.pte"], "has no function 'number'"),
        (["lower", "cli_models:no_pair", "-o", "x.pte"], "returned int, not (model, example_inp"),
        (["lower", "cli_models:broken", "-o", "x.pte"], "RuntimeError: the weights are gone"),
        (["lower", "cli_models:model", "-o", "x.pte", "--backends", "z"], "unknown backend 'z'"),
        (["lower", "cli_models:model", "-o", "no/x.pte", "--backends", ""], "No such file or dir"),
    ],
)
def test_failures_are_one_line_and_exit_code_1(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("orchestrator: ")
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not list(folder.glob("*.pte"))


@pytest.mark.parametrize("arguments", [[], ["lower"], ["lower", "m:f"], ["report"], ["fly"]])
def test_a_wrong_command_line_is_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: orchestrator" in capsys.readouterr().err


def test_traceback_shows_where_an_error_comes_from(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="weights are gone"):
        main(["--traceback", "lower", "cli_models:broken", "-o", "x.pte"])


def test_the_package_is_a_command_and_quiet(folder: Path) -> None:
    command = [sys.executable, "-m", "orchestrator", "lower", "cli_models:model", "-o", "out.pte"]
    done = subprocess.run(
        [*command, "--backends", "xnnpack"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "report", "no.pte"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "orchestrator: No such file or directory: no.pte\n"
