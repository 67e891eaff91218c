"""Validation of a path that a client has moved to, or that a NAT has moved it to.

Packets that carry the right connection id from a new address are taken, but nothing is sent there except challenges
until one has come back: else who can read a packet could have the connection's answers sent to a victim. A challenge
is no larger than what it answers, and there are few (RFC 9000 sections 8.2 and 9.3).

After the move to another host all that was known of the path is forgotten; a new port alone is most likely a NAT, and
the path behind it the same (section 9.4).
"""

from typing import Final

from toolkit.rudp.batch import Path

MAX_CHALLENGES: Final = 5


class PathValidation:
    """One candidate path: `challenge` is an unguessable 64-bit value that its answer must bring back."""

    def __init__(self, path: Path, challenge: int, now_ns: int) -> None:
        self.path = path
        self.challenge = challenge
        self._next_send_ns = now_ns
        self._sent = 0

    @property
    def is_given_up(self) -> bool:
        """Every challenge was lost, or nobody is there who could answer."""
        return self._sent >= MAX_CHALLENGES

    def poll_timeout(self) -> int | None:
        """When the next challenge is due; None when there is none left."""
        return None if self.is_given_up else self._next_send_ns

    def poll_challenge(self, now_ns: int, pto_ns: int) -> int | None:
        """The challenge, when it is time to send it (again)."""
        if self.is_given_up or now_ns < self._next_send_ns:
            return None
        self._sent += 1
        self._next_send_ns = now_ns + pto_ns
        return self.challenge
