"""`orchestrator lower-llm`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator import LanguageModel
from orchestrator.cli import main
from tests.llm import made_up


def test_options_reach_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, saved = made_up.write(tmp_path / "file.gguf", depth=1), tmp_path / "model.pte"
    options = "--context 24 --chunk 4 --quantize 8w --backends ggml --tune off --plan-threads 1"
    assert main(["lower-llm", str(source), "-o", str(saved), *options.split(), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert report["backends"] == ["ggml"]
    assert [method["name"] for method in report["methods"]] == ["decode", "prefill"]
    for method in report["methods"]:
        assert "Quantized (8w): 8 of 8 layers." in method["plan"]["notes"]
    model = LanguageModel.load(saved)
    assert (model.context, model.chunk) == (24, 4)
    assert main(["generate", str(saved), "--raw", "--prompt", "the", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.rstrip("\n") == model.generate("the", 3).text


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lower-llm", str(tmp_path / "none.gguf"), "-o", str(tmp_path / "x.pte")]) == 1
    _, err = capsys.readouterr()
    assert err.startswith("orchestrator: ")
    assert "none.gguf" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x.pte").exists()
