"""A text, or a conversation, whose keys and values stay in caches of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from torch import Tensor

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.generate import Generation, generate, in_chunks
from orchestrator.llm.sampling import Sampling
from orchestrator.llm.stored_session import read_session, write_session
from orchestrator.llm.tokenizer import Message, Tokenizer
from orchestrator.native import NativeProgram


class Session:
    """Caches that remember what was run last; `LanguageModel.session` makes them.

    A prompt that begins as what the caches hold is run from where it differs: of a conversation
    that goes on, only what is new. What is generated is what would be without them. Sessions may be
    used at once, each by one thread at a time.
    """

    def __init__(
        self,
        program: NativeProgram,
        methods: Sequence[str],
        tokenizer: Tokenizer,
        context: int,
        chunk: int,
        fingerprint: Callable[[], str],
    ) -> None:
        """Start with empty caches.

        program: loaded for this session alone. methods: for several tokens and for one, or one for
            both; see `LanguageModel`. fingerprint: tells the program from others, for files.
        """
        self._program, self._tokenizer, self._context = program, tokenizer, context
        self._fingerprint = fingerprint
        several, single = (self._method(name) for name in (methods[0], methods[-1]))
        self._decode = in_chunks(several, single, chunk)
        self._held: list[int] = []

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens whose keys and values the caches hold."""
        return tuple(self._held)

    def reset(self) -> None:
        """Forget what the caches hold."""
        self._held.clear()

    def generate(
        self,
        prompt: str | Sequence[Message],
        max_new_tokens: int = 256,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        stream: Callable[[str], None] | None = None,
    ) -> Generation:
        """Continue a text, or answer a conversation, both given from their beginning.

        See `LanguageModel.generate` for the arguments and for what it raises.
        """
        sampling = Sampling(temperature, top_p, seed)
        if isinstance(prompt, str):
            tokens = self._tokenizer.encode(prompt)
        else:
            # The template writes the token that begins a text itself.
            tokens = self._tokenizer.encode(self._tokenizer.chat(prompt), begin=False)
        return generate(
            self._decode,
            self._tokenizer,
            tokens,
            context=self._context,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
            stream=stream,
            held=self._held,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the caches, and the tokens that they hold, for `restore`.

        The file is about as large as the caches, however many tokens they hold. One that is there
        already is replaced only once all is written.

        Raises:
            OSError: the file cannot be written.
        """
        write_session(path, self._fingerprint(), self._held, self._program.state())

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go on from what `save` wrote, here or elsewhere, with the same program.

        Raises:
            ModelError: not a session, a damaged one, or one of another program. The session is as
                it was then.
            OSError: the file cannot be read.
        """
        held, state = read_session(path, self._fingerprint(), self._context, self._tokenizer.size)
        try:
            self._program.restore(state)
        except ValueError as error:
            raise ModelError(f"{path} is a damaged session: {error}") from error
        self._held[:] = held

    def _method(self, name: str) -> Callable[[Tensor, Tensor], Tensor]:
        def run(tokens: Tensor, positions: Tensor) -> Tensor:
            # A run that fails may have changed the caches from here on.
            del self._held[int(positions[0]) :]
            (scores,) = self._program.run(name, [tokens, positions])
            assert isinstance(scores, Tensor)
            self._held += tokens[0].tolist()
            return scores

        return run
