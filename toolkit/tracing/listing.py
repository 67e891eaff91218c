"""Calls as lines of text: the time, the call, its meaning. Repeated calls that move data are counted.

A transfer makes thousands of equal calls. The first few of a kind are shown, and the very first with its meaning; the
others become one line once something else happens to the descriptor:

    ... 1,021 more sendto() of 1,228 bytes, 1.2 MiB
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from textwrap import wrap

from toolkit.tracing.call import Call
from toolkit.units import format_size

SHOWN_EACH = 4
"""How many calls of a name, a descriptor and a kind are shown before they are counted."""
_TIME_COLUMNS = 10
_Key = tuple[int, str, str]


@dataclass(slots=True)
class _CallRun:
    """Calls of one name, descriptor and kind, of which the first are shown."""

    shown: int = 0
    hidden: int = 0
    least_bytes: int = 0
    most_bytes: int = 0
    size_bytes: int = 0

    def hide(self, size_bytes: int) -> None:
        self.least_bytes = min(self.least_bytes, size_bytes) if self.hidden else size_bytes
        self.most_bytes = max(self.most_bytes, size_bytes)
        self.size_bytes += size_bytes
        self.hidden += 1


class Condenser:
    """Passes on the calls to show, and a remark in place of the others.

    show:       is called with each of them
    shown_each: see SHOWN_EACH
    """

    def __init__(self, show: Callable[[Call], object], shown_each: int = SHOWN_EACH) -> None:
        self._show, self._shown_each = show, shown_each
        self._runs: dict[_Key, _CallRun] = {}
        self._explained: set[tuple[str, str]] = set()  # name and kind

    def add(self, call: Call) -> None:
        """Take the next call."""
        if call.size_bytes is None:
            self._tell_hidden(call.time_s, None if not call.name else call.fd)
            self._show(call)
            return
        run = self._runs.setdefault((call.fd, call.name, call.kind), _CallRun())
        if run.shown < self._shown_each:
            run.shown += 1
            is_known = (call.name, call.kind) in self._explained
            self._explained.add((call.name, call.kind))
            self._show(replace(call, meaning="") if is_known else call)
        else:
            run.hide(call.size_bytes)

    def end(self, time_s: float) -> None:
        """Pass on what is left at the end."""
        self._tell_hidden(time_s, None)

    def _tell_hidden(self, time_s: float, fd: int | None) -> None:
        """Tell what was hidden of one descriptor, or, for None, of all; what follows is shown anew."""
        for key in [key for key in self._runs if fd is None or key[0] == fd]:
            run = self._runs.pop(key)
            if run.hidden:
                number, name, kind = key
                each = f"{run.least_bytes:,}"
                if run.most_bytes > run.least_bytes:
                    each += f" to {run.most_bytes:,}"
                of_kind = f" {kind}" if kind.isupper() else ""
                text = f"... {run.hidden:,} more{of_kind} {name}({number}) of {each} bytes"
                if run.hidden > 1:
                    text += f", {format_size(run.size_bytes)}"
                self._show(Call(time_s, "", number, meaning=text))


def lines_of(call: Call, origin_s: float, columns: int) -> Iterator[str]:
    """Yield a call as lines of at most `columns` characters; the time is in milliseconds since `origin_s`."""
    time = f"{(call.time_s - origin_s) * 1e3:8.2f}".ljust(_TIME_COLUMNS)
    room = max(columns - _TIME_COLUMNS, 20)
    if not call.name:
        text = call.meaning if call.meaning.startswith("...") else f"# {call.meaning}"
        pieces = wrap(text, room, subsequent_indent="  ")
    elif len(call.text) + 2 + len(call.meaning) <= room:
        pieces = [f"{call.text}  {call.meaning}".rstrip()]
    else:
        indented = wrap(call.meaning, room, initial_indent="    ", subsequent_indent="    ")
        pieces = [*wrap(call.text, room, subsequent_indent="    "), *indented]
    for piece in pieces:
        yield time + piece
        time = " " * _TIME_COLUMNS


def summary(not_shown: Mapping[str, int]) -> str:
    """Return a line about the calls that were counted and not shown; "" for none."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(not_shown.items()))
