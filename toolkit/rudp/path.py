"""Validation of a path that a client has moved to, or that a NAT has moved it to.

Packets that carry the right connection id from a new address are taken, but nothing is sent there except challenges
until one has come back: else who can read a packet could have the connection's answers sent to a victim. A challenge
is small, and there are few, further and further apart. The new path may be longer than the old one, so the time that
an answer may take is at least that of a path of which nothing is known (RFC 9000 sections 8.2 and 9.3). When all of
them are lost the path is given up, until something new comes by it.

After the move to another host all that was known of the path is forgotten; a new port alone is most likely a NAT, and
the path behind it the same (section 9.4).
"""

from typing import Final

from toolkit.rudp.batch import PeerAddress
from toolkit.rudp.rtt import RttEstimator

MAX_CHALLENGES: Final = 5
INITIAL_PTO_NS: Final = RttEstimator().pto_ns(0)
"""The probe timeout of a path of which nothing is known."""


class PathValidation:
    """One candidate path: `challenge` is an unguessable 64-bit value that its answer must bring back."""

    def __init__(self, path: PeerAddress, challenge: int, now_ns: int) -> None:
        self.path = path
        self.challenge = challenge
        self._next_send_ns = now_ns
        self._sent = 0

    def is_given_up(self, now_ns: int) -> bool:
        """Every challenge was lost, or nobody is there who could answer."""
        return self._sent >= MAX_CHALLENGES and now_ns >= self._next_send_ns

    def poll_timeout(self) -> int | None:
        """When the next challenge is due; None when there is none left."""
        return None if self._sent >= MAX_CHALLENGES else self._next_send_ns

    def poll_challenge(self, now_ns: int, pto_ns: int) -> int | None:
        """The challenge, when it is time to send it (again). `pto_ns` is the active path's, without back-off."""
        if self._sent >= MAX_CHALLENGES or now_ns < self._next_send_ns:
            return None
        self._next_send_ns = now_ns + (max(pto_ns, INITIAL_PTO_NS) << self._sent)
        self._sent += 1
        return self.challenge
