"""Both ends of a session over UDP say the same of it, whatever the path loses at the end. In virtual time.

A session here is what the transfer protocol makes of one: content and END from the client, DONE from the server when it
has everything. The server has succeeded then, and waits for its client up to the idle timeout; the client has succeeded
once it has DONE.
"""

import pytest

from tests.support.content import BytesSink, BytesSource
from tests.support.virtual_channels import MS, SECOND, START_NS, VirtualPath, random_loss
from toolkit.channel import Channel, Extent
from toolkit.errors import PeerClosedError

RTT_NS = 100 * MS
CONTENT = bytes(20_000)
IDLE_TIMEOUT_S = 30.0


def send_file(channel: Channel) -> bool:
    """The client's part; whether it has succeeded."""
    try:
        channel.send_message(b"begin")
        channel.send_extent(Extent(0, 0, len(CONTENT)), BytesSource(CONTENT))
        channel.send_message(b"end")
        answer = channel.receive()
        channel.close()
    except PeerClosedError:
        return False
    return answer == b"done"


def receive_file(channel: Channel) -> bool:
    """The server's part; whether it has succeeded."""
    sink = BytesSink()
    messages = []
    try:
        while sink.written_bytes < len(CONTENT) or b"end" not in messages:
            messages.append(channel.receive(sink))
        channel.send_message(b"done")
    except PeerClosedError:
        return False
    channel.close(linger_s=IDLE_TIMEOUT_S)
    return True


@pytest.mark.parametrize("outage_s", [1, 2, 3, 10])
def test_an_outage_over_the_last_packets_fails_no_session(monkeypatch: pytest.MonkeyPatch, outage_s: int) -> None:
    """It begins at every quarter of a round trip from the first packet to the last."""
    for quarter in range(20):
        begin_ns = START_NS + quarter * RTT_NS // 4
        end_ns = begin_ns + outage_s * SECOND
        path = VirtualPath(monkeypatch, RTT_NS, lambda now_ns, *_: begin_ns <= now_ns < end_ns)  # noqa: B023 - at once
        outcomes = path.run(send_file, receive_file)
        assert outcomes == (True, True), f"outage from {(begin_ns - START_NS) / MS} ms"
        assert path.now_ns < end_ns + 3 * SECOND, f"outage from {(begin_ns - START_NS) / MS} ms"


@pytest.mark.parametrize("first_seed", [0, 50])
def test_thirty_percent_of_loss_in_both_directions_fail_no_session(
    monkeypatch: pytest.MonkeyPatch, first_seed: int
) -> None:
    for seed in range(first_seed, first_seed + 50):
        path = VirtualPath(monkeypatch, RTT_NS, random_loss(seed, 0.3))
        assert path.run(send_file, receive_file) == (True, True), f"seed {seed}"
        assert path.now_ns < START_NS + 15 * SECOND, f"seed {seed}"


def test_a_server_behind_a_firewall_learns_of_the_end_despite_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says that the client's port is closed, so a lost CLOSE costs the server the rest of its idle timeout."""
    late = 0
    for seed in range(100):
        path = VirtualPath(monkeypatch, RTT_NS, random_loss(seed, 0.3), has_firewall=True)
        assert path.run(send_file, receive_file) == (True, True), f"seed {seed}"
        late += path.now_ns >= START_NS + IDLE_TIMEOUT_S * SECOND
    assert late <= 1
