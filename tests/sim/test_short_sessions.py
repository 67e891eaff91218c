"""What a session of one small file over UDP costs in packets. In virtual time."""

from collections import Counter
from pathlib import Path

import pytest

from tests.support.virtual_channels import MS, VirtualPath
from toolkit.channel import Channel
from toolkit.rudp.wire import PacketType
from toolkit.transfer import receive, send


def test_the_messages_of_a_small_file_share_packets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """BEGIN with OFFER, then DIGESTS with END; ACCEPT, then RESULT with DONE."""
    file, root = tmp_path / "a", tmp_path / "received"
    file.write_bytes(bytes(1000))
    root.mkdir()
    packets: Counter[tuple[str, int]] = Counter()

    def count(_now_ns: int, name: str, packet: bytes) -> bool:
        packets[name, packet[0]] += 1
        return False

    def send_file(channel: Channel) -> None:
        send(channel, [file])
        channel.close()

    def receive_file(channel: Channel) -> None:
        receive(channel, root)
        channel.close(linger_s=30.0)

    VirtualPath(monkeypatch, MS, count).run(send_file, receive_file)
    assert (root / "a").read_bytes() == bytes(1000)
    assert packets["near", PacketType.MESSAGE] == 2
    assert packets["far", PacketType.MESSAGE] == 2
    assert packets["near", PacketType.DATA] == 1
