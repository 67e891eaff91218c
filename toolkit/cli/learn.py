"""`nettool learn`: a course on sockets, each lesson a page and an experiment that runs here and now."""

import codecs
import os
import sys
from typing import Annotated

import typer

from toolkit.cli.command import command, option
from toolkit.cli.interrupts import prompt_interrupts
from toolkit.cli.options import Json
from toolkit.cli.output import print_json, print_result, result_width
from toolkit.errors import TransferError, UsageError
from toolkit.learn.course import COURSE, Language, language_of, lesson

_WIDTH = 80
_MORE = {
    Language.ENGLISH: "A lesson: nettool learn 1, or nettool learn sockets",
    Language.KOREAN: "수업 보기: nettool learn 1 또는 nettool learn sockets",
}
_NEXT = {Language.ENGLISH: "Next: nettool learn", Language.KOREAN: "다음 수업: nettool learn"}


def _names() -> list[tuple[str, str]]:
    """Return what the tab key offers: the name of each lesson and its title, which zsh and fish show beside it."""
    return [(one.name, one.title(language_of(os.environ))) for one in COURSE]


@command
def learn(
    topic: Annotated[
        str, typer.Argument(metavar="[TOPIC]", help="Number or name of a lesson.", autocompletion=_names)
    ] = "",
    lang: Annotated[
        Language | None, option("--lang", metavar="LANG", text="Language: en or ko.", default="that of the locale")
    ] = None,
    json: Json = False,
) -> None:
    """Take a course on sockets: how programs on two machines talk.

    Each lesson is a page of text and an experiment, which runs on this machine in a second or two, without root, and
    explains what has happened. Without TOPIC, the lessons are listed. The same text is in docs/learn.md, and in Korean
    in docs/learn.ko.md.

    \b
    Examples:
      nettool learn
      nettool learn 4
      nettool learn handshake --lang ko
    """
    language = lang or language_of(os.environ)
    if not json:
        _check_letters(language)
    if not topic and json:
        lessons = [{"number": one.number, "name": one.name, "title": one.title(language)} for one in COURSE]
        print_json("lessons", {"lessons": lessons})
        return
    if not topic:
        rows = [f"{one.number:>4}  {one.name:<12}{one.title(language)}" for one in COURSE]
        print_result("\n".join([*rows, "", _MORE[language]]))
        return
    chosen = lesson(topic)
    try:
        with prompt_interrupts():
            values = chosen.experiment()
    except OSError as error:
        reason = error.strerror or str(error)
        raise TransferError(f"the experiment cannot run here: {reason}; docs/learn.md shows it elsewhere") from None
    text = chosen.page(language, values)
    if json:
        print_json("lesson", {"name": chosen.name, "language": language, "values": values, "text": text})
        return
    if chosen.number < len(COURSE):
        option_text = "" if lang is None else f" --lang {lang}"
        text += f"\n{_NEXT[language]} {COURSE[chosen.number].name}{option_text}"
    print_result(_shown(text))


def _check_letters(language: Language) -> None:
    """Raise UsageError if standard output cannot hold the letters of a language."""
    encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
    try:
        COURSE[0].title(language).encode(encoding)
    except UnicodeEncodeError:
        raise UsageError(
            f"standard output has no letters for --lang {language} ({encoding}): set a UTF-8 locale"
        ) from None


def _shown(text: str) -> str:
    """Return Markdown as a terminal shows it; in a pipe, or without UTF-8, as it is."""
    if sys.stdout is None or not sys.stdout.isatty() or codecs.lookup(sys.stdout.encoding).name != "utf-8":
        return text
    from rich.console import Console  # takes a tenth of a second
    from rich.markdown import Markdown

    console = Console(width=result_width(_WIDTH), highlight=False)
    with console.capture() as capture:
        console.print(Markdown(text, code_theme="ansi_dark", hyperlinks=False))
    return capture.get().rstrip("\n")
