"""Whether the application comes back at once after a message, so that its answer can go before the acknowledgement.

A request and its answer then take less time: both ends acknowledge while they would otherwise wait. Linux does the same
for a TCP connection, in its "ping-pong mode". But no thread is behind a channel, so the acknowledgement waits for the
next call, and the peer would repeat its message if that came late. An application has to show first that it is prompt,
and twice as long each time it was late when it was expected: the peer takes its delay for that of the path.
"""

from typing import Final

_ENOUGH_PROMPT_RETURNS: Final = 3
"""In a row, at first. A file session alternates between answers and work that takes long, and does not get there."""


class Turnaround:
    """Call `on_message` when a message is handed to the application, and `on_call` when that calls the channel next."""

    def __init__(self) -> None:
        self._handed_over_ns: int | None = None
        self._prompt_returns = 0
        self._enough_returns = _ENOUGH_PROMPT_RETURNS

    @property
    def is_prompt(self) -> bool:
        """Whether the application is expected back before the peer misses an acknowledgement."""
        return self._prompt_returns >= self._enough_returns

    def on_message(self, now_ns: int) -> None:
        """A message is handed over."""
        self._handed_over_ns = now_ns

    def on_call(self, now_ns: int, max_ack_delay_ns: int) -> None:
        """The application is back. `max_ack_delay_ns` is how long acknowledgements may wait (AckTracker)."""
        if self._handed_over_ns is not None:
            if now_ns - self._handed_over_ns <= max_ack_delay_ns:
                self._prompt_returns += 1
            else:
                if self.is_prompt:
                    self._enough_returns *= 2
                self._prompt_returns = 0
            self._handed_over_ns = None
