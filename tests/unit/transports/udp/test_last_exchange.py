"""How long a side waits at the end of a session for a peer that never has everything."""

from types import SimpleNamespace
from typing import cast

import pytest

from toolkit.rudp.connection import Connection
from toolkit.rudp.state import ConnectionState
from toolkit.transports.udp import last_exchange

SECOND_NS = 10**9
PATIENCE_NS = 7200 * SECOND_NS


class TricklingPeer:
    """An established connection, in virtual time, whose peer acknowledges one more byte whenever this side waits."""

    state = ConnectionState.ESTABLISHED
    is_fully_acked = False

    def __init__(self) -> None:
        self.acked_bytes = self.now_ns = 0

    def stats(self) -> SimpleNamespace:
        return SimpleNamespace(pto_ns=SECOND_NS // 10)

    def pump(self) -> None:
        assert self.now_ns < PATIENCE_NS, "the wait has no end"

    def wait_until(self, deadline_ns: int) -> None:
        self.now_ns += (deadline_ns - self.now_ns) // 2 + 1
        self.acked_bytes += 1


@pytest.mark.parametrize(("linger_s", "end_s"), [(None, 300), (30.0, 300), (1000.0, 1000)])
def test_a_peer_that_takes_a_little_now_and_then_does_not_hold_a_close(
    monkeypatch: pytest.MonkeyPatch, linger_s: float | None, end_s: int
) -> None:
    peer = TricklingPeer()
    monkeypatch.setattr(last_exchange, "time", SimpleNamespace(monotonic_ns=lambda: peer.now_ns))
    last_exchange.await_acks(cast(Connection, peer), peer.pump, peer.wait_until, linger_s)
    assert peer.now_ns // SECOND_NS == end_s
