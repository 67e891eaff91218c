"""From the keys of a handshake to protected packets, the key log, and what a channel reports."""

from pathlib import Path

import pytest

from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.protection import Unprotected
from toolkit.security.admission import Admitted, Method
from toolkit.security.keys import AeadName, SessionKeys, TrafficKeys
from toolkit.transports.udp.protection import SessionSecurity, protect

CLIENT, SERVER = 0x1111, 0x2222
KEYS = SessionKeys(
    TrafficKeys(AeadName.AES_256_GCM, bytes(32)), TrafficKeys(AeadName.AES_256_GCM, b"s" * 32), bytes(32)
)


def test_each_side_opens_what_the_other_has_sealed() -> None:
    client = protect((KEYS.client, KEYS.server), CLIENT, SERVER)
    server = protect((KEYS.server, KEYS.client), SERVER, CLIENT)
    packet = wire.PING.pack(wire.PacketType.PING, 0, SERVER, 7, 1, 2, 3)
    sealed = memoryview(client.seal(packet + bytes(client.tag_bytes)))
    assert server.open_untrusted(sealed) == packet
    with pytest.raises(ProtocolError):
        client.open_untrusted(sealed)


def test_no_keys_are_no_protection() -> None:
    assert isinstance(protect(None, CLIENT, SERVER), Unprotected)


def test_keys_are_logged_by_the_id_in_their_packets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "keys"
    monkeypatch.setenv("NETTOOL_KEYLOG", str(log))
    protect((KEYS.client, KEYS.server), CLIENT, SERVER)
    lines = [line.split()[1:5] for line in log.read_text().splitlines()]
    assert lines == [
        ["udp", f"{SERVER:016x}", "0", "aes-256-gcm"],
        ["udp", f"{CLIENT:016x}", "0", "aes-256-gcm"],
    ]


def test_a_channel_reports_both() -> None:
    by_code, openly = Admitted(Method.CODE), Admitted(Method.NONE)
    assert SessionSecurity.of(KEYS, by_code) == ("aes-256-gcm", by_code)
    assert SessionSecurity.of(None, openly) == ("none", openly)
