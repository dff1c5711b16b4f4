"""The test kit passes backends that are well, from a test file and from the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.backends import Backend
from orchestrator.testing import BackendTests, test_backend
from orchestrator.testing.subject import Subject
from tests.backends.toy import Toy

MODULE = """from pathlib import Path
from orchestrator.backends.ggml import GgmlDelegate

made = GgmlDelegate()
number = 7
"""


class TestToy(BackendTests):
    """As a third party would have it."""

    @classmethod
    def make_backend(cls) -> Backend:
        return Toy()


class Absent(Toy):
    def available(self) -> str:
        return "its SDK is missing"


class Elsewhere(Toy):
    def runnable(self) -> str:
        return "it is a phone's"


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as in a project without settings of pytest's."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_backends_are_tested_by_their_names_and_as_objects_of_modules(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    backends = ("--backend", "ggml", "--backend", "xnnpack", "--backend", "mine:made")
    some = "fingerprint or (test_calls_read and linear)"
    made = run_pytest(tmp_path, "--pyargs", "orchestrator.testing", *backends, "-k", some)
    assert made.returncode == 0 and "9 passed" in made.stdout, made.stdout + made.stderr


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "name a backend to test: --backend xnnpack, or --backend my_package.module:MyClass"),
        (["gmgl"], "--backend gmgl: unknown backend 'gmgl'; known: ggml, xnnpack"),
        (["absent.module:Mine"], "--backend absent.module:Mine: No module named 'absent'"),
        (["mine:number"], "--backend mine:number: 'int' object is not callable"),
        (["mine:other"], "--backend mine:other: module 'mine' has no attribute 'other'"),
        (["mine:Path"], "--backend mine:Path: Path made a PosixPath, which lacks parts of"),
    ],
)
def test_what_is_no_backend_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], message: str
) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    asked: Any = SimpleNamespace(
        fixturenames=["backend"], config=SimpleNamespace(getoption=lambda *_: names)
    )
    with pytest.raises(pytest.UsageError, match=f"^{re.escape(message)}"):
        test_backend.pytest_generate_tests(asked)


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (Absent(), "toy cannot lower here: its SDK is missing"),
        (Elsewhere(), "programs of toy cannot run here: it is a phone's"),
    ],
)
def test_programs_that_cannot_run_here_are_skipped_with_the_reason(
    backend: Backend, reason: str
) -> None:
    subject = Subject.of(backend)
    with pytest.raises(pytest.skip.Exception, match=reason):
        BackendTests().test_it_computes_with_no_more_threads_than_it_is_told(subject)


def test_other_runs_of_pytest_neither_have_its_option_nor_import_torch(tmp_path: Path) -> None:
    test = tmp_path / "test_other.py"
    test.write_text("import sys\n\n\ndef test_torch():\n    assert 'torch' not in sys.modules\n")
    made = run_pytest(tmp_path, test.name)
    assert made.returncode == 0, made.stdout
    made = run_pytest(tmp_path, test.name, "--backend", "mine")
    assert "unrecognized arguments: --backend" in made.stderr
