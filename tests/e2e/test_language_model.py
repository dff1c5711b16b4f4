"""SmolLM2-135M-Instruct, from the GGUF file of the extra `llm`, answers as eager PyTorch does."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
from torch import Tensor

from examples.llm import smollm2
from orchestrator import LanguageModel, lower_llm
from orchestrator.llm.decoder import Decoder
from orchestrator.llm.families import read_decoder
from orchestrator.llm.gguf_file import GgufFile, quick_reader

CONTEXT, CHUNK, TOKENS = 256, 32, 64
PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was a little girl who",
    "def fibonacci(n):\n    ",
)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return lower_llm(smollm2(), context=CONTEXT, chunk=CHUNK, tune="off")


@pytest.fixture(scope="module")
def eager() -> Decoder:
    """Of float32 weights as the format's own library expands them."""
    file = GgufFile(smollm2())
    found = {tensor.name: tensor for tensor in quick_reader()(smollm2()).tensors}

    def read(name: str) -> Tensor:
        floats = gguf.quants.dequantize(found[name].data, found[name].tensor_type)
        return torch.from_numpy(np.array(floats))

    return read_decoder(file, CONTEXT, read=read)


def greedy(decoder: Decoder, prompt: list[int], ends: tuple[int, ...]) -> list[int]:
    """Tokens until one that ends the text, which is left out."""
    given, tokens = torch.tensor([prompt]), list[int]()
    with torch.no_grad():
        while len(tokens) < TOKENS:
            first = len(prompt) + len(tokens) - given.shape[1]
            scores = decoder(given, torch.arange(first, first + given.shape[1]))
            token = int(scores.argmax())
            if token in ends:
                break
            tokens.append(token)
            given = torch.tensor([tokens[-1:]])
    return tokens


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_tokens_are_those_of_eager(
    model: LanguageModel, eager: Decoder, prompt: str
) -> None:
    answer = model.generate(prompt, TOKENS)
    expected = greedy(eager, model.tokenizer.encode(prompt), model.tokenizer.ends)
    assert len(expected) > 10
    assert list(answer.tokens) == expected


def test_executorchs_runner_generates_the_same(model: LanguageModel, tmp_path: Path) -> None:
    single = lower_llm(smollm2(), methods="forward", context=CONTEXT, chunk=CONTEXT, tune="off")
    single.save(tmp_path / "model.pte")
    single.tokenizer.save(tmp_path / "tokenizer.json")
    runner = TextLLMRunner(str(tmp_path / "model.pte"), str(tmp_path / "tokenizer.json"))
    config = GenerationConfig(echo=False, max_new_tokens=TOKENS, temperature=0.0)
    for prompt in PROMPTS:
        pieces: list[str] = []
        runner.generate(prompt, config, pieces.append)
        runner.reset()
        answer = model.generate(prompt, TOKENS)
        print(len(answer.tokens), answer.text)
        assert "".join(pieces[: len(answer.tokens)]) == answer.text


def test_a_question_is_answered(model: LanguageModel) -> None:
    pieces: list[str] = []
    answer = model.generate(QUESTION, 40, stream=pieces.append)
    print(answer)
    assert answer.text == "".join(pieces) == "The capital of France is Paris."
    assert answer.ending == "end"
    assert answer.prompt_tokens > CHUNK  # in two parts


def test_weights_are_in_the_file_once(model: LanguageModel) -> None:
    """As integers, the table of words too: rows for words are read where the head has its weight.

    The GGUF file has the tokenizer besides.
    """
    assert len(model.program.buffer) < smollm2().stat().st_size
