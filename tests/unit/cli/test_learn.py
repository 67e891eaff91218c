"""`nettool learn`: the list of lessons, and a lesson in a pipe and in a terminal."""

import errno
import io
import json
import os
import sys
from typing import NoReturn

import pytest

from toolkit.cli.app import invoke
from toolkit.errors import TransferError, UsageError
from toolkit.learn.course import COURSE, Language


@pytest.mark.parametrize("language", Language)
def test_without_a_topic_all_lessons_are_listed(language: Language, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["learn", "--lang", language]) == 0
    lines = capsys.readouterr().out.splitlines()
    for number, (one, line) in enumerate(zip(COURSE, lines, strict=False), 1):
        assert line.split(maxsplit=2) == [str(number), one.name, one.title(language)]


@pytest.mark.parametrize(("locale", "title"), [("ko_KR.UTF-8", "# 소켓과 포트"), ("C.UTF-8", "# Socket and port")])
def test_a_lesson_comes_in_the_language_of_the_locale_with_the_values_of_its_experiment(
    locale: str, title: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    assert invoke(["learn", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(title)
    assert "HELLO" in shown
    assert "{" not in shown
    assert shown.rstrip().endswith("nettool learn ports")


def test_the_next_lesson_keeps_the_language(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["learn", "loss", "--lang", "ko"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("nettool learn congestion --lang ko")


def test_a_language_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="Invalid value for '--lang': 'fr' is not one of 'en', 'ko'"):
        invoke(["learn", "1", "--lang", "fr"])


def test_json_holds_the_list_or_the_page_with_the_values_of_the_experiment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert invoke(["learn", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed["lessons"]] == [one.name for one in COURSE]
    assert invoke(["learn", "--json", "sockets", "--lang", "ko"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["language"]) == ("sockets", "ko")
    assert shown["values"]["server_port"] in shown["text"]


def test_a_terminal_without_the_letters_of_a_language_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.TextIOWrapper(io.BytesIO(), "latin-1")
    monkeypatch.setattr(sys, "stdout", output)
    assert invoke(["learn", "--lang", "en"]) == 0
    assert invoke(["learn", "--lang", "ko", "--json"]) == 0  # JSON escapes them
    with pytest.raises(UsageError, match="no letters for --lang ko"):
        invoke(["learn", "--lang", "ko"])


def test_an_experiment_that_the_system_does_not_allow_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr("toolkit.learn.sockets.tcp_socket", refuse)
    with pytest.raises(TransferError, match="the experiment cannot run here: Network is unreachable"):
        invoke(["learn", "sockets"])
