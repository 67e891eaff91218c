"""Sizes, rates, durations and fractions: from what people write to numbers, and back.

Prefixes follow the International System and IEC 80000-13, in either case: `k M G T` are powers of 1000, `Ki Mi Gi Ti`
powers of 1024. They are not interchangeable: at a gigabyte they differ by 7%. In a rate, `b` is a bit and `B` a byte,
as on every data sheet. Inside the program, a size is an `int` of bytes, a rate a `float` of bits per second, a duration
an `int` of nanoseconds, and a fraction a `float` from 0 to 1. No other file converts units.

The parsers read what a user has typed: anything ambiguous is a `UsageError` that shows how to write the value.
"""

import math
import re
from decimal import Decimal

from toolkit.errors import UsageError, printable

MAX_INT = (1 << 63) - 1  # the largest of the kernel's offsets and nanoseconds
MIN_SENDING_RATE_BPS = 8.0  # a byte in a second
MAX_RATE_BPS = 1e15

# U+00B5 and U+03BC are both micro signs.
_QUANTITY = re.compile(r"([0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30}) *([A-Za-zµμ/%]*)")
_SCALES = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}
_PREFIXED = re.compile(r"((?:[kmgt]i?)?)(.*)", re.IGNORECASE)
_BITS_PER = {"": 1, "bit": 1, "bits": 1, "bit/s": 1, "bits/s": 1, "bps": 1, "b/s": 1, "B/s": 8}
_NS_PER = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}


def parse_size(text: str) -> int:
    """Return the bytes of `256MiB`, `1G`, `10kB` or a plain number, rounded to a whole byte. Raises UsageError."""
    number, unit = _split(text, "size", "256MiB, 10kB or 4096")
    prefix, base = _prefix_and_base(unit)
    if base not in ("", "B", "b"):
        raise _not_a(text, "size", "256MiB, 10kB or 4096")
    return _bounded_int(text, number * _SCALES[prefix], "size")


def parse_rate(text: str) -> float:
    """Return the bits per second, more than 0, of `100Mbit`, `1Gbit/s`, `500k` or `12MB/s`. Raises UsageError."""
    example = "100Mbit, 1Gbit/s or 12MB/s"
    number, unit = _split(text, "rate", example)
    if not unit and number:
        shown = printable(text.strip(), 40)
        raise UsageError(
            f"rate '{shown}' has no unit: write {shown}Mbit, {shown}kbit, {shown}bit (a second) or {shown}MB/s"
        )
    prefix, base = _prefix_and_base(unit)
    scale = _BITS_PER.get(base)
    if scale is None:  # any case is allowed unless it distinguishes bits from bytes
        scale = None if "B" in base and base.upper() in ("B", "B/S", "BPS") else _BITS_PER.get(base.lower())
    if scale is None:
        raise _not_a(text, "rate", example)
    rate = float(number * scale * _SCALES[prefix])
    if not 0 < rate <= MAX_RATE_BPS:
        raise UsageError(f"rate '{printable(text, 40)}' is out of range: choose one above 0 and up to 1000Tbit")
    return rate


def check_sending_rate(rate_bps: float) -> None:
    """Raises UsageError for a rate at which no transport can send; infinity is one, for None stands for no limit."""
    if not rate_bps >= MIN_SENDING_RATE_BPS:  # nor is NaN
        raise UsageError(f"a rate of {rate_bps:g} bit/s is too low to send anything: choose 8 bit/s or more")
    if rate_bps > MAX_RATE_BPS:
        raise UsageError(f"a rate of {rate_bps:g} bit/s is out of range: choose up to 1000 Tbit/s, or omit `rate_bps`")


def parse_duration_ns(text: str) -> int:
    """Return the nanoseconds of `40ms`, `1.5s`, `300us` or `2min`; the unit is required. Raises UsageError."""
    example = "40ms, 1.5s or 300us"
    number, unit = _split(text, "duration", example)
    scale = _NS_PER.get(unit) or _NS_PER.get(unit.lower())
    if scale is None and not unit:
        shown = printable(text.strip(), 40)
        raise UsageError(f"duration '{shown}' has no unit: write it like {shown}s or {shown}ms")
    if scale is None:
        raise _not_a(text, "duration", example)
    return _bounded_int(text, number * scale, "duration")


def parse_fraction(text: str) -> float:
    """Return the share, 0 to 1, of `1%` or `0`. Raises UsageError, also without a percent sign: 0.5 could be 50%."""
    number, unit = _split(text, "share", "1%")
    if unit not in ("", "%"):
        raise _not_a(text, "share", "1%")
    if not unit and number:
        other = f" or {format_fraction(float(number))}" if number <= 1 else ""
        raise UsageError(
            f"'{printable(text, 40)}' is not clear as a share: write {printable(text.strip(), 40)}%{other}"
        )
    if number > 100:
        raise UsageError(f"'{printable(text, 40)}' is more than 100%, which no share can be")
    return float(number / 100)


def to_seconds(duration_ns: int) -> float:
    """Convert nanoseconds to seconds."""
    return duration_ns / _NS_PER["s"]


def rate_of(size_bytes: int, duration_s: float) -> float:
    """Return the rate in bits per second; 0 if no time has passed."""
    return 8 * size_bytes / duration_s if duration_s > 0 else 0.0


def format_size(size_bytes: float) -> str:
    """Format a size with a binary unit: `256 MiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{_digits(value)} {unit}"
        value /= 1024
    return f"{_digits(value)} TiB"


def format_rate(rate_bps: float) -> str:
    """Format a rate with a decimal unit: `94.3 Mbit/s`."""
    value = float(rate_bps)
    for unit in ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"):
        if value < 999.95:
            return f"{_digits(value)} {unit}"
        value /= 1000
    return f"{_digits(value)} Tbit/s"


def format_duration_ns(duration_ns: float) -> str:
    """Format a duration: `40 ms`, `1.5 s`, `12.3 min`."""
    for unit, limit in (("ns", 1e3), ("us", 1e6), ("ms", 1e9), ("s", 120e9), ("min", 7200e9)):
        if duration_ns < limit:
            return f"{_digits(duration_ns / _NS_PER[unit])} {unit}"
    return f"{_digits(duration_ns / _NS_PER['h'])} h"


def format_seconds(duration_s: float) -> str:
    """Format a duration in seconds, as `format_duration_ns` does; `∞` for infinity."""
    if math.isinf(duration_s):
        return "∞"
    return format_duration_ns(duration_s * _NS_PER["s"])


def format_fraction(fraction: float) -> str:
    """Format a fraction (1 is 100%) as a percentage: `0.1%`."""
    return f"{_digits(fraction * 100)}%"


def format_ratio(ratio: float) -> str:
    """Format a ratio: `0.012`, `0.83`, `0.992`, `16.2`, `250`; `∞` for infinity. Near 1, a thousandth is visible."""
    if math.isinf(ratio):
        return "∞"
    if ratio >= 100:
        return f"{ratio:.0f}"
    if ratio >= 10:
        return f"{ratio:.1f}"
    if 0.9 <= ratio < 1.1:
        return f"{ratio:.3f}"
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def _digits(value: float) -> str:
    """Format a number with at most four significant digits, no exponent and no trailing zeros."""
    if abs(value) < 1e-15:
        return "0"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    text = f"{value:.4g}"
    return f"{Decimal(text):f}" if "e" in text else text


def _split(text: str, kind: str, example: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(text.strip(" "))
    if match is None:
        raise _not_a(text, kind, example)
    return Decimal(match[1]), match[2]


def _prefix_and_base(unit: str) -> tuple[str, str]:
    match = _PREFIXED.fullmatch(unit)
    if match is None:  # the pattern matches every string without a line break, and `_split` rejects those
        raise AssertionError(unit)
    return match[1].lower(), match[2]


def _bounded_int(text: str, value: Decimal, kind: str) -> int:
    if value > MAX_INT:
        raise UsageError(f"{kind} '{printable(text, 40)}' is too large: the limit is 2^63")
    return int(value.to_integral_value())


def _not_a(text: str, kind: str, example: str) -> UsageError:
    return UsageError(f"'{printable(text, 40)}' is not a {kind}: write it like {example}")
