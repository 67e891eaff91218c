"""An echo over the reliable protocol takes a round trip of the path, and nothing more. In virtual time."""

import pytest

from tests.support.virtual_channels import MS, VirtualPath
from toolkit.channel import Channel
from toolkit.conversation.echo import echo_messages
from toolkit.conversation.probes import SessionEcho

RTT_NS, INTERVAL_NS, PROBES = 40 * MS, 50 * MS, 50


def test_the_engine_adds_no_delay_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    path = VirtualPath(monkeypatch, RTT_NS)
    times_ns: list[int] = []

    def probe(channel: Channel) -> None:
        echo = SessionEcho(channel)
        for _ in range(PROBES):
            sent_ns = path.now_ns
            echo.send(bytes(56))
            assert echo.receive(1.0) == bytes(56)
            times_ns.append(path.now_ns - sent_ns)
            while (left_ns := sent_ns + INTERVAL_NS - path.now_ns) > 0:
                assert echo.receive(left_ns / 1e9) is None
        echo.close()

    path.run(probe, lambda channel: echo_messages(channel, lambda: False))
    assert times_ns == [RTT_NS] * PROBES
