"""SmolLM2-135M-Instruct, from the GGUF file of the extra `llm`, answers as eager PyTorch does."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from examples.llm import smollm2
from orchestrator import LanguageModel, lower_llm
from orchestrator.llm.families import read_decoder
from orchestrator.llm.gguf_file import GgufFile, quick_reader

CONTEXT, CHUNK, TOKENS = 256, 32, 16
PROMPT = "The capital of France is"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return lower_llm(smollm2(), context=CONTEXT, chunk=CHUNK, tune="off")


def greedy_in_eager(prompt: list[int]) -> list[int]:
    """Tokens by float32 weights as the format's own library expands them."""
    file = GgufFile(smollm2())
    found = {tensor.name: tensor for tensor in quick_reader()(smollm2()).tensors}

    def read(name: str) -> Tensor:
        floats = gguf.quants.dequantize(found[name].data, found[name].tensor_type)
        return torch.from_numpy(np.array(floats))

    decoder = read_decoder(file, CONTEXT, read=read)
    given, tokens = torch.tensor([prompt]), list[int]()
    with torch.no_grad():
        for _ in range(TOKENS):
            first = len(prompt) + len(tokens) - given.shape[1]
            scores = decoder(given, torch.arange(first, first + given.shape[1]))
            tokens.append(int(scores.argmax()))
            given = torch.tensor([tokens[-1:]])
    return tokens


def test_greedy_tokens_are_those_of_eager(model: LanguageModel) -> None:
    answer = model.generate(PROMPT, TOKENS)
    assert list(answer.tokens) == greedy_in_eager(model.tokenizer.encode(PROMPT))
    assert answer.text.startswith(" Paris.")


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
