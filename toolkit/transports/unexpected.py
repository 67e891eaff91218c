"""Reports an exception that only a bug explains, where it must not end what other peers share."""

import logging
import os
from typing import Final

from toolkit.errors import printable

_LOGGER: Final = logging.getLogger(__name__)


class UnexpectedErrors:
    """Reports the first of a listener's unexpected errors; a peer may be able to cause any number of them."""

    def __init__(self) -> None:
        self._has_reported = False

    def report(self, what: str, error: Exception) -> None:
        """Log one line, which Python prints to stderr, with a traceback if NETTOOL_TRACEBACK is set.

        what: what the error has cost, for example "a handshake was dropped"
        """
        if self._has_reported:
            return
        self._has_reported = True
        _LOGGER.error(
            "%s: unexpected %s: %s (please report this with the traceback that NETTOOL_TRACEBACK=1 prints)",
            what,
            type(error).__name__,
            printable(str(error)),
            exc_info=error if os.environ.get("NETTOOL_TRACEBACK") else None,
        )
