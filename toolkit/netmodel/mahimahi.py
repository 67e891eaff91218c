"""Parse delivery traces in mahimahi's format: recordings of how much a real (cellular) link delivered when.

Each line is a time in whole milliseconds at which one delivery opportunity of 1,504 bytes occurs. Several lines with
the same time are several opportunities. Times never decrease. After the last line the trace repeats, with that time as
its new zero. An opportunity with an empty queue is lost. The rest of an opportunity serves the next packet in the
queue, and a packet that does not fit continues with the next opportunity.

To read: Netravali et al., "Mahimahi: accurate record-and-replay for HTTP", USENIX ATC 2015, section 4.
"""

from toolkit.errors import UsageError, printable

MAX_TRACE_LINES = 10_000_000


def parse_trace(text: str, name: str = "trace") -> tuple[int, ...]:
    """The opportunities of a trace, in ms. Raises UsageError, which names the line."""
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
            raise UsageError(f"{printable(name)} has more than {MAX_TRACE_LINES} lines: shorten it")
    if not times or times[-1] == 0:
        raise UsageError(f"{printable(name)} has no delivery opportunity after time 0: add one")
    return tuple(times)
