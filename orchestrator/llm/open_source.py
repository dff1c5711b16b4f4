"""Which format a language model is in."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from orchestrator.llm.executorch_transformer import ExecutorchTransformer
from orchestrator.llm.gguf_file import GgufFile
from orchestrator.llm.hf_folder import HfFolder
from orchestrator.llm.hf_tokenizer import tokenizer_metadata
from orchestrator.llm.source import Source
from orchestrator.llm.tokenizer import Tokenizer


def open_source(given: str | os.PathLike[str] | nn.Module) -> Source:
    """Open a Hugging Face folder, or else a GGUF file; or read a transformer of ExecuTorch's.

    Raises:
        ModelError: it is none of these, or says what is not known here.
        ImportError: a package of the extra `llm` is not installed.
    """
    if isinstance(given, nn.Module):
        return ExecutorchTransformer(given)
    return HfFolder(given) if Path(given).is_dir() else GgufFile(given)


def open_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Return the tokenizer of a Hugging Face folder, which needs no weights, or of a GGUF file.

    Raises:
        As `open_source`.
    """
    path = Path(path)
    return Tokenizer(tokenizer_metadata(path) if path.is_dir() else GgufFile(path))
