"""The Wireshark dissector on written TCP connections: prefaces, records and frames, whole or not."""

import random
from pathlib import Path

import pytest

from tests.support.captures import (
    ON_ANY_PORT,
    Datagram,
    needs_tshark,
    read_fields,
    tshark,
    with_keys,
    write_tcp_capture,
)
from tests.support.handshakes import make_pair, run_handshake
from tests.support.repetitions import first_then_long
from toolkit.channel import Extent
from toolkit.parameters import encode_parameters
from toolkit.security import keylog
from toolkit.security.keys import AeadName, TrafficKeys
from toolkit.security.messages import Refusal, SecurityField
from toolkit.transfer.messages import Begin, End
from toolkit.transports.tcp import wire
from toolkit.transports.tcp.wire import PrefaceRefusal, PrefaceType

pytestmark = [needs_tshark, pytest.mark.long]

DECODE_AS = ("-d", "tcp.port==50000,nettool_tcp")
GREASE = (27, b"grease")
TOKEN = bytes(range(16))


def prefaces() -> list[Datagram]:
    """The prefaces of a session with a code."""
    messages = run_handshake(*make_pair("code")).messages
    clear = wire.hello_parameters(3, GREASE)
    return [
        (True, wire.encode_hello(clear, messages["P1"])),
        (False, wire.encode_security(PrefaceType.RETRY, messages["P2"])),
        (True, wire.encode_hello(clear, messages["M1"])),
        (False, wire.encode_security(PrefaceType.WELCOME, messages["M2"], GREASE)),
        (True, wire.encode_security(PrefaceType.FINISH, messages["M3"])),
    ]


def refusal() -> bytes:
    """The preface of a server that refuses a code."""
    wrong_code = encode_parameters({SecurityField.REFUSAL: bytes([Refusal.WRONG_CODE])})
    return wire.encode_refusal(PrefaceRefusal.SECURITY, wrong_code)


def frames() -> bytes:
    """A message, content, and another message, in the clear."""
    begin, end = Begin().encode(), End(1).encode()
    content = wire.encode_extent_header(Extent(7, 1000, 300)) + bytes(300)
    first, last = wire.encode_message_header(len(begin)) + begin, wire.encode_message_header(len(end)) + end
    return first + content + last


def records(keys: TrafficKeys, plaintext: bytes, size: int) -> bytes:
    """The plaintext in sealed records of `size` bytes, the first ones of a direction."""
    return sealed(keys, [plaintext[start : start + size] for start in range(0, len(plaintext), size)])


def sealed(keys: TrafficKeys, pieces: list[bytes]) -> bytes:
    """Each piece in a record, the first ones of a direction."""
    records = []
    for number, piece in enumerate(pieces):
        length = (len(piece) + 16).to_bytes(4)
        records.append(length + keys.aead.encrypt(keys.nonce(number), piece, length))
    return b"".join(records)


def logged_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_client: bool) -> TrafficKeys:
    """Keys of one side of a first connection, which the key log `tmp_path / "keys"` has."""
    monkeypatch.setenv(keylog.VARIABLE, str(tmp_path / "keys"))
    keylog.warn_once.cache_clear()
    keys = TrafficKeys(AeadName.AES_256_GCM, bytes(32))
    keylog.log_keys("tcp", TOKEN + bytes(2) + bytes([not is_client]), keys)
    keylog.warn_once.cache_clear()
    return keys


def test_prefaces_are_shown_by_name(tmp_path: Path) -> None:
    capture = tmp_path / "capture.pcap"
    join = wire.encode_join(wire.Join(TOKEN, 2, bytes(32)))
    write_tcp_capture(capture, [prefaces(), [(True, join), (False, wire.encode_joined())], [(False, refusal())]])
    names = ["nettool_tcp.type", "nettool.security.id", "nettool.security.nameplate", "nettool_tcp.number"]
    rows = [list(row.values()) for row in read_fields(capture, names, "nettool_tcp", ())]
    assert rows == [
        [["1"], ["1", "2", "3"], ["7"], []],
        [["5"], ["3"], [], []],
        [["1"], ["1", "2", "3", "4"], ["7"], []],
        [["2"], ["4"], [], []],
        [["6"], ["4"], [], []],
        [["7"], [], [], ["2"]],
        [["8"], [], [], []],
        [["4"], ["5"], [], []],
    ]
    shown = tshark(capture, "-V", "-O", "nettool_tcp")
    for line in ("GREASE 0x1b", "connections of the session: 3", "reason: SECURITY (1)", "refusal: WRONG_CODE (4)"):
        assert line in shown, line


@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_close_shows_its_code_and_reason(is_sealed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = logged_keys(tmp_path, monkeypatch, is_client=False)
    close = wire.encode_close(3, "this code has ended")
    capture = tmp_path / "capture.pcap"
    write_tcp_capture(capture, [[prefaces()[0], (False, records(keys, close, 1000) if is_sealed else close)]])
    names = ["nettool_tcp.frame.type", "nettool_tcp.close.code", "nettool_tcp.close.reason"]
    rows = read_fields(capture, names, "nettool_tcp.protection", with_keys(tmp_path / "keys"))
    assert [list(row.values()) for row in rows] == [[["3"], ["3"], ["this code has ended"]]]


@pytest.mark.parametrize("aead", list(AeadName))
def test_frames_are_found_wherever_records_end(aead: AeadName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On connections that join, and on the first one, which does not say which one it is."""
    monkeypatch.setenv(keylog.VARIABLE, str(tmp_path / "keys"))
    keylog.warn_once.cache_clear()
    connections = []
    sizes = [1, 10, 64, 65, 1000]
    for number, size in enumerate(sizes):
        keys = TrafficKeys(aead, random.Random(number).randbytes(32))
        keylog.log_keys("tcp", TOKEN + number.to_bytes(2) + b"\1", keys)
        join = (True, wire.encode_join(wire.Join(TOKEN, number, bytes(32))))
        connections.append([join if number else prefaces()[0], (False, records(keys, frames(), size))])
    keylog.warn_once.cache_clear()
    capture = tmp_path / "capture.pcap"
    write_tcp_capture(capture, connections)
    names = ["nettool_tcp.frame.type", "nettool.session.type", "nettool_tcp.frame.file", "nettool_tcp.frame.offset"]
    rows = read_fields(capture, names, "nettool_tcp.protection", with_keys(tmp_path / "keys"))
    assert [list(row.values()) for row in rows] == [[["1", "2", "1"], ["1", "7"], ["7"], ["1000"]]] * len(sizes)
    assert tshark(capture, *with_keys(tmp_path / "keys"), "-Y", "nettool_tcp.protection != 1") == ""


def test_a_keep_alive_within_a_frame_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = logged_keys(tmp_path, monkeypatch, is_client=True)
    capture = tmp_path / "capture.pcap"
    sent = sealed(keys, [frames()[:100], b"", frames()[100:]])
    write_tcp_capture(capture, [[(True, prefaces()[0][1] + sent)]])
    [row] = read_fields(capture, ["nettool_tcp.frame.type"], "nettool_tcp", with_keys(tmp_path / "keys"))
    assert row["nettool_tcp.frame.type"] == ["1", "2", "1"]
    assert "keep-alive" in tshark(capture, *with_keys(tmp_path / "keys"))
    assert tshark(capture, *with_keys(tmp_path / "keys"), "-Y", "nettool_tcp.malformed") == ""


def test_a_record_that_was_changed_does_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = logged_keys(tmp_path, monkeypatch, is_client=True)
    sent = bytearray(records(keys, frames(), 100))
    sent[len(sent) // 2] ^= 1
    capture = tmp_path / "capture.pcap"
    write_tcp_capture(capture, [[(True, prefaces()[0][1] + bytes(sent))]])
    [row] = read_fields(capture, ["nettool_tcp.protection"], "nettool_tcp", with_keys(tmp_path / "keys"))
    assert row["nettool_tcp.protection"].count("3") == 1
    assert set(row["nettool_tcp.protection"]) == {"1", "3"}


@pytest.mark.parametrize("seed", first_then_long([1, 2]))
def test_hostile_streams_are_malformed(tmp_path: Path, seed: int) -> None:
    """Changed, cut and joined in any order, in segments of any size."""
    rng = random.Random(seed)
    keys = TrafficKeys(AeadName.AES_256_GCM, bytes(32))
    parts = [data for _, data in prefaces()] + [refusal(), frames(), records(keys, frames(), 50), rng.randbytes(40)]
    connections = []
    for _ in range(60):
        stream = bytearray(b"".join(rng.choices(parts, k=3)))
        for _ in range(rng.randint(0, 3)):
            stream[rng.randrange(len(stream))] = rng.randrange(256)
        cuts = sorted(rng.sample(range(len(stream)), 3))
        pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        connections.append([(True, bytes(piece)) for piece in pieces if piece])
    capture = tmp_path / "capture.pcap"
    write_tcp_capture(capture, connections)
    shown = tshark(capture, *DECODE_AS, "-V", "-O", "nettool_tcp")
    assert "Lua Error" not in shown
    assert "nettool over TCP" in shown
    assert read_fields(capture, ["frame.number"], "nettool_tcp.malformed", DECODE_AS)


def test_another_protocol_over_tcp_is_not_recognised(tmp_path: Path) -> None:
    rng = random.Random(3)
    capture = tmp_path / "capture.pcap"
    write_tcp_capture(capture, [[(True, b"GET / HTTP/1.1\r\n"), (False, rng.randbytes(100))] for _ in range(50)])
    assert read_fields(capture, ["frame.number"], "nettool_tcp", ()) == []


def test_a_connection_at_the_port_of_another_protocol_is_recognised_if_heuristics_come_first(tmp_path: Path) -> None:
    """As when the kernel chooses port 48898 for a sender."""
    join = wire.encode_join(wire.Join(TOKEN, 1, bytes(32)))
    capture = tmp_path / "capture.pcap"
    write_tcp_capture(capture, [[(True, join), (False, wire.encode_joined())]], server_port=48898)
    assert read_fields(capture, ["nettool_tcp.type"], "nettool_tcp", ()) == []
    rows = read_fields(capture, ["nettool_tcp.type"], "nettool_tcp", ON_ANY_PORT)
    assert [row["nettool_tcp.type"] for row in rows] == [["7"], ["8"]]
