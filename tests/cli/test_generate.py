"""`orchestrator generate`."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from orchestrator.cli import generate, main
from tests.llm import made_up


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(made_up.alphabet(tmp_path_factory.mktemp("llm") / "abc.pte"))


def test_an_answer_goes_to_the_output_and_its_speed_elsewhere(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", file, "--raw", "--prompt", "uvw"]) == 0
    out, err = capsys.readouterr()
    assert out == "xyz\n"
    assert err.startswith("prompt: 3 tokens, ")
    assert "; answer: 3 tokens, " in err
    assert err.endswith("ended by the model\n")


@pytest.mark.parametrize("chat", [[], ["--chat"]])
def test_prompts_are_messages_where_there_is_a_template(
    file: str, capsys: pytest.CaptureFixture[str], chat: list[str]
) -> None:
    arguments = ["generate", file, "--prompt", "abc", "--max-new-tokens", "3", *chat]
    assert main(arguments) == 0
    assert capsys.readouterr().out == "qrs\n"


def test_options_reach_the_model(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", file, "--raw", "--prompt", "a", "--threads", "1"]
    assert main([*arguments, "--stop", "zz", "--stop", "f"]) == 0
    out, err = capsys.readouterr()
    assert (out, "ended by a stop text" in err) == ("bcde\n", True)
    texts = []
    for seed, top_p in (("1", "1"), ("1", "1"), ("2", "1"), ("1", "0.001")):
        drawn = ["--temperature", "3", "--max-new-tokens", "8", "--seed", seed, "--top-p", top_p]
        assert main([*arguments, *drawn]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[3] == "bcdefghi\n"


def test_a_prompt_comes_from_the_input(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for data, code, shown in ((b"a\nb\n", 0, "cdefgh"), (b"\xff", 1, "input is not UTF-8")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        given = ["generate", file, "--raw", "--prompt", "-", "--max-new-tokens", "6"]
        assert main(given) == code
        assert shown in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--raw", "--prompt", "a" * 40], "prompt has 40 tokens, and the context holds 32"),
        (["--raw", "--prompt", ""], "the prompt has no tokens"),
        (["--raw", "--prompt", "a\udcff"], "cannot be written as UTF-8"),
        (["--prompt", "a", "--temperature", "-1"], "temperature is -1"),
        (["--prompt", "a", "--tokenizer", "gone.gguf"], "gone.gguf is not a file"),
    ],
    ids=["long", "empty", "bytes", "option", "tokenizer"],
)
def test_what_cannot_be_done_is_one_line(
    file: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["generate", file, *arguments]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_chat_or_raw(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["generate", file, "--prompt", "a", "--chat", "--raw"])
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C is an exception, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_ends_the_text(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = generate._printer

    def printer() -> Callable[[str], None]:
        show = make()

        def shows(piece: str) -> None:
            show(piece)
            if piece == "d":
                signal.raise_signal(signal.SIGINT)

        return shows

    monkeypatch.setattr(generate, "_printer", printer)
    assert main(["generate", file, "--raw", "--prompt", "a"]) == 130
    out, err = capsys.readouterr()
    assert out == "bcd\n"
    told, interrupted = err.splitlines()
    assert told.startswith("prompt: 1 token, ")
    assert "answer: 3 tokens" in told
    assert told.endswith("ended by Ctrl-C")
    assert interrupted == "orchestrator: interrupted"


def test_a_model_cannot_command_the_terminal() -> None:
    """The alphabet has no control characters, so the printer is asked itself."""
    script = "from orchestrator.cli.generate import _printer; _printer()('a\\x1b[2J\\tb\\n\\x9b')"
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", script], stdout=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 100).decode()
    os.close(ours)
    assert shown == "a�[2J\tb\r\n�"
    piped = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert piped.stdout.decode() == "a\x1b[2J\tb\n\x9b"
