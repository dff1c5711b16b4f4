"""`orchestrator-run --generate`: a language model without Python, token ids in and out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import _ggml_delegate
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from torch import nn

from orchestrator import LanguageModel, lower
from orchestrator.llm.lower_llm import lower_llm
from tests.llm import made_up

BAD_USAGE, BAD_MODEL, BAD_INPUT, OUTPUT_FAILED = 2, 3, 4, 5
PROMPT = "the heath"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(_ggml_delegate.RUNNER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def listed(tokens: list[int]) -> str:
    return ",".join(map(str, tokens))


@pytest.fixture(scope="module", params=["prefill+decode", "forward"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LanguageModel, Path]:
    folder = tmp_path_factory.mktemp("native")
    source = made_up.write(folder / "file.gguf", kinds=Type.Q4_1)
    made = lower_llm(source, chunk=4, tune="off", methods=request.param)
    made.save(folder / "model.pte")
    return made, folder / "model.pte"


def test_tokens_are_those_of_python(model: tuple[LanguageModel, Path], tmp_path: Path) -> None:
    made, file = model
    prompt = made.tokenizer.encode(PROMPT)
    expected = made.generate(PROMPT, 12)
    assert len(prompt) > made.chunk  # in parts
    report = tmp_path / "report.json"
    options = ["--generate", listed(prompt), "--max-new-tokens", 12, "--threads", 1]
    result = run(file, *options, "--json", report)
    assert (result.returncode, result.stderr) == (0, "")
    tokens, summary = result.stdout.splitlines()
    assert tuple(map(int, tokens.split())) == expected.tokens
    assert summary.startswith(f"{len(prompt)} tokens of prompt, ")
    assert summary.endswith(f"ended by: {expected.ending}")
    said = json.loads(report.read_text())
    assert (tuple(said["tokens"]), said["ending"]) == (expected.tokens, expected.ending)
    assert said["prompt_tokens"] == len(prompt)
    assert said["prompt_s"] > 0


def test_the_context_is_the_end(model: tuple[LanguageModel, Path]) -> None:
    made, file = model
    prompt = made.tokenizer.encode(PROMPT)
    expected = made.generate(PROMPT, 10 * made.context)
    result = run(file, "--generate", listed(prompt), "--max-new-tokens", 10 * made.context)
    tokens = tuple(map(int, result.stdout.splitlines()[0].split()))
    assert tokens == expected.tokens
    assert result.stdout.endswith(f"ended by: {expected.ending}\n")


def test_prompts_that_do_not_fit(model: tuple[LanguageModel, Path]) -> None:
    made, file = model
    size = made.tokenizer.size
    for tokens, message in (
        ([1] * (made.context + 1), f"has {made.context + 1} tokens, and the context holds "),
        (
            [1, size],
            f"token {size} of the prompt is not in the vocabulary: expected 0 to {size - 1}",
        ),
    ):
        result = run(file, "--generate", listed(tokens))
        assert result.returncode == BAD_INPUT
        assert message in result.stderr
        assert result.stdout == ""


@pytest.mark.parametrize("text", ["", "1,", "1,x", "-1", "1.5", "99999999999999999999"])
def test_what_is_no_list_of_ids(model: tuple[LanguageModel, Path], text: str) -> None:
    result = run(model[1], f"--generate={text}")
    assert result.returncode == BAD_USAGE, result.stderr
    assert "--generate" in result.stderr


def test_a_limit_without_a_prompt(model: tuple[LanguageModel, Path]) -> None:
    assert run(model[1], "--max-new-tokens", 3).returncode == BAD_USAGE
    assert run(model[1], "--generate", 1, "--max-new-tokens", 0).returncode == BAD_USAGE


def test_a_report_that_cannot_be_written(model: tuple[LanguageModel, Path], tmp_path: Path) -> None:
    result = run(model[1], "--generate", 1, "--json", tmp_path / "none" / "report.json")
    assert result.returncode == OUTPUT_FAILED


class Counts(nn.Module):
    def forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return (tokens * 1.0 + positions)[:, :4]


def test_other_programs_are_an_error(tmp_path: Path) -> None:
    plain = lower(nn.Linear(3, 3).eval(), (torch.ones(2, 3),), backends=[])
    inputs = (torch.zeros(1, 8, dtype=torch.int64), torch.arange(8))
    says = {"get_max_context_len": 16, "get_eos_ids": [1]}
    odd = lower(Counts().eval(), inputs, backends=["ggml"], constant_methods=says)
    text = lower(
        nn.Linear(3, 3).eval(), (torch.ones(2, 3),), backends=[], constant_methods={**says}
    )
    words = lower(
        Counts().eval(),
        inputs,
        backends=["ggml"],
        constant_methods={**says, "get_max_context_len": 0},
    )
    for program, message in (
        (plain, "it has no method 'get_max_context_len'"),
        (text, "'forward' does not take tokens"),
        (words, "'get_max_context_len' gives no number"),
    ):
        program.save(tmp_path / "program.pte")
        result = run(tmp_path / "program.pte", "--generate", 1)
        assert result.returncode == BAD_MODEL
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    odd.save(tmp_path / "odd.pte")
    fixed = run(tmp_path / "odd.pte", "--generate", "1,2,3")
    assert fixed.returncode != 0
    assert "input 0" in fixed.stderr


def test_no_file(tmp_path: Path) -> None:
    result = run(tmp_path / "none.pte", "--generate", 1)
    assert result.returncode == BAD_MODEL
    assert "none.pte" in result.stderr
