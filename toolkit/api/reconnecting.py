"""Reconnecting by itself after a connection was lost (`--retry`)."""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from toolkit.errors import LateRefusalError, PeerClosedError, RefusedError, UnreachableError

FIRST_PAUSE_S: Final = 0.25
MAX_PAUSE_S: Final = 8.0

_Result = TypeVar("_Result")
Attempt = Callable[[bool, Callable[[], None]], _Result]
"""Called as `attempt(is_reconnected, on_accepted)`: connects, and runs a session, which calls `on_accepted` in time."""


def with_reconnects(
    attempt: Attempt[_Result],
    retry_s: float,
    pause: Callable[[PeerClosedError, float], None],
    clock: Callable[[], float] = time.monotonic,
) -> _Result:
    """Return what `attempt` returns; try again while connections are lost.

    The first connection has to succeed. A refusal ends the attempts, unless the receiver refuses a session before it
    looks at the offer: it may still be busy with the lost one. Pauses double from FIRST_PAUSE_S to MAX_PAUSE_S,
    shortened at random, so that many senders do not come back at once.

    retry_s: how long to try to reconnect; counted anew each time that a receiver has accepted the offer
    pause:   called with the error and the seconds to wait

    Raises what `attempt` raises; the error of the connection that was lost, if no other comes.
    """
    lost: PeerClosedError | None = None
    give_up_s = clock() + retry_s
    pause_s = FIRST_PAUSE_S
    is_accepted = False

    def on_accepted() -> None:
        nonlocal give_up_s, pause_s, is_accepted
        give_up_s, pause_s, is_accepted = float("inf"), FIRST_PAUSE_S, True

    while True:
        is_accepted, refusal = False, None
        try:
            return attempt(lost is not None, on_accepted)
        except LateRefusalError:
            raise
        except PeerClosedError as error:
            lost = error
        except UnreachableError:
            if lost is None:
                raise
        except RefusedError as error:
            if lost is None or is_accepted:
                raise
            if error.result is None:  # the handshake was refused: the receiver does not know the lost session
                raise lost from error
            refusal = error
        if give_up_s == float("inf"):
            give_up_s = clock() + retry_s
        wait_s = pause_s * random.uniform(0.5, 1.0)
        if clock() + wait_s > give_up_s:
            raise refusal or lost
        pause(lost, wait_s)
        pause_s = min(2 * pause_s, MAX_PAUSE_S)
