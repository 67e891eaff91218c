"""The lessons in order, and their pages.

A page is a Markdown file for each language in `lessons/`, which docs/learn.md and docs/learn.ko.md are made of. Where
it shows what the experiment found, it has a name and an example: `{port=51460}`. The documents show the examples; the
command runs the experiment and shows its values.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Final

from toolkit.errors import UsageError, printable
from toolkit.learn import connections, simulated, sockets

_PLACE: Final = re.compile(r"\{(\w+)=([^{}]*)\}")
_LOCALE_VARIABLES: Final = ("LC_ALL", "LC_MESSAGES", "LANG")


class Language(StrEnum):
    """A language of the course; its value is part of the names of its pages."""

    ENGLISH = "en"
    KOREAN = "ko"


@dataclass(frozen=True, slots=True)
class Lesson:
    """A lesson; its experiment returns a text for each name on its page."""

    number: int
    name: str
    experiment: Callable[[], dict[str, str]]

    def title(self, language: Language) -> str:
        """Return the first line of the page, without its mark."""
        return self._source(language).partition("\n")[0].removeprefix("# ")

    def places(self, language: Language) -> list[str]:
        """Return the names on the page."""
        return [found[1] for found in _PLACE.finditer(self._source(language))]

    def page(self, language: Language, values: Mapping[str, str] | None = None) -> str:
        """Return the page in Markdown, with `values` or, without them, the examples."""
        source = self._source(language)
        return _PLACE.sub(lambda found: found[2] if values is None else values[found[1]], source)

    def _source(self, language: Language) -> str:
        name = f"{self.number:02}-{self.name}.{language}.md"
        return (files("toolkit.learn") / "lessons" / name).read_text("utf-8")


COURSE: Final = tuple(
    Lesson(number, name, experiment)
    for number, (name, experiment) in enumerate(
        (
            ("sockets", sockets.sockets_and_ports),
            ("ports", sockets.who_gets_a_port),
            ("loopback", sockets.loopback_and_lan),
            ("handshake", connections.handshake),
            ("queue", connections.listen_queue),
            ("datagrams", sockets.stream_and_datagram),
            ("sequence", simulated.sequence),
            ("loss", simulated.loss),
            ("congestion", simulated.congestion),
            ("layers", connections.layers),
            ("crossover", simulated.crossover),
        ),
        1,
    )
)


def lesson(topic: str) -> Lesson:
    """Return the lesson of a number or a name. Raises UsageError."""
    for one in COURSE:
        if topic in (str(one.number), one.name):
            return one
    raise UsageError(f"there is no lesson {printable(topic)!r}: 'nettool learn' lists them")


def language_of(environment: Mapping[str, str]) -> Language:
    """Return the language of a user's locale: Korean, or English for any other."""
    locale = next((environment[name] for name in _LOCALE_VARIABLES if environment.get(name)), "")
    return Language.KOREAN if re.match(r"ko(?![a-z])", locale) else Language.ENGLISH


def document(language: Language) -> str:
    """Return the whole course as one Markdown document, with the examples."""
    introduction = (files("toolkit.learn") / "lessons" / f"introduction.{language}.md").read_text("utf-8")
    pages = (one.page(language).replace("# ", f"## {one.number}. ", 1) for one in COURSE)
    return "\n".join([introduction, *pages])
