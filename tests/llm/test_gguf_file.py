"""What GGUF files hold is read as the format's own library reads it."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from orchestrator import ModelError
from orchestrator.llm.blocks import BLOCKS, GroupedWeight
from orchestrator.llm.families import read_decoder
from orchestrator.llm.gguf_file import GgufFile, quick_reader
from tests.llm import made_up

LIMITS = {
    Type.Q4_0: (-8, 7),
    Type.Q4_1: (0, 15),
    Type.Q5_0: (-16, 15),
    Type.Q5_1: (0, 31),
    Type.Q8_0: (-127, 127),
}


@pytest.mark.parametrize("kind", LIMITS, ids=lambda kind: kind.name)
def test_integers_of_blocks_stand_for_what_the_library_expands(tmp_path: Path, kind: Type) -> None:
    random = np.random.default_rng(3)
    value = random.standard_normal((6, 96)).astype(np.float32)
    value[0, :32] = 0  # a block whose scale is 0
    path = made_up.write(tmp_path / "file.gguf", kinds=kind, more={"matrix.weight": value})
    weight = GgufFile(path).weight("matrix.weight")
    assert isinstance(weight, GroupedWeight)
    expected = gguf.quants.dequantize(gguf.quants.quantize(value, kind), kind)
    torch.testing.assert_close(weight.floats(), torch.from_numpy(expected), rtol=0, atol=0)
    low, high = LIMITS[kind]
    assert low <= int(weight.integers.min()) < int(weight.integers.max()) <= high
    assert weight.scales.dtype == torch.float16


@pytest.mark.parametrize("name", BLOCKS)
def test_any_bytes_of_a_block_stand_for_what_the_library_expands(name: str) -> None:
    """The library makes no blocks of some types itself."""
    size, read = BLOCKS[name]
    blocks = np.random.default_rng(3).integers(0, 256, (5, 3, size), dtype=np.uint8)
    # As half floats, any two bytes of these are finite numbers.
    blocks[:, :, :] = np.where(blocks & 0x7C == 0x7C, blocks & 0x83, blocks)
    weight = read(blocks)
    expected = gguf.quants.dequantize(blocks.reshape(5, -1), Type[name])
    torch.testing.assert_close(weight.floats(), torch.from_numpy(expected), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(Type.F32, torch.float32), (Type.F16, torch.float16), (Type.BF16, torch.bfloat16)],
)
def test_floats_keep_their_type(tmp_path: Path, kind: Type, dtype: torch.dtype) -> None:
    value = np.random.default_rng(3).standard_normal((6, 64)).astype(np.float32)
    path = made_up.write(tmp_path / "file.gguf", kinds=kind, more={"matrix.weight": value})
    weight = GgufFile(path).weight("matrix.weight")
    torch.testing.assert_close(weight, torch.from_numpy(value).to(dtype), rtol=0, atol=0)


def test_an_unknown_type_is_named(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "file.gguf", kinds={"ffn_up": Type.MXFP4})
    with pytest.raises(
        ModelError, match=r"'blk.0.ffn_up.weight' is of type MXFP4; known types: F32"
    ):
        read_decoder(GgufFile(path))


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "file.gguf", "mamba")
    with pytest.raises(ModelError, match="architecture 'mamba'; known: llama, qwen2, qwen3"):
        read_decoder(GgufFile(path))


def test_a_tensor_that_nothing_reads_is_named(tmp_path: Path) -> None:
    more = {"blk.0.attn_sinks.weight": np.ones(4, np.float32)}
    path = made_up.write(tmp_path / "file.gguf", more=more)
    with pytest.raises(ModelError, match=r"1 tensors .* such as 'blk\.0\.attn_sinks\.weight'"):
        read_decoder(GgufFile(path))


@pytest.mark.parametrize(
    ("key", "value"),
    [("expert_count", 8), ("rope.scaling.type", "yarn"), ("attention.sliding_window", 16)],
)
def test_what_would_change_the_results_is_named(tmp_path: Path, key: str, value: int | str) -> None:
    path = made_up.write(tmp_path / "file.gguf", metadata={key: value})
    with pytest.raises(ModelError, match=f"llama.{key} is {value!r}"):
        read_decoder(GgufFile(path))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attention.head_count", 0, r"attention\.head_count is 0; expected 1 or more"),
        ("attention.head_count", 3, "3 heads of 21 for 2 of keys"),
        (
            "attention.head_count_kv",
            4,
            r"'blk\.0\.attn_k\.weight' has sizes \[32, 64\]; .* \[64, 64\]",
        ),
        ("block_count", "two", r"block_count is 'two'; expected int"),
    ],
)
def test_sizes_that_do_not_fit_are_named(
    tmp_path: Path, key: str, value: int | str, message: str
) -> None:
    path = made_up.write(tmp_path / "file.gguf", metadata={key: value})
    with pytest.raises(ModelError, match=message):
        read_decoder(GgufFile(path))


def test_a_context_that_the_model_is_not_made_for_is_refused(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "file.gguf")
    with pytest.raises(ModelError, match=r"33 tokens; file\.gguf is made for 2 to 32"):
        read_decoder(GgufFile(path), 33)


@pytest.mark.parametrize("content", [b"", b"no GGUF at all, but long enough for a header", None])
def test_other_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match="is not a file" if content is None else "as GGUF"):
        GgufFile(path)


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "file.gguf")
    path.write_bytes(path.read_bytes()[:-50_000])
    with pytest.raises(ModelError, match="as GGUF"):
        GgufFile(path)


def of_all_kinds(path: Path, endianess: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE) -> Path:
    """Write a file with arrays of all kinds in its metadata, and a tensor."""
    writer = gguf.GGUFWriter(path, "llama", endianess=endianess)
    for name, values in {
        "integers": [1, -2, 3],
        "floats": [0.5, -1e30],
        "truths": [True, False, True],
        "strings": ["", "ä", "\n" * 300, "end"],
        "nested": [[1, 2], [3, 4]],
    }.items():
        writer.add_array(f"array.{name}", values)
    writer.add_array("array.bytes", b"\0\xff")
    writer.add_string("after", "all of them")
    writer.add_tensor("matrix.weight", np.arange(64, dtype=np.float32).reshape(2, 32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("endianess", list(gguf.GGUFEndian), ids=lambda each: each.name)
def test_metadata_is_what_the_library_reads(tmp_path: Path, endianess: gguf.GGUFEndian) -> None:
    path = of_all_kinds(tmp_path / "file.gguf", endianess)
    ours, theirs = quick_reader()(path), gguf.GGUFReader(path)
    assert list(ours.fields) == list(theirs.fields)
    for key, field in theirs.fields.items():
        found, expected = ours.fields[key].contents(), field.contents()
        assert found == expected, key
        if isinstance(expected, list):
            assert list(map(type, found)) == list(map(type, expected)), key
    for found, expected in zip(ours.tensors, theirs.tensors, strict=True):
        assert (found.name, found.data_offset) == (expected.name, expected.data_offset)
        np.testing.assert_array_equal(found.data, expected.data)


def test_a_file_that_ends_anywhere_is_refused(tmp_path: Path) -> None:
    whole = of_all_kinds(tmp_path / "file.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for size in range(len(whole) - 64):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="as GGUF"):
            GgufFile(path)


@pytest.mark.parametrize("count", [2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("name", ["integers", "strings"])
def test_an_array_longer_than_its_file_is_refused(tmp_path: Path, name: str, count: int) -> None:
    path = of_all_kinds(tmp_path / "file.gguf")
    data = bytearray(path.read_bytes())
    key = f"array.{name}".encode()
    place = data.index(key) + len(key) + 8
    data[place : place + 8] = count.to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(ModelError, match=f"ends inside an array of {count} elements"):
        GgufFile(path)
