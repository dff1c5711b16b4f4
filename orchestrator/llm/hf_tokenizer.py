"""The tokenizer of a Hugging Face folder, by the names that GGUF has for what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.extra import failing_as
from orchestrator.llm.hf_config import CONFIG, read_json
from orchestrator.llm.metadata import Metadata
from orchestrator.llm.tokenizer import read_whole
from orchestrator.llm.tokenizer_keys import ADDS, ENDS, JSON, SIZE, TEMPLATE, token_key

_FILE, _SETTINGS = "tokenizer.json", "tokenizer_config.json"


def tokenizer_metadata(folder: Path) -> Metadata:
    """Return what `Tokenizer` is to be made of.

    Texts begin with a token where `add_bos_token` of tokenizer_config.json says so or, if it does
    not say, where the post-processor of tokenizer.json adds one. They end with the tokenizer's
    eos_token, and with those of generation_config.json or, without these, of config.json.

    Raises:
        ModelError: a file is missing or damaged, or names a token that there is not.
        ImportError: the package tokenizers is not installed.
    """
    settings = read_json(folder, _SETTINGS, optional=True)
    config = read_json(folder, CONFIG)
    if not (folder / _FILE).is_file():
        raise ModelError(f"{folder} has no {_FILE}; a fast tokenizer's save_pretrained writes one")
    try:
        text = (folder / _FILE).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder.name}/{_FILE} cannot be read: {error}") from error
    said: dict[str, Any] = {
        JSON: text,
        SIZE: config.get_size("vocab_size"),
        ENDS: _ends(read_json(folder, "generation_config.json", optional=True), config),
    }
    library = read_whole(Metadata(f"{folder.name}/{_FILE}", said))
    begin = _named(settings, "bos_token", library)
    added = _added(f"{folder.name}/{_FILE}", library)
    if settings.metadata.get("add_bos_token") is None:
        said[ADDS] = added is not None
        begin = begin if added is None else added
    else:
        said[ADDS] = settings.get("add_bos_token", bool)
        if said[ADDS] and begin is None:
            raise ModelError(f"{settings.name}: add_bos_token is True, and there is no bos_token")
    for kind, token in (("bos", begin), ("eos", _named(settings, "eos_token", library))):
        if token is not None:
            said[token_key(kind)] = token
    template = _template(folder, settings)
    if template is not None:
        said[TEMPLATE] = template
    return Metadata(folder.name, said)


def _named(settings: Metadata, key: str, library: Any) -> int | None:
    """Return the id of a token that the settings name; None if they do not."""
    name = settings.metadata.get(key)
    if isinstance(name, dict):
        name = name.get("content")
    if name is None:
        return None
    token = library.token_to_id(name) if isinstance(name, str) else None
    if token is None:
        raise ModelError(f"{settings.name}: {key} is {name!r}, which is no token of {_FILE}")
    return int(token)


def _added(name: str, library: Any) -> int | None:
    """Return the token that the post-processor puts before texts; None if it adds nothing.

    Raises:
        ModelError: it adds something else.
    """
    with failing_as(f"{name}: it makes no tokens of a text"):
        bare, whole = (library.encode("a", add_special_tokens=each).ids for each in (False, True))
    if whole == bare:
        return None
    if whole[1:] != bare:
        raise ModelError(
            f"{name}: its post-processor makes {whole} of the tokens {bare}; expected none more, "
            "or one before them"
        )
    return int(whole[0])


def _ends(generation: Metadata, config: Metadata) -> list[int]:
    for said in (generation, config):
        value = said.metadata.get("eos_token_id")
        if isinstance(value, list):
            return said.get_list("eos_token_id", int)
        if value is not None:
            return [said.get("eos_token_id", int)]
    return []


def _template(folder: Path, settings: Metadata) -> str | None:
    """Return the chat template; of several, the one of the name "default"."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder.name}/{path.name} cannot be read: {error}") from error
    said = settings.metadata.get("chat_template")
    if isinstance(said, list):
        named = [each for each in said if isinstance(each, dict) and each.get("name") == "default"]
        said = named[0].get("template") if named else None
    if said is not None and not isinstance(said, str):
        raise ModelError(
            f"{settings.name}: chat_template is a {type(said).__name__}; expected text, or a list "
            "of templates with names"
        )
    return said
