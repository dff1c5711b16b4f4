"""Progress on a terminal, quiet elsewhere; exit codes of the command as a process."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.cli import main, plan

MODULE = """
import time
import torch

def model():
    return torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.ReLU()), (torch.ones(4, 6),)

def broken():
    raise RuntimeError("the weights are gone")

def endless():
    open("started", "w").close()
    time.sleep(60)
"""
COMMAND = [sys.executable, "-m", "orchestrator"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "terminal_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def on_a_terminal(*arguments: str) -> tuple[int, str, str]:
    """The exit code, standard output (a pipe) and what a terminal on standard error was sent."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        assert process.stdout is not None
        printed = process.stdout.read()
    os.close(ours)
    return process.returncode, printed.decode(), shown.decode()


def on_screen(text: str) -> list[str]:
    """What is left to see of lines that were written over with carriage returns."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        seen = ""
        for part in line.split("\r"):
            seen = part + seen[len(part) :]
        lines.append(seen.rstrip())
    return [line for line in lines if line]


class TestProgress:
    def test_lower_tells_its_stages_and_takes_them_away(self, folder: Path) -> None:
        table = str(folder / "costs.sqlite")
        code, printed, shown = on_a_terminal(
            *("lower", "terminal_models:model", "-o", "out.pte"),
            *("--tune", "measure", "--budget", "5", "--cost-table", table),
        )
        assert (code, printed) == (0, "")
        for stage in ("loading terminal_models:model", "exporting, planning", "timing plans: "):
            assert stage in shown
        assert on_screen(shown) == []

    def test_an_error_stands_alone(self, folder: Path) -> None:
        code, printed, shown = on_a_terminal("lower", "terminal_models:broken", "-o", "out.pte")
        assert (code, printed) == (1, "")
        assert "loading terminal_models:broken" in shown
        assert on_screen(shown) == ["orchestrator: RuntimeError: the weights are gone"]

    def test_a_piped_report_is_the_same_and_has_no_colours(self, folder: Path) -> None:
        arguments = ("plan", "terminal_models:model", "--tune", "off")
        code, printed, shown = on_a_terminal(*arguments)
        assert code == 0
        assert "exporting and planning" in shown
        piped = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=True)
        assert (piped.stdout, piped.stderr) == (printed, "")
        assert "\x1b" not in printed


class TestExitCodes:
    def test_interrupted(self, folder: Path) -> None:
        command = [*COMMAND, "lower", "terminal_models:endless", "-o", "out.pte"]
        with subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            # Jobs in the background are started with SIGINT ignored, and so would be this process.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            while not (folder / "started").exists():
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            message = process.stderr.read()
        assert process.returncode == 130
        assert message == "orchestrator: interrupted\n"
        assert not (folder / "out.pte").exists()

    def test_a_reader_that_has_seen_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in `orchestrator report model.pte | head -1`."""
        reader, writer = os.pipe()
        os.close(reader)

        def report(_: object) -> None:
            raise BrokenPipeError

        monkeypatch.setattr(plan, "run", report)
        with os.fdopen(writer, "w") as output:
            monkeypatch.setattr(sys, "stdout", output)
            assert main(["plan", "m:f"]) == 0

    def test_they_are_in_the_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--help"])
        text = " ".join(capsys.readouterr().out.split())
        for meaning in ("0 done", "1 it failed", "2 the command", "3 a check", "130 interrupted"):
            assert meaning in text
