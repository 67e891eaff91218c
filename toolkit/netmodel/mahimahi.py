"""Delivery traces in mahimahi's format: when a real (cellular) link let how much through.

Each line is a whole number of milliseconds, at which one opportunity lets 1,504 bytes through; several lines
of one time are several opportunities. The lines do not go back, and after the last one the trace begins anew
with that time as its zero. An opportunity that nobody waits for is lost; what it has left serves the next
packet in the queue, and a packet that it cannot finish goes on with the next opportunity
(Netravali et al., "Mahimahi: accurate record-and-replay for HTTP", USENIX ATC 2015, section 4).
"""

from toolkit.errors import UsageError, printable

MAX_TRACE_LINES = 10_000_000


def parse_trace(text: str, name: str = "trace") -> tuple[int, ...]:
    """The opportunities of a trace in ms. Raises UsageError that names the line."""
    times: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not (line.isascii() and line.isdigit()) or len(line) > 12:
            shown = printable(line, 30)
            raise UsageError(f"{printable(name)}, line {number}: '{shown}' is not a whole number of ms")
        if times and int(line) < times[-1]:
            raise UsageError(f"{printable(name)}, line {number}: time goes back; sort the lines")
        times.append(int(line))
        if len(times) > MAX_TRACE_LINES:
            raise UsageError(f"{printable(name)} has more than {MAX_TRACE_LINES} lines: cut it")
    if not times or times[-1] == 0:
        raise UsageError(f"{printable(name)} has no delivery opportunity after its first millisecond")
    return tuple(times)
