"""What a language model is read from, whatever the files' format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from orchestrator.llm.blocks import Weight
from orchestrator.llm.metadata import Metadata


class Source(Metadata):
    """Sizes, weights and tokenizer of a model, by the names that GGUF has for them.

    The metadata hold what `families.read_config` and `Tokenizer` ask for. A format that has other
    names says its own ones in errors.
    """

    pairs_neighbours = False
    """Whether queries and keys of `llama` lie as llama.cpp's converter stores them."""

    has_tokenizer = True

    @property
    @abstractmethod
    def names(self) -> frozenset[str]:
        """The names of the tensors that the model has; a tied head is none."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """How many tokens the model scores."""

    @abstractmethod
    def weight(self, name: str) -> Weight:
        """Return a tensor in the type that it is stored in, rows first.

        Raises:
            ModelError: there is no such tensor, or its type is not known here.
        """

    @abstractmethod
    def refuse_others(self, used: Iterable[str]) -> None:
        """Refuse tensors that no part of the model has read.

        Raises:
            ModelError: there are some.
        """

    def called(self, name: str) -> str:
        """Return what errors call a tensor, with its file."""
        return f"{self.name}: tensor {name!r}"
