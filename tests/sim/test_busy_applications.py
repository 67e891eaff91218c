"""Requests and answers between applications that are often prompt and sometimes late, over loss. In virtual time.

A channel has no thread: what it acknowledges waits while its application does something else, and the peer must take
that neither for the end of the connection nor for the delay of the path.
"""

import random

import pytest

from tests.support.content import BytesSink, BytesSource, receive_all
from tests.support.virtual_channels import MS, START_NS, VirtualPath, random_loss
from toolkit.channel import Extent, Statistic
from toolkit.transports.udp.channel import UdpChannel

RTT_NS, REQUESTS, LATE_NS, LATE_SHARE = 40 * MS, 60, 300 * MS, 0.15


def received(channel: UdpChannel) -> bytes:
    """The next message; fails if none comes for a minute."""
    message = channel.receive(timeout_s=60.0)
    assert message is not None
    return message


class LateSink(BytesSink):
    """A sink that takes LATE_NS over each write."""

    def __init__(self, path: VirtualPath) -> None:
        super().__init__()
        self._path = path

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        super().write(file_id, offset, data)
        self._path.work(self._path.far, LATE_NS)


def test_a_late_application_makes_the_path_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets wait in the socket until the application calls, and their acknowledgement until it has written."""
    path = VirtualPath(monkeypatch, RTT_NS)
    found_ms: list[Statistic] = []

    def send(channel: UdpChannel) -> None:
        for offset in range(5):
            channel.send_extent(Extent(0, offset, 1), BytesSource(bytes(5)))
            channel.flush()
            found_ms.append(channel.statistics()["path_rtt_ms"])

    def receive(channel: UdpChannel) -> None:
        path.work(channel, LATE_NS)
        receive_all(channel, LateSink(path))

    path.run(send, receive)
    assert found_ms == [pytest.approx(RTT_NS / MS, abs=0.001)] * 5  # an acknowledgement counts in us


@pytest.mark.parametrize(("seed", "loss"), [(1, 0.0), (2, 0.1), (3, 0.1), (4, 0.3)])
def test_each_request_has_its_answer_in_time(seed: int, loss: float, monkeypatch: pytest.MonkeyPatch) -> None:
    path = VirtualPath(monkeypatch, RTT_NS, random_loss(seed, loss))
    dice = random.Random(seed)
    requests = [dice.randbytes(dice.choice((1, 100, 20_000))) for _ in range(REQUESTS)]
    is_late = [(dice.random() < LATE_SHARE, dice.random() < LATE_SHARE) for _ in requests]

    def ask(channel: UdpChannel) -> list[bytes]:
        answers = []
        for request, (is_client_late, _) in zip(requests, is_late, strict=True):
            channel.send_message(request)
            answers.append(received(channel))
            path.work(channel, LATE_NS if is_client_late else 0)
        channel.close()
        return answers

    def answer(channel: UdpChannel) -> list[bytes]:
        heard = []
        for _, is_server_late in is_late:
            heard.append(received(channel))
            path.work(channel, LATE_NS if is_server_late else 0)
            channel.send_message(heard[-1][::-1])
        channel.close(linger_s=30.0)
        return heard

    heard = path.run(ask, answer)
    assert heard == ([request[::-1] for request in requests], requests), f"seed {seed}"
    least_ns = REQUESTS * RTT_NS + sum(map(sum, is_late)) * LATE_NS
    assert path.now_ns - START_NS < least_ns * (1.1 + 12 * loss), f"seed {seed}"
