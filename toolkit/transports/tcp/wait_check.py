"""Ends a wait for room when the channel's owner wants it to end; see `Channel.check_while_waiting`.

A peer may read nothing and still send signs of life, so that the idle timeout never ends such a wait.
"""

import time
from collections.abc import Callable
from typing import Final

from toolkit.channel import WAIT_CHECK_S

FINISH_S: Final = 10.0
"""How long a frame that has been begun may still take after the check has failed. A frame that is sent in part is the
last one, and the peer then learns no reason: at 1 Mbit/s, a slice of content takes 8 s."""


class WaitCheck:
    """The check that a channel was given, for the one thread that waits on the channel."""

    def __init__(self) -> None:
        self._check: Callable[[], None] | None = None
        self._give_up_s: float | None = None  # when a frame that has been begun is given up

    @property
    def interval_s(self) -> float | None:
        """How long to wait before the next `run`; None if there is no check."""
        return None if self._check is None else WAIT_CHECK_S

    def use(self, check: Callable[[], None] | None) -> None:
        """Run this check from now on; None for no check any more."""
        self._check = check

    def run(self, is_within_frame: bool) -> None:
        """Raise what the check raises; within a frame, only FINISH_S after it first did."""
        if self._check is None:
            return
        try:
            self._check()
        except Exception:
            now_s = time.monotonic()
            self._give_up_s = self._give_up_s or now_s + FINISH_S
            if not is_within_frame or now_s >= self._give_up_s:
                raise
        else:
            self._give_up_s = None
