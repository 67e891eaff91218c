"""No command accepts an empty value: a script passes one where a variable of its shell is not set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli_process import complaint, nettool_here
from toolkit.cli.app import COMMANDS, load
from toolkit.cli.config_file import CONFIG_VARIABLE


def parameters(command: str) -> Iterator[Any]:
    """Yield the parameters of a command that take a value, as click has them; not what belongs to another program."""
    for parameter in load(command.split()[-1], COMMANDS[command][0]).params:
        if not getattr(parameter, "is_flag", False) and parameter.metavar != "[-- COMMAND...]":
            yield parameter


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_and_no_argument_may_be_empty(command: str) -> None:
    options = [name for one in parameters(command) if one.param_type_name == "option" for name in one.opts]
    arguments = [""] * sum(one.param_type_name == "argument" for one in parameters(command))
    for words in [[name, ""] for name in options] + [arguments] * bool(arguments):
        # With --help, a command that accepts the value ends, too.
        ended = nettool_here(*command.split(), *words, "--help")
        assert ended.code == 2, words
        assert "is empty, often because a variable of the shell is not set: set it" in complaint(ended)


def test_the_message_names_what_is_empty(tmp_path: Path) -> None:
    assert "nettool: --dir is empty" in complaint(nettool_here("recv", "--bind", "0.0.0.0", "--dir", "", "--help"))
    assert "nettool: --size is empty" in complaint(nettool_here("sim", "--size="))
    assert "nettool: --count is empty" in complaint(nettool_here("ping", "-c", "", "192.0.2.7"))
    assert "nettool: --exclude is empty" in complaint(nettool_here("send", "--exclude", "a", "--exclude", "", "b", "c"))
    assert "nettool: DIR is empty" in complaint(nettool_here("clean", "", cwd=tmp_path))
    assert "nettool: HOST[:PORT] is empty" in complaint(nettool_here("talk", ""))
    assert "nettool: one of FILE... HOST[:PORT] is empty" in complaint(nettool_here("send", "", "192.0.2.7"))


def test_a_directory_is_not_cleaned_because_the_name_of_another_is_empty(tmp_path: Path) -> None:
    leftover = tmp_path / ".nettool-0123456789abcdef.part"
    leftover.write_bytes(b"unfinished")
    assert nettool_here("clean", "--older-than", "0s", "", cwd=tmp_path).code == 2
    assert leftover.exists()
    assert nettool_here("clean", "--older-than", "0s", ".", cwd=tmp_path).code == 0
    assert not leftover.exists()


def test_a_default_of_the_user_is_not_empty_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[recv]\ndir = ""\n')
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    assert "'dir' of 'recv' is empty" in complaint(nettool_here("recv", "--help"))
    config.write_text('[send]\nexclude = ["*.o", ""]\n')
    assert "'exclude' of 'send' is empty" in complaint(nettool_here("send", "a", "b"))


def test_a_program_behind_a_link_may_have_empty_arguments() -> None:
    ended = nettool_here("link", "--", "no-such-program", "")
    assert "command 'no-such-program' not found" in complaint(ended)
