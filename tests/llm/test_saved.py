"""A saved program generates by itself, and one that cannot says why."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator import LanguageModel, ModelError, OptionError, lower, read_report
from orchestrator.llm import stored_tokenizer
from orchestrator.llm.gguf_file import GgufFile
from orchestrator.llm.metadata import Metadata
from orchestrator.llm.tokenizer import Tokenizer
from orchestrator.llm.tokenizer_keys import KEYS
from orchestrator.report.embed import KEY as REPORT
from orchestrator.report.pte import read_named_data
from tests.llm import made_up


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up.alphabet(tmp_path_factory.mktemp("llm") / "abc.pte")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a tokenizer."""
    return made_up.alphabet(tmp_path_factory.mktemp("llm") / "bare.pte", named_data={})


@pytest.fixture(scope="module")
def source(file: Path) -> dict[str, Any]:
    """What the tokenizer is made of."""
    return dict(Tokenizer(GgufFile(file.with_suffix(".gguf"))).source)


def test_a_file_generates_by_itself(file: Path, tmp_path: Path) -> None:
    alone = shutil.copy(file, tmp_path / "alone.pte")
    model = LanguageModel.load(alone, threads=1)
    assert (model.context, model.chunk, model.threads) == (made_up.CONTEXT, 4, 1)
    answer = model.generate("uvw")
    assert (answer.text, answer.ending) == ("xyz", "end")
    assert model.generate("a", 3, stop=["d"]).text == "bc"
    assert model.generate([{"role": "user", "content": "hi"}], 2).text == "qr"


def test_prompts_of_any_number_of_tokens_run(file: Path) -> None:
    model = LanguageModel.load(file)
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    for count in range(1, 12):
        assert model.generate(alphabet[:count], 2).text == alphabet[count : count + 2]


def test_a_loaded_model_is_saved_as_it_is(file: Path, tmp_path: Path) -> None:
    model = LanguageModel.load(file)
    model.save(tmp_path / "copy.pte")
    assert (tmp_path / "copy.pte").read_bytes() == file.read_bytes()
    assert model.program.report == read_report(file)


def test_a_file_without_a_tokenizer_takes_one(file: Path, bare: Path) -> None:
    with pytest.raises(ModelError, match=r"bare\.pte holds no tokenizer: .*tokenizer=FILE"):
        LanguageModel.load(bare)
    model = LanguageModel.load(bare, tokenizer=file.with_suffix(".gguf"))
    assert model.generate("a", 3).text == "bcd"


def test_the_tokenizer_has_to_be_the_programs(file: Path, source: dict[str, Any]) -> None:
    said = {**source, "tokenizer.ggml.tokens": made_up.TOKENS[:-1]}
    del said["tokenizer.ggml.token_type"], said["tokenizer.ggml.eos_token_id"]
    fewer = Metadata("other", said)
    with pytest.raises(ModelError, match=r"'prefill' takes .* and returns .*260.*the 259 tokens"):
        load_with(file, stored_tokenizer.pack_tokenizer(Tokenizer(fewer)))


def load_with(file: Path, data: bytes) -> LanguageModel:
    """Load a file as if it held this tokenizer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_tokenizer, "read_named_data", lambda *_: data)
        return LanguageModel.load(file)


def test_programs_without_the_methods_name_theirs(file: Path, tmp_path: Path) -> None:
    path, gguf = tmp_path / "relu.pte", file.with_suffix(".gguf")
    lower(torch.nn.ReLU().eval(), (torch.ones(2),), backends=[]).save(path)
    with pytest.raises(ModelError, match=r"relu\.pte has no method 'get_max_context_len'"):
        LanguageModel.load(path, tokenizer=gguf)
    sizes = {"get_max_context_len": 8, "get_max_seq_len": 4}
    lower(torch.nn.ReLU().eval(), (torch.ones(2),), backends=[], constant_methods=sizes).save(path)
    with pytest.raises(ModelError, match=r"'forward' takes .*float32.*; expected .*int64"):
        LanguageModel.load(path, tokenizer=gguf)


def test_files_that_are_no_programs_are_errors(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"gone\.pte"):
        LanguageModel.load(tmp_path / "gone.pte")
    (tmp_path / "text.pte").write_text("no program")
    with pytest.raises(ValueError, match=r"text\.pte: not an ExecuTorch program"):
        LanguageModel.load(tmp_path / "text.pte")


def packed(said: Any) -> bytes:
    return zlib.compress(json.dumps(said).encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut off"),
        (b"no zlib", "damaged"),
        (packed({"format": 1, "metadata": {}})[:-5], "cut off"),
        (zlib.compress(b"\xff"), "damaged"),
        (zlib.compress(b"{"), "damaged"),
        (zlib.compress(b"[" * 100_000), "damaged"),
        (zlib.compress(b"1" * 10_000), "damaged"),
        (packed([]), "its format is not said"),
        (packed({"format": 3, "metadata": {}}), "has format 3; this version reads 1 and 2"),
        (packed({"format": 1}), "it holds no metadata"),
        (packed({"format": 1, "metadata": {}}), "tokenizer.ggml.tokens is missing"),
    ],
    ids=[
        *("empty", "no zlib", "cut", "no text", "no JSON", "deep", "a long number"),
        *("a list", "later", "no metadata", "no tokens"),
    ],
)
def test_a_damaged_tokenizer_is_an_error(file: Path, data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=rf"abc\.pte.*{message}"):
        load_with(file, data)


def use(tokenizer: Tokenizer) -> None:
    tokenizer.decode(tokenizer.encode("the heath, é"))
    complete: Callable[[int], str] = tokenizer.decoder()
    complete(2)
    if tokenizer.has_template:
        tokenizer.encode(tokenizer.chat([{"role": "user", "content": "hi"}]), begin=False)


@pytest.mark.parametrize("key", KEYS)
def test_values_of_any_kind_make_a_tokenizer_or_an_error(source: Any, key: str) -> None:
    """As a damaged or hostile file may hold."""
    values: list[Any] = [None, True, -1, 0, 259, 260, 10**30, 0.5, "", "x", "\ud800", {}, []]
    values += [[1], ["a"], ["a b"], [" "], ["\ud800 a"], [["a", "b"]], [3] * 260, [3] * 261]
    values += [["t h"] * 2, made_up.TOKENS[:3], [*made_up.TOKENS, ""], [*made_up.TOKENS, "a"]]
    values += ["{{ 1 / 0 }}", "{{ 'a' * 10 ** 30 }}"]
    values += ["{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"]
    made = 0
    for value in values:
        try:
            use(Tokenizer(Metadata("file", {**source, key: value})))
        except ModelError as error:
            assert "file" in str(error)
        else:
            made += 1
    assert made < len(values)


def test_a_tokenizer_is_small(source: Any, file: Path) -> None:
    data = read_named_data(file, stored_tokenizer.KEY)
    assert data is not None
    assert len(data) < len(json.dumps(source)) / 2


def test_the_reports_key_is_taken() -> None:
    with pytest.raises(OptionError, match=r"named_data has the key 'orchestrator\.report'"):
        lower(torch.nn.ReLU().eval(), (torch.ones(2),), backends=[], named_data={REPORT: b""})
