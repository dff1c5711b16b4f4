"""Hugging Face folders are read as transformers reads them; what is not known is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator import ModelError
from orchestrator.llm.families import read_decoder
from orchestrator.llm.gguf_file import GgufFile
from orchestrator.llm.hf_folder import HfFolder
from orchestrator.llm.metadata import Metadata
from orchestrator.llm.open_source import open_tokenizer
from orchestrator.llm.stored_tokenizer import pack_tokenizer, unpack_tokenizer
from orchestrator.llm.tokenizer import Tokenizer
from orchestrator.llm.tokenizer_keys import JSON_KEYS
from tests.llm import made_up, made_up_folder
from tests.llm.made_up_folder import BEGIN, END, put, write
from tests.llm.test_decoder import TOKENS, example, score

KNOWN = len(made_up.TOKENS)
Q = "model.layers.0.self_attn.q_proj.weight"


def assert_refused(folder: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_decoder(HfFolder(folder))


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_scores_are_those_of_the_example_model(tmp_path: Path, architecture: str) -> None:
    with torch.no_grad():
        expected = example(architecture)(TOKENS)[:, -1]
    got = score(read_decoder(HfFolder(write(tmp_path, architecture))), TOKENS)
    torch.testing.assert_close(got[:, :KNOWN], expected, rtol=1e-4, atol=1e-4)
    assert got.shape[1] == made_up_folder.PADDED


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_scores_are_those_of_the_same_weights_as_gguf(tmp_path: Path, architecture: str) -> None:
    file = GgufFile(made_up.write(tmp_path / "file.gguf", architecture))
    folder = HfFolder(write(tmp_path / "folder", architecture))
    got, expected = (score(read_decoder(each), TOKENS) for each in (folder, file))
    torch.testing.assert_close(got[:, :KNOWN], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_shards_and_floats_of_any_type_are_read_as_they_are(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = HfFolder(write(tmp_path, dtype=dtype, shards=3))
    expected = made_up_folder.tensors("llama", dtype)
    weight = folder.weight("blk.0.attn_q.weight")
    torch.testing.assert_close(weight, expected[Q], rtol=0, atol=0)
    assert weight.untyped_storage().nbytes() == weight.nbytes
    whole = HfFolder(write(tmp_path / "whole", dtype=dtype))
    assert torch.equal(*(score(read_decoder(each), TOKENS) for each in (folder, whole)))


def test_a_head_of_its_own_is_read(tmp_path: Path) -> None:
    head = torch.ones(made_up_folder.PADDED, made_up.DIM)
    folder = write(tmp_path, said={"tie_word_embeddings": False}, more={"lm_head.weight": head})
    scores = score(read_decoder(HfFolder(folder)), TOKENS)
    torch.testing.assert_close(scores, scores[:, :1].expand_as(scores))


def test_a_tied_head_may_be_stored_as_well(tmp_path: Path) -> None:
    words = made_up_folder.tensors("llama")["model.embed_tokens.weight"]
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    more = {"lm_head.weight": words.clone(), **frequencies}
    read_decoder(HfFolder(write(tmp_path, more=more)))
    assert_refused(
        write(tmp_path, more={"lm_head.weight": words + 1}),
        r"'lm_head\.weight' differs from 'model\.embed_tokens\.weight'",
    )


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_low_frequencies_of_llama_3_are_divided(tmp_path: Path, key: str) -> None:
    """By the formula as Meta published it, for each frequency."""
    said: dict[str, Any] = {key: {**LLAMA3, "rope_theta": 500.0}}
    if key == "rope_scaling":
        said = {key: LLAMA3, "rope_theta": 500.0}
    found = read_decoder(HfFolder(write(tmp_path, said=said))).frequencies
    expected = []
    for index in range(8):
        frequency = 500.0 ** (-index / 8)
        wave = 2 * math.pi / frequency
        if wave > 64:
            frequency /= 8
        elif wave > 16:
            smooth = (64 / wave - 1) / (4 - 1)
            frequency = (1 - smooth) * frequency / 8 + smooth * frequency
        expected.append(frequency)
    torch.testing.assert_close(found, torch.tensor(expected))
    assert len({round(500.0 ** (-i / 8) / f, 3) for i, f in enumerate(expected)}) > 2


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, r"architectures is \['Mamba.*known: LlamaFor"),
        ({"architectures": None}, "architectures is missing; expected list"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor is 0\.5"),
        ({"sliding_window": 16}, "sliding_window is 16"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling: rope_type is 'yarn'; known: default"),
        ({"rope_scaling": {"rope_type": "default", "mscale": 2}}, r"rope_scaling\.mscale is 2"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, r"partial_rotary_factor is 0\.5"),
        ({"rope_scaling": {**LLAMA3, "factor": 0}}, "factor is 0"),
        ({"rope_scaling": {**LLAMA3, "high_freq_factor": 1}}, "expected numbers above 0, and"),
        ({"rope_scaling": "llama3"}, "rope_scaling is 'llama3'; expected dict"),
        ({"hidden_size": 0}, "hidden_size is 0; expected 1 or more"),
        ({"hidden_size": "64"}, "hidden_size is '64'; expected int"),
        ({"rms_norm_eps": -1}, r"rms_norm_eps is -1\.0; expected a number above 0"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"vocab_size": 5}, "has a token 259; expected less than the vocabulary of the model, 5"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'; expected bool"),
        ({"tie_word_embeddings": False}, r"has no tensor 'lm_head\.weight'"),
    ],
)
def test_what_would_change_the_results_is_named(
    tmp_path: Path, said: dict[str, Any], message: str
) -> None:
    assert_refused(write(tmp_path / "model", said=said), message)


@pytest.mark.parametrize(
    ("more", "without", "message"),
    [
        ({}, [Q], rf"has no tensor '{Q}'"),
        ({Q: torch.ones(3, 4)}, [], rf"'{Q}' has sizes \[3, 4\]; expected \[64, 64\]"),
        ({Q: torch.ones(64, 64, dtype=torch.float64)}, [], rf"'{Q}' is of type F64; known types"),
        ({"model.sinks": torch.ones(1)}, [], r"1 tensors that .*, such as 'model\.sinks'"),
        (
            {"model.layers.2.mlp.up_proj.weight": torch.ones(1)},
            [],
            r"'model\.layers\.2\.mlp\.up_proj\.weight'",
        ),
    ],
    ids=["missing", "sizes", "type", "left over", "a layer more"],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, more: dict[str, torch.Tensor], without: list[str], message: str
) -> None:
    assert_refused(write(tmp_path / "model", more=more, without=without), message)


def test_a_tensor_is_named_with_its_shard(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", more={Q: torch.ones(3, 4)}, shards=2)
    assert_refused(folder, rf"model/model-\d\.safetensors: tensor '{Q}'")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {Q: "../model-0.safetensors"}}, "expected a file's name"),
        ({"weight_map": {Q: 3}}, "expected a file's name"),
        ({"weight_map": {Q: "gone.safetensors"}}, r"gone\.safetensors cannot be read"),
        ({"weight_map": {"other": "model-0.safetensors"}}, "and it is in"),
        ({}, "weight_map is missing"),
        ([], "holds a list; expected keys"),
    ],
)
def test_an_index_that_does_not_fit_is_named(tmp_path: Path, index: Any, message: str) -> None:
    folder = write(tmp_path / "model", shards=2)
    put(folder / "model.safetensors.index.json", index)
    assert_refused(folder, message)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"\xff", b"{", b"[" * 100_000, b"{}"])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    folder = write(tmp_path / "model")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    assert_refused(folder, name.replace(".", r"\.") if content != b"{}" else "model")


def test_weights_that_end_early_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model") / "model.safetensors"
    whole = path.read_bytes()
    for size in (4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert_refused(path.parent, r"model\.safetensors cannot be read as safetensors")


class TestTokenizer:
    def test_it_is_that_of_the_same_model_as_gguf(self, tmp_path: Path) -> None:
        folder = open_tokenizer(write(tmp_path / "model"))
        file = made_up.tokenizer(tmp_path)
        for text in ("the heath", "naïve café, 東京 🙂", "<|start|>the<|end|>", ""):
            assert folder.encode(text) == file.encode(text)
            assert folder.decode(folder.encode(text)) == file.decode(file.encode(text))
        messages = [{"role": "user", "content": "hi"}]
        assert folder.chat(messages) == file.chat(messages)
        assert (folder.size, folder.begin, folder.ends) == (made_up_folder.PADDED, None, (END, 0))
        assert folder.decode([made_up_folder.PADDED - 1]) == ""

    @pytest.mark.parametrize(
        ("begins", "adds", "expected"),
        [
            (True, None, BEGIN),
            (True, False, None),
            (False, True, BEGIN),
            (False, None, None),
        ],
    )
    def test_texts_begin_as_the_files_say(
        self, tmp_path: Path, begins: bool, adds: bool | None, expected: int | None
    ) -> None:
        folder = write(tmp_path, begins=begins, settings={"add_bos_token": adds})
        made = open_tokenizer(folder)
        assert made.begin == expected
        assert len(made.encode("a")) == (1 if expected is None else 2)

    @pytest.mark.parametrize("begins", [False, True])
    def test_it_is_stored_and_read_back(self, tmp_path: Path, begins: bool) -> None:
        made = open_tokenizer(write(tmp_path, begins=begins))
        read = unpack_tokenizer(Path("some.pte"), pack_tokenizer(made))
        assert read.source == made.source
        assert (read.size, read.begin, read.ends) == (made.size, made.begin, made.ends)
        assert read.encode("the heath") == made.encode("the heath")

    def test_a_template_of_its_own_file_comes_first(self, tmp_path: Path) -> None:
        folder = write(tmp_path)
        (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ eos_token }}")
        assert open_tokenizer(folder).chat([]) == "<|start|><|end|>"

    def test_of_several_templates_the_default_is_taken(self, tmp_path: Path) -> None:
        templates = [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]
        folder = write(tmp_path, settings={"chat_template": templates})
        assert open_tokenizer(folder).chat([]) == "d"
        folder = write(tmp_path, settings={"chat_template": templates[:1]})
        assert not open_tokenizer(folder).has_template

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"bos_token": "<s>"}, "bos_token is '<s>', which is no token"),
            ({"eos_token": 3}, "eos_token is 3, which is no token"),
            ({"bos_token": None, "add_bos_token": True}, "there is no bos_token"),
            ({"add_bos_token": "yes"}, "add_bos_token is 'yes'; expected bool"),
            ({"chat_template": 3}, "chat_template is a int; expected text"),
            ({"chat_template": "\ud800"}, "cannot be written as UTF-8"),
        ],
    )
    def test_settings_that_do_not_fit_are_named(
        self, tmp_path: Path, settings: dict[str, Any], message: str
    ) -> None:
        folder = write(tmp_path, settings=settings)
        with pytest.raises(ModelError, match=message):
            open_tokenizer(folder)

    def test_ends_are_those_of_the_config_where_nothing_else_says(self, tmp_path: Path) -> None:
        folder = write(tmp_path, said={"eos_token_id": 7})
        (folder / "generation_config.json").unlink()
        assert open_tokenizer(folder).ends == (END, 7)
        put(folder / "generation_config.json", {"eos_token_id": [10**30]})
        with pytest.raises(ModelError, match="expected one of the 264 tokens"):
            open_tokenizer(folder)

    @pytest.mark.parametrize(
        ("place", "value", "message"),
        [
            (("post_processor", "single", 0, "SpecialToken", "id"), "x", "makes no tokens"),
            (("model", "merges", 0, 1), "Ġ", "makes no tokenizer"),
            (("model", "vocab", "a"), -1, "makes no tokenizer"),
            (("post_processor", "special_tokens", "<|start|>", "ids"), [1, 2], "or one before"),
        ],
        ids=["a panic in use", "a panic in reading", "an error", "two tokens"],
    )
    def test_a_tokenizer_that_fails_is_an_error(
        self, tmp_path: Path, place: tuple[str | int, ...], value: Any, message: str
    ) -> None:
        path = write(tmp_path / "model", begins=True) / "tokenizer.json"
        said = json.loads(path.read_text())
        inner = said
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        put(path, said)
        with pytest.raises(ModelError, match=rf"model/tokenizer\.json: .*{message}"):
            open_tokenizer(path.parent)

    @pytest.mark.parametrize("key", JSON_KEYS)
    def test_values_of_any_kind_make_a_tokenizer_or_an_error(
        self, tmp_path: Path, key: str
    ) -> None:
        """As a damaged or hostile .pte may hold."""
        source = open_tokenizer(write(tmp_path, begins=True)).source
        values = [None, True, -1, 259, 10**30, 0.5, "", "x", "\ud800", {}, [], [1], [-1], ["a"]]
        made = 0
        for value in values:
            try:
                tokenizer = Tokenizer(Metadata("file", {**source, key: value}))
                tokenizer.decode(tokenizer.encode("the heath, é"))
                tokenizer.chat([{"role": "user", "content": "hi"}])
            except ModelError as error:
                assert "file" in str(error)
            else:
                made += 1
        assert made < len(values)

    def test_other_kinds_are_named(self, tmp_path: Path) -> None:
        folder = write(tmp_path)
        put(
            folder / "tokenizer.json",
            {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}},
        )
        with pytest.raises(ModelError, match="tokenizer of kind 'WordLevel'; known: 'BPE'"):
            open_tokenizer(folder)
