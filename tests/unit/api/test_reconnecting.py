"""Reconnecting: after which errors, how often and for how long."""

from collections.abc import Callable

import pytest

from toolkit.api.reconnecting import MAX_PAUSE_S, with_reconnects
from toolkit.errors import LateRefusalError, NettoolError, PeerClosedError, RefusedError, UnreachableError
from toolkit.transfer import TransferResult

LOST = PeerClosedError("the connection was lost")


def refused(reason: str) -> RefusedError:
    """The error of a session that was refused, not of a handshake."""
    error = RefusedError(reason)
    error.result = TransferResult("")
    return error


class Attempts:
    """Attempts that end with these errors, in turn, on a clock of their own; None is success."""

    def __init__(self, *ends: NettoolError | None, is_accepted: bool = False) -> None:
        self._ends = list(ends)
        self._is_accepted = is_accepted
        self.are_reconnected: list[bool] = []
        self.pauses_s: list[float] = []
        self.now_s = 0.0

    def run(self, retry_s: float) -> str:
        return with_reconnects(self._attempt, retry_s, self._pause, lambda: self.now_s)

    def _attempt(self, is_reconnected: bool, on_accepted: Callable[[], None]) -> str:
        self.are_reconnected.append(is_reconnected)
        if self._is_accepted:
            on_accepted()
        end = self._ends.pop(0) if len(self._ends) > 1 else self._ends[0]
        self.now_s += 1.0
        if end is not None:
            raise end
        return "done"

    def _pause(self, lost: PeerClosedError, pause_s: float) -> None:
        assert lost is LOST
        self.pauses_s.append(pause_s)
        self.now_s += pause_s


def test_a_lost_connection_is_made_again_until_it_lasts() -> None:
    attempts = Attempts(LOST, UnreachableError("nobody"), LOST, None)
    assert attempts.run(60.0) == "done"
    assert attempts.are_reconnected == [False, True, True, True]


@pytest.mark.parametrize("error", [UnreachableError("nobody"), RefusedError("no"), LateRefusalError("used up")])
def test_what_does_not_pass_by_itself_is_not_tried_again(error: NettoolError) -> None:
    attempts = Attempts(error)
    with pytest.raises(type(error)):
        attempts.run(60.0)
    assert attempts.are_reconnected == [False]


def test_a_session_that_is_refused_ends_the_attempts() -> None:
    attempts = Attempts(LOST, refused("it exists"), is_accepted=True)
    with pytest.raises(RefusedError, match="it exists"):
        attempts.run(60.0)
    assert attempts.are_reconnected == [False, True]


def test_a_receiver_that_is_busy_with_the_lost_session_is_tried_again() -> None:
    attempts = Attempts(LOST, refused("the receiver is busy"), refused("the receiver is busy"), None)
    assert attempts.run(60.0) == "done"


def test_if_it_stays_busy_the_refusal_is_reported() -> None:
    with pytest.raises(RefusedError, match="busy"):
        Attempts(LOST, refused("the receiver is busy")).run(60.0)


def test_if_the_code_has_been_used_the_loss_is_reported() -> None:
    attempts = Attempts(LOST, RefusedError("the code has ended"))
    with pytest.raises(PeerClosedError):
        attempts.run(60.0)
    assert attempts.are_reconnected == [False, True]


def test_after_its_time_the_loss_is_reported() -> None:
    attempts = Attempts(LOST, UnreachableError("nobody"))
    with pytest.raises(PeerClosedError):
        attempts.run(60.0)
    assert 50.0 <= attempts.now_s <= 62.0
    assert max(attempts.pauses_s) <= MAX_PAUSE_S


def test_time_zero_does_not_reconnect() -> None:
    attempts = Attempts(LOST)
    with pytest.raises(PeerClosedError):
        attempts.run(0.0)
    assert attempts.pauses_s == []


def test_each_accepted_session_has_the_whole_time_again() -> None:
    attempts = Attempts(*[LOST] * 200, None, is_accepted=True)
    assert attempts.run(5.0) == "done"
    assert max(attempts.pauses_s) < 1.0
