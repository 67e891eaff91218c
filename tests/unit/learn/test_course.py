"""The pages of the course: both languages show what the experiments find, and docs/learn*.md are these pages."""

import re

import pytest
from rich.cells import cell_len

from toolkit.errors import UsageError
from toolkit.learn.course import COURSE, Language, Lesson, language_of, lesson

each_lesson = pytest.mark.parametrize("one", COURSE, ids=lambda one: one.name)
each_language = pytest.mark.parametrize("language", Language)


@each_lesson
def test_both_languages_show_the_same_values(one: Lesson) -> None:
    english, korean = (set(one.places(language)) for language in Language)
    assert english == korean
    assert english


@each_lesson
@each_language
def test_a_page_shows_examples_or_what_the_experiment_found(one: Lesson, language: Language) -> None:
    values = {name: f"<{name}>" for name in one.places(language)}
    filled = one.page(language, values)
    assert all(value in filled for value in values.values())
    for page in (filled, one.page(language)):
        assert not re.search(r"[{}]", page), "a place that is not written {name=example}"


@each_lesson
def test_titles_and_text_are_in_their_language(one: Lesson) -> None:
    assert not re.search("[가-힣]", one.page(Language.ENGLISH))
    assert re.search("[가-힣]", one.title(Language.KOREAN))
    prose = re.sub(r"```.*?```|`[^`]*`|\|.*\|", "", one.page(Language.KOREAN), flags=re.DOTALL)
    sentences = re.findall(r"[가-힣][.?]", prose)
    assert sentences
    assert set(sentences) <= {"다.", "요.", "요?"}, "a sentence that is not in the formal style"


@pytest.mark.parametrize("topic", ["4", "handshake"])
def test_a_lesson_has_a_number_and_a_name(topic: str) -> None:
    assert lesson(topic) is COURSE[3]


@pytest.mark.parametrize("topic", ["0", "12", "handshakes", "\x1b[2J"])
def test_an_unknown_lesson_is_a_usage_error_that_says_where_they_are_listed(topic: str) -> None:
    with pytest.raises(UsageError, match="'nettool learn' lists them") as caught:
        lesson(topic)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "ko_KR.UTF-8"}, "ko"),
        ({"LC_ALL": "", "LANG": "ko"}, "ko"),
        ({"LANG": "kok_IN.UTF-8"}, "en"),
    ],
)
def test_the_language_is_that_of_the_locale(environment: dict[str, str], language: str) -> None:
    assert language_of(environment) == language


@each_lesson
@each_language
def test_blocks_fit_a_terminal_of_80_columns(one: Lesson, language: Language) -> None:
    """A Korean letter takes two columns, and rich leaves a margin of one on each side."""
    blocks = re.findall(r"^```text\n(.*?)^```$", one.page(language), re.MULTILINE | re.DOTALL)
    assert blocks
    assert [line for block in blocks for line in block.splitlines() if cell_len(line) > 78] == []
