"""Values of options that have limits, from their text."""

from toolkit.channel import MAX_IDLE_TIMEOUT_S, MIN_IDLE_TIMEOUT_S
from toolkit.errors import UsageError
from toolkit.units import parse_duration_ns, parse_size, to_seconds


def idle_timeout_s(text: str) -> float:
    """Parse --idle-timeout into seconds. Raises UsageError."""
    duration_s = to_seconds(parse_duration_ns(text))
    if duration_s < MIN_IDLE_TIMEOUT_S:
        raise UsageError(f"--idle-timeout {text} is too short: the minimum is 1s, and 30s is usual")
    if duration_s > MAX_IDLE_TIMEOUT_S:
        raise UsageError(f"--idle-timeout {text} is too long: the maximum is 24h, and 30s is usual")
    return duration_s


def positive_duration_s(name: str, text: str) -> float:
    """Parse the duration of the option `name` into seconds. Raises UsageError unless it is longer than zero."""
    duration_s = to_seconds(parse_duration_ns(text))
    if duration_s <= 0:
        raise UsageError(f"{name} must be longer than zero, for example 1h")
    return duration_s


def positive_size_bytes(name: str, text: str) -> int:
    """Parse the size of the option `name` into bytes. Raises UsageError unless it is at least one byte."""
    size_bytes = parse_size(text)
    if size_bytes <= 0:
        raise UsageError(f"{name} must be at least one byte, for example 1GiB")
    return size_bytes
