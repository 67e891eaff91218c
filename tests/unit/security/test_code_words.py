"""Codes as people read and type them."""

import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import UsageError
from toolkit.security.code_words import (
    MAX_NAMEPLATE,
    WORDS_PER_CODE,
    Code,
    first_nameplate,
    new_code,
    next_nameplate,
    parse_code,
    word_list,
)

CODE = Code(7, ("ocean", "brick", "lunar"))
CODES = st.builds(
    Code, st.integers(1, MAX_NAMEPLATE), st.tuples(*(st.sampled_from(word_list()) for _ in range(WORDS_PER_CODE)))
)


def test_the_list_has_2048_words_whose_first_four_letters_differ() -> None:
    assert len(word_list()) == 2048
    assert len({word[:4] for word in word_list()}) == 2048


@given(CODES)
def test_a_code_survives_writing_and_reading(code: Code) -> None:
    assert parse_code(str(code)) == code


@pytest.mark.parametrize(
    "typed",
    [
        "7-ocean-brick-lunar",
        "7-OCEAN-Brick-lunar",
        "  7 ocean   brick\tlunar \n",
        "7 - ocean - brick - lunar",
        "7_ocean_brick_lunar",
        "07-ocean-brick-lunar",
        "7-ocea-bric-luna",
        "7-oce-bric-luna",
    ],
)
def test_a_code_is_read_as_people_type_it(typed: str) -> None:
    assert parse_code(typed) == CODE


def test_a_word_of_the_list_is_not_ambiguous_although_longer_ones_begin_with_it() -> None:
    assert {"act", "action", "actor"} <= set(word_list())
    assert parse_code("1-act-action-actor").words == ("act", "action", "actor")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "begins with a number"),
        ("-", "begins with a number"),
        ("ocean-brick-lunar", "begins with a number"),
        ("0-ocean-brick-lunar", "from 1 to 999"),
        ("1000-ocean-brick-lunar", "from 1 to 999"),
        ("\u0667-ocean-brick-lunar", "begins with a number"),
        ("7", "not 0"),
        ("7-ocean-brick", "not 2"),
        ("7-ocean-brick-lunar-ocean", "not 4"),
        ("7-ocean-brick-lunarr", "no word of a code begins with 'lunarr'"),
        ("7-ocean-brick-\x1b[31m", "begins with"),
        ("7-ocean-brick-acti\u00f6n", "no word of a code begins with"),
        ("7-ocean-brick-ac", "'ac' could be access, accident, account or others: type more letters"),
        ("7-ocean-brick-luna\u2028r", "not 4"),
        ("7" * 201, "too long"),
    ],
)
def test_what_is_not_a_code_is_refused_in_one_line(typed: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_code(typed)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


@given(st.text(max_size=300))
def test_any_text_is_a_code_or_a_usage_error(typed: str) -> None:
    with suppress(UsageError):
        assert set(parse_code(typed).words) <= set(word_list())


def test_the_number_is_no_part_of_the_password() -> None:
    credential = CODE.credential
    assert (credential.nameplate, credential.password) == (b"7", b"ocean-brick-lunar")


def test_the_words_are_kept_out_of_repr() -> None:
    assert "ocean" not in repr(CODE) + repr(CODE.credential)


def test_new_codes_draw_each_word_from_the_whole_list() -> None:
    generator = random.Random(1)
    codes = [new_code(5, generator.choice) for _ in range(2000)]
    assert {code.nameplate for code in codes} == {5}
    assert len(set(codes)) == 2000
    for position in range(WORDS_PER_CODE):
        assert len({code.words[position] for code in codes}) > 1000


def test_nameplates_count_on_and_begin_again_after_the_last() -> None:
    assert 1 <= first_nameplate() <= 99
    assert next_nameplate(7) == 8
    assert next_nameplate(MAX_NAMEPLATE) == 1
