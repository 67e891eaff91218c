"""Formatted values can be parsed again with nearly the same result; any text parses or is a UsageError."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.repetitions import examples
from toolkit import units
from toolkit.errors import UsageError


@given(st.integers(0, units.MAX_INT // 2))
def test_a_formatted_size_parses(size_bytes: int) -> None:
    assert units.parse_size(units.format_size(size_bytes)) == pytest.approx(size_bytes, rel=1e-3)


@given(st.floats(0.5, units.MAX_RATE_BPS))
def test_a_formatted_rate_parses(rate_bps: float) -> None:
    assert units.parse_rate(units.format_rate(rate_bps)) == pytest.approx(rate_bps, rel=1e-3)


@given(st.integers(0, units.MAX_INT // 2))
def test_a_formatted_duration_parses(duration_ns: int) -> None:
    assert units.parse_duration_ns(units.format_duration_ns(duration_ns)) == pytest.approx(duration_ns, rel=1e-3)


@given(st.floats(0, 1))
def test_a_formatted_fraction_parses(fraction: float) -> None:
    assert units.parse_fraction(units.format_fraction(fraction)) == pytest.approx(fraction, rel=1e-3, abs=1e-17)


@settings(max_examples=examples(300))
@given(
    st.one_of(
        st.text(max_size=40),
        st.from_regex(r"[0-9.]{1,40} ?[kKmMgGtTi]{0,2}(bit|B|b|s|ms|%)?(/s)?", fullmatch=True),
    ),
    st.sampled_from([units.parse_size, units.parse_rate, units.parse_duration_ns, units.parse_fraction]),
)
def test_anything_parses_or_is_a_usage_error(text: str, parse: Callable[[str], float]) -> None:
    message = ""
    value = 0.0
    try:
        value = parse(text)
    except UsageError as error:
        message = str(error)
    assert 0 <= value < float("inf")
    assert message == "" or message.isprintable()
