"""What a user sees while a campaign waits for quiet processors."""

import math
import time
from collections.abc import Callable
from typing import Final

from toolkit.cli.output import print_status, stderr_is_terminal
from toolkit.units import format_seconds

_SHOWN_AFTER_S: Final = 3.0
_LEAST_BETWEEN_WAITS_S: Final = 2.0
"""Within one wait, calls come half a second apart."""


class WaitStatus:
    """Prints a line on a terminal once a wait has lasted three seconds. A campaign calls it as `on_wait`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_s = self._last_s = -math.inf
        self._is_shown = False

    def __call__(self, left_s: float) -> None:
        """`left_s`: for how many seconds the campaign waits at most."""
        now_s = self._clock()
        if now_s - self._last_s > _LEAST_BETWEEN_WAITS_S:
            self._started_s, self._is_shown = now_s, False
        self._last_s = now_s
        if now_s - self._started_s >= _SHOWN_AFTER_S and not self._is_shown and stderr_is_terminal():
            self._is_shown = True
            print_status(f"waiting for quiet processors, at most {format_seconds(math.ceil(left_s))}")
