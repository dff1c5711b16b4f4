"""Carrying a tokenizer and its chat template inside a .pte, as named data.

What is stored is the metadata that the tokenizer was made of: that of a GGUF file, or the text of a
tokenizer.json with what a Hugging Face folder says beside it. So there is one way to make one.
Names of tokens compress to a third: 49,152 of them, with as many merges, take half a megabyte.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.metadata import Metadata
from orchestrator.llm.tokenizer import Tokenizer
from orchestrator.llm.tokenizer_keys import JSON
from orchestrator.report.pte import read_named_data

KEY = "orchestrator.tokenizer"
# Of GGUF's own keys, and with a tokenizer.json, which earlier versions do not read.
_OWN_KEYS, _WHOLE = 1, 2
# Far more than any vocabulary; a bound for damaged files.
_MAX_BYTES = 1 << 28


def pack_tokenizer(tokenizer: Tokenizer) -> bytes:
    """Return what a program is to carry under `KEY`."""
    kind = _WHOLE if JSON in tokenizer.source else _OWN_KEYS
    said = {"format": kind, "metadata": dict(tokenizer.source)}
    return zlib.compress(json.dumps(said).encode(), zlib.Z_BEST_COMPRESSION)


def read_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer inside a .pte.

    Raises:
        ModelError: there is none, or a damaged one, or one of a later version.
        PteError: not an ExecuTorch program, or a damaged one.
        OSError: the file cannot be read.
    """
    data = read_named_data(path, KEY)
    if data is None:
        raise ModelError(
            f"{path} holds no tokenizer: lower_llm did not make it, or did before tokenizers were "
            "stored; name the GGUF file or folder that it was made of, LanguageModel.load(path, "
            "tokenizer=FILE) or `orchestrator generate --tokenizer FILE`"
        )
    return unpack_tokenizer(path, data)


def unpack_tokenizer(path: Path, data: bytes) -> Tokenizer:
    """Return what `pack_tokenizer` packed; path: what errors call the file that holds it.

    Raises:
        ModelError: it is damaged, or of a later version.
    """
    return Tokenizer(Metadata(str(path), _unpack(path, data)))


def _unpack(path: Path, data: bytes) -> dict[str, object]:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, _MAX_BYTES)
        if not unpacker.eof:
            raise ValueError("it is cut off or too large")
        said = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as error:
        raise ModelError(f"the tokenizer in {path} is damaged: {error}") from error
    if not isinstance(said, dict) or not isinstance(said.get("format"), int):
        raise ModelError(f"the tokenizer in {path} is damaged: its format is not said")
    if said["format"] not in (_OWN_KEYS, _WHOLE):
        raise ModelError(
            f"the tokenizer in {path} has format {said['format']}; this version reads "
            f"{_OWN_KEYS} and {_WHOLE}: use the version that made it, or name the GGUF file or "
            "folder that it was made of"
        )
    metadata = said.get("metadata")
    if not isinstance(metadata, dict):
        raise ModelError(f"the tokenizer in {path} is damaged: it holds no metadata")
    return metadata
