"""The terminal at which the user is asked. With real terminals: tests/system/test_cli_admission.py, `TestPrompt`."""

import io
import sys

import pytest

from toolkit.cli.prompt import Terminal, user_terminal


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "answer", "shown"),
    [
        ("7 ocean\n", "7 ocean", "which? "),
        ("  7 ocean \r\n", "7 ocean", "which? "),
        ("\n", "", "which? "),
        ("", None, "which? \n"),
        ("7 oc", None, "which? \n"),
    ],
)
def test_a_question_returns_one_whole_line(typed: str, answer: str | None, shown: str) -> None:
    screen = Screen()
    assert Terminal(io.StringIO(typed + "more\n" * typed.endswith("\n")), screen).ask("which? ") == answer
    assert screen.getvalue() == shown


def test_a_question_that_is_interrupted_ends_its_line() -> None:
    class Interrupted(io.StringIO):
        def readline(self, _size: int | None = -1, /) -> str:
            raise KeyboardInterrupt

    screen = Screen()
    with pytest.raises(KeyboardInterrupt):
        Terminal(Interrupted(), screen).ask("which? ")
    assert screen.getvalue() == "which? \n"


@pytest.mark.parametrize("is_stdin", [True, False])
@pytest.mark.parametrize("is_stderr", [True, False])
def test_without_a_controlling_terminal_stdin_and_stderr_have_to_be_one(
    is_stdin: bool, is_stderr: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Screen("yes\n") if is_stdin else io.StringIO("yes\n"))
    monkeypatch.setattr(sys, "stderr", Screen() if is_stderr else io.StringIO())
    with user_terminal() as terminal:
        assert (terminal is not None) == (is_stdin and is_stderr)
        assert terminal is None or terminal.ask("really? ") == "yes"
