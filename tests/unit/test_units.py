"""Parsing and formatting of sizes, rates, durations and fractions."""

import pytest

from toolkit import units
from toolkit.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("256MiB", 256 << 20),
        ("1G", 10**9),
        ("1Gi", 1 << 30),
        ("10kB", 10_000),
        ("10 KB", 10_000),
        ("1.5kib", 1536),
        (".5k", 500),
        ("2TiB", 2 << 40),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)
def test_sizes_are_parsed(text: str, size_bytes: int) -> None:
    assert units.parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "rate_bps"),
    [
        ("100Mbit", 100e6),
        ("1Gbit/s", 1e9),
        ("10Mbps", 10e6),
        ("500k", 500e3),
        ("1500bit", 1500.0),
        ("12MB/s", 96e6),
        ("12Mb/s", 12e6),
        ("100mbit", 100e6),
        ("1 GBIT/S", 1e9),
        ("1Mibit", 1048576.0),
    ],
)
def test_rates_are_parsed(text: str, rate_bps: float) -> None:
    assert units.parse_rate(text) == rate_bps


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("40ms", 40_000_000),
        ("1.5s", 1_500_000_000),
        ("300us", 300_000),
        ("300µs", 300_000),
        ("2min", 120_000_000_000),
        ("7 ns", 7),
        ("1h", 3_600_000_000_000),
        ("0s", 0),
    ],
)
def test_durations_are_parsed(text: str, duration_ns: int) -> None:
    assert units.parse_duration_ns(text) == duration_ns


@pytest.mark.parametrize(
    ("text", "fraction"),
    [("1%", 0.01), ("0", 0.0), ("0%", 0.0), ("100%", 1.0), ("0.1 %", 0.001), (".5%", 0.005)],
)
def test_fractions_are_parsed(text: str, fraction: float) -> None:
    assert units.parse_fraction(text) == fraction


@pytest.mark.parametrize(
    ("text", "meant"),
    [("0.5", "write 0.5% or 50%"), (".01", "write .01% or 1%"), ("1", "write 1% or 100%"), ("5", "write 5%")],
)
def test_a_share_without_a_percent_sign_is_asked_about(text: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        units.parse_fraction(text)
    assert str(caught.value) == f"'{text}' is not clear as a share: {meant}"


def test_a_rate_without_a_unit_names_the_units() -> None:
    with pytest.raises(
        UsageError, match=r"^rate '200' has no unit: write 200Mbit, 200kbit, 200bit \(a second\) or 200MB/s"
    ):
        units.parse_rate("200")


def test_a_duration_without_a_unit_names_two() -> None:
    with pytest.raises(UsageError, match=r"^duration '30' has no unit: write it like 30s or 30ms$"):
        units.parse_duration_ns("30")


def test_a_rate_is_bits_per_second_and_zero_if_no_time_has_passed() -> None:
    assert units.rate_of(1_000_000, units.to_seconds(500_000_000)) == 16e6
    assert units.rate_of(5, 0.0) == 0.0


INVALID = [
    "",
    " ",
    "nan",
    "inf",
    "-1",
    "+1",
    "1e3",
    "1,5",
    "0x10",
    "١",
    "ten",
    "1..2",
    "1M M",
    "1\n",
    "--1",
    "9" * 5000,
]


@pytest.mark.parametrize("text", [*INVALID, "1Mbit", "1MM", "1s", "5%", "9223372036854775808"])
def test_invalid_sizes_are_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        units.parse_size(text)


@pytest.mark.parametrize("text", [*INVALID, "0", "0Mbit", "10MB", "1MBps", "1GBPS", "1s", "1001Tbit"])
def test_invalid_rates_are_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        units.parse_rate(text)


@pytest.mark.parametrize("text", [*INVALID, "40", "40m", "1d", "1Mbit", "9223372036854775808ns", "99999999999h"])
def test_invalid_durations_are_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        units.parse_duration_ns(text)


@pytest.mark.parametrize("text", [*INVALID, "1", "1.0", "5", "101%", "-1%", "1%%", "1ms"])
def test_invalid_fractions_are_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        units.parse_fraction(text)


@pytest.mark.parametrize("text", ["\x1b[31m5\x1b[0m", "5\nMiB", "\x00", "9" * 10_000])
def test_the_error_is_one_short_printable_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        units.parse_size(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("formatted", "text"),
    [
        (units.format_size(0), "0 B"),
        (units.format_size(256 << 20), "256 MiB"),
        (units.format_size(1023), "1023 B"),
        (units.format_size(5000), "4.883 KiB"),
        (units.format_size(3 << 50), "3072 TiB"),
        (units.format_rate(94_300_000), "94.3 Mbit/s"),
        (units.format_rate(999_990), "1 Mbit/s"),
        (units.format_rate(28.61e9), "28.61 Gbit/s"),
        (units.format_duration_ns(40_000_000), "40 ms"),
        (units.format_duration_ns(1_500_000_000), "1.5 s"),
        (units.format_duration_ns(90 * 60 * 10**9), "90 min"),
        (units.format_seconds(float("inf")), "∞"),
        (units.format_seconds(0.5374), "537.4 ms"),
        (units.format_duration_ns(5 * 3600 * 10**9), "5 h"),
        (units.format_fraction(0.01), "1%"),
        (units.format_fraction(0.000001), "0.0001%"),
        (units.format_fraction(0.00000012), "0.000012%"),
        (units.format_ratio(0.0123), "0.012"),
        (units.format_ratio(0.5), "0.50"),
        (units.format_ratio(0.992), "0.992"),
        (units.format_ratio(1.1), "1.10"),
        (units.format_ratio(16.24), "16.2"),
        (units.format_ratio(250.4), "250"),
        (units.format_ratio(float("inf")), "∞"),
    ],
)
def test_values_are_formatted(formatted: str, text: str) -> None:
    assert formatted == text
