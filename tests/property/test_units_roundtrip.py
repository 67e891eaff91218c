"""Whatever is formatted can be parsed again and means nearly the same; nothing typed is another error."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import units
from toolkit.errors import UsageError


@given(st.integers(0, units.MAX_INT // 2))
def test_sizes_come_back(size_bytes: int) -> None:
    assert units.parse_size(units.format_size(size_bytes)) == pytest.approx(size_bytes, rel=1e-3)


@given(st.floats(0.5, units.MAX_RATE_BPS))
def test_rates_come_back(rate_bps: float) -> None:
    assert units.parse_rate(units.format_rate(rate_bps)) == pytest.approx(rate_bps, rel=1e-3)


@given(st.integers(0, units.MAX_INT // 2))
def test_durations_come_back(duration_ns: int) -> None:
    assert units.parse_duration_ns(units.format_duration_ns(duration_ns)) == pytest.approx(duration_ns, rel=1e-3)


@given(st.floats(0, 1))
def test_fractions_come_back(fraction: float) -> None:
    assert units.parse_fraction(units.format_fraction(fraction)) == pytest.approx(fraction, rel=1e-3, abs=1e-17)


@settings(max_examples=300)
@given(
    st.one_of(
        st.text(max_size=40),
        st.from_regex(r"[0-9.]{1,40} ?[kKmMgGtTi]{0,2}(bit|B|b|s|ms|%)?(/s)?", fullmatch=True),
    ),
    st.sampled_from([units.parse_size, units.parse_rate, units.parse_duration_ns, units.parse_fraction]),
)
def test_anything_parses_or_is_a_usage_error(text: str, parse: Callable[[str], float]) -> None:
    try:
        value = parse(text)
    except UsageError as error:
        value, complaint = 0.0, str(error)
    else:
        complaint = ""
    assert 0 <= value < float("inf")
    assert complaint == "" or complaint.isprintable()
