"""The Wireshark dissector, run by tshark on generated captures: every packet type, and a lossy transfer.

A capture is written from datagrams of the encoders and of a simulated transfer. It needs no privileges, and is the
same every time.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.captures import (
    CLIENT_ID,
    DISSECTOR,
    INITIAL,
    LAYOUTS,
    METHOD,
    ON_ANY_PORT,
    PLAINTEXT,
    SERVER_ID,
    Datagram,
    data_packet,
    needs_tshark,
    read_fields,
    sample_packet,
    tshark,
    write_capture,
)
from tests.support.engine_pair import End, Hazards, Pair
from tests.support.handshakes import make_pair, run_handshake
from tests.support.repetitions import first_then_long
from toolkit.parameters import decode_parameters_untrusted, encode_parameters
from toolkit.rudp import wire
from toolkit.rudp.handshake_packets import (
    VERSION,
    InitialPacket,
    Parameter,
    encode_accept,
    encode_finish,
    encode_refuse,
    encode_retry,
    make_offer,
)
from toolkit.rudp.wire import PacketType
from toolkit.security.messages import Refusal, SecurityField

pytestmark = needs_tshark

PROTOCOL = DISSECTOR.parents[1] / "protocol.md"
HEXADECIMAL = {"type", "flags", "version", "connection_id", "challenge"}


@pytest.fixture(scope="module")
def every_type(tmp_path_factory: pytest.TempPathFactory) -> dict[PacketType, dict[str, list[str]]]:
    capture = tmp_path_factory.mktemp("capture") / "types.pcap"
    write_capture(capture, [(True, sample_packet(kind)[0]) for kind in LAYOUTS], server_port=9000)
    names = sorted({field.name for layout in LAYOUTS.values() for field in layout.fields})
    rows = read_fields(capture, [f"nettool.{name}" for name in names])
    assert len(rows) == len(LAYOUTS)
    return dict(zip(LAYOUTS, rows, strict=True))


@pytest.mark.parametrize("kind", list(LAYOUTS), ids=lambda kind: kind.name)
def test_every_field_of_every_type_can_be_filtered_on(
    kind: PacketType, every_type: dict[PacketType, dict[str, list[str]]]
) -> None:
    _, values = sample_packet(kind)
    shown = {name.removeprefix("nettool."): texts for name, texts in every_type[kind].items() if texts}
    assert set(shown) == set(values)
    for name, texts in shown.items():
        assert [int(text, 0) for text in texts] == [values[name]], name
        assert texts[0].startswith("0x") == (name in HEXADECIMAL), name


def test_the_parameters_of_a_handshake_are_shown(tmp_path: Path) -> None:
    capture = tmp_path / "handshake.pcap"
    write_capture(capture, [(True, INITIAL), (False, encode_retry(CLIENT_ID, Parameter.TOKEN, b"t"))])
    rows = read_fields(capture, ["nettool.parameter.id", "nettool.parameter.value"])
    assert [[int(text, 0) for text in row["nettool.parameter.id"]] for row in rows] == [
        [Parameter.VERSIONS, Parameter.TOKEN, Parameter.SECURITY],
        [Parameter.TOKEN],
    ]
    assert rows[0]["nettool.parameter.value"] == [VERSION.to_bytes(4, "big").hex(), b"token".hex(), METHOD.hex()]


def test_ranges_are_shown_as_packet_numbers(tmp_path: Path) -> None:
    ranges = [(5_000_000_005, 5_000_000_007), (4_999_999_000, 5_000_000_000), (4_000_000_000, 4_000_000_001)]
    capture = tmp_path / "ack.pcap"
    write_capture(
        capture, [(False, wire.encode_ack(CLIENT_ID, 3, wire.AckPacket(ranges, 12, 1 << 23, 1 << 20, 0, 0, 0)))]
    )
    names = ["nettool.range.first", "nettool.range.last", "nettool.acked_packets"]
    [row] = read_fields(capture, names, "nettool.range.first == 4999999000")
    assert row == {
        "nettool.range.first": [str(start) for start, _ in ranges],
        "nettool.range.last": [str(end - 1) for _, end in ranges],
        "nettool.acked_packets": [str(sum(end - start for start, end in ranges))],
    }


def test_a_super_packet_is_split(tmp_path: Path) -> None:
    """The payload contains bytes that look like the next header."""
    false_header = data_packet(1, 100, b"")
    packets = [
        data_packet(0, 0, false_header[:17].ljust(100, b"x")),
        data_packet(1, 100, bytes(100)),
        data_packet(2, 200, b"end", flags=1),
    ]
    capture = tmp_path / "gso.pcap"
    handshake = [(True, INITIAL)]
    write_capture(capture, [*handshake, (True, b"".join(packets))])
    names = ["nettool.packet_number", "nettool.offset", "nettool.payload_bytes", "nettool.flags.ack_now"]
    [row] = read_fields(capture, names, "nettool.segments == 3")
    assert list(row.values()) == [["0", "1", "2"], ["0", "100", "200"], ["100", "100", "3"], ["0", "0", "1"]]


def test_notable_packets_are_marked(tmp_path: Path) -> None:
    datagrams = [
        (True, INITIAL),
        (True, data_packet(0, 0, bytes(100))),
        (True, data_packet(2, 200, bytes(100))),
        (True, data_packet(1, 100, bytes(100))),
        (True, data_packet(3, 100, bytes(100))),
        (True, data_packet(3, 100, bytes(100))),
        (False, wire.encode_ack(CLIENT_ID, 0, wire.AckPacket([(0, 4)], 0, 9, 9, 0, 0, 7))),
        (True, wire.encode_close(SERVER_ID, 4, 4, "disk full")),
        (True, wire.DATA.pack(PacketType.DATA, 0, SERVER_ID, 9, 9)),
    ]
    capture = tmp_path / "notable.pcap"
    write_capture(capture, datagrams)
    signs = [f"expert.{name}" for name in ("out_of_order", "retransmission", "duplicate", "socket_drops", "closed")]
    signs.append("malformed")
    rows = read_fields(capture, ["frame.number", *(f"nettool.{name}" for name in signs)])
    marked = {name: [row["frame.number"] for row in rows if row[f"nettool.{name}"]] for name in signs}
    assert marked == {name: [[str(number)]] for number, name in enumerate(signs, 4)}


def test_another_protocol_is_not_recognised(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    capture = tmp_path / "other.pcap"
    write_capture(capture, [(True, random.bytes(int(size))) for size in random.integers(1, 200, 500)])
    assert read_fields(capture, ["frame.number"]) == []


def test_a_handshake_at_the_port_of_another_protocol_is_recognised_if_heuristics_come_first(tmp_path: Path) -> None:
    capture = tmp_path / "capture.pcap"
    write_capture(capture, [(True, INITIAL)], server_port=53)
    assert read_fields(capture, ["nettool.type"], "nettool", ()) == []
    assert read_fields(capture, ["nettool.type"], "nettool", ON_ANY_PORT) == [{"nettool.type": ["0x01"]}]


@pytest.mark.parametrize("seed", first_then_long([1, 2]))
def test_hostile_bytes_are_malformed_packets(tmp_path: Path, seed: int) -> None:
    """Truncated and changed packets of every type, on the port that is always dissected."""
    random = np.random.default_rng(seed)
    datagrams = []
    for kind in LAYOUTS:
        whole = sample_packet(kind)[0]
        for _ in range(40):
            packet = bytearray(whole[: int(random.integers(1, len(whole) + 1))])
            packet[int(random.integers(len(packet)))] = int(random.integers(256))
            datagrams.append((True, bytes(packet)))
    capture = tmp_path / "hostile.pcap"
    write_capture(capture, datagrams, server_port=9000)
    shown = tshark(capture, *PLAINTEXT, "-V", "-O", "nettool")
    assert "Lua Error" not in shown
    assert len(re.findall(r"^Frame ", shown, re.MULTILINE)) == len(datagrams)
    assert read_fields(capture, ["frame.number"], "nettool.malformed")


class RecordingPair(Pair):
    """Records what is sent, with whole super-packets, like a capture at the sender."""

    def __init__(self, seed: int, hazards: Hazards, length: int) -> None:
        self.sent: list[Datagram] = []
        self.retransmissions = 0
        self._highest_end = 0
        super().__init__(seed, hazards, data=length)

    def transmit(self, end: End, peer: End, datagrams: bytes, segment_bytes: int) -> None:
        self.sent.append((end is self.near, datagrams))
        for i in range(0, len(datagrams), segment_bytes):
            if datagrams[i] == PacketType.DATA:
                *_, offset = wire.DATA.unpack_untrusted(datagrams, i)
                self.retransmissions += offset < self._highest_end
                payload_end = offset + min(segment_bytes, len(datagrams) - i) - wire.HEADER_BYTES
                self._highest_end = max(self._highest_end, payload_end)
        super().transmit(end, peer, datagrams, segment_bytes)


def test_a_lossy_transfer_is_dissected_correctly(tmp_path: Path) -> None:
    length = 300_000
    pair = RecordingPair(3, Hazards(loss=0.05, rate_bps=50e6), length)
    pair.near.connection.offer_data(length)
    pair.run(lambda: pair.near.connection.is_fully_acked)
    capture = tmp_path / "transfer.pcap"
    write_capture(capture, [(True, INITIAL), *pair.sent])
    names = ["nettool.packet_number", "nettool.offset", "nettool.payload_bytes", "nettool.retransmission"]
    rows = read_fields(capture, names, "nettool.type == 0x10")
    numbers = [int(n) for row in rows for n in row["nettool.packet_number"]]
    retransmitted = sum(len(row["nettool.retransmission"]) for row in rows)
    arrived = np.zeros(length, np.uint8)
    for row in rows:
        for offset, size in zip(row["nettool.offset"], row["nettool.payload_bytes"], strict=True):
            arrived[int(offset) : int(offset) + int(size)] += 1
    assert numbers == sorted(set(numbers))
    assert arrived.min() == 1
    assert retransmitted == pair.retransmissions > 0


def test_the_key_exchange_is_shown_by_name(tmp_path: Path) -> None:
    """P1 to M3 of a session with a code, of which the ACCEPT arrives in two pieces, the second one first."""
    outcome = run_handshake(*make_pair("code"))
    assert outcome.is_finished
    messages = outcome.messages
    offer = make_offer((27 + 31 * 5, b"grease")) | {0x77: b"later"}
    accept = encode_accept(CLIENT_ID, messages["M2"])
    datagrams = [
        (True, InitialPacket(CLIENT_ID, offer, messages["P1"], b"token").encode()),
        (False, encode_retry(CLIENT_ID, Parameter.SECURITY, messages["P2"])),
        (True, InitialPacket(CLIENT_ID, offer, messages["M1"], b"token").encode()),
        *((False, piece) for piece in reversed(accept)),
        (True, encode_finish(SERVER_ID, messages["M3"])),
        (False, encode_refuse(CLIENT_ID, encode_parameters({SecurityField.REFUSAL: bytes([Refusal.WRONG_CODE])}))),
    ]
    capture = tmp_path / "handshake.pcap"
    write_capture(capture, datagrams)
    names = [f"nettool.{name}" for name in ("security.id", "security.method", "security.nameplate", "security.refusal")]
    rows = [list(row.values()) for row in read_fields(capture, names)]
    assert len(accept) == 2
    assert rows == [
        [["1", "2", "3"], ["2"], ["7"], []],
        [["3"], [], [], []],
        [["1", "2", "3", "4"], ["2"], ["7"], []],
        [[], [], [], []],
        [["4"], [], [], []],
        [["4"], [], [], []],
        [["5"], [], [], ["4"]],
    ]
    [joined] = read_fields(capture, ["nettool.security.value"], "frame.number == 5")
    assert joined["nettool.security.value"] == [decode_parameters_untrusted(messages["M2"])[SecurityField.NOISE].hex()]
    first, *_ = read_fields(capture, ["nettool.parameter.id", "nettool.supported_version"], "frame.number == 1")
    assert first["nettool.supported_version"] == [f"0x{VERSION:08x}"]
    shown = tshark(capture, "-V", "-O", "nettool")
    for line in ("GREASE 0xb6, 6 bytes", "unknown 0x77, 5 bytes", "method: CODE (2)", "refusal: WRONG_CODE (4)"):
        assert line in shown, line


def test_documented_filters_are_valid(tmp_path: Path) -> None:
    _, _, tools = PROTOCOL.read_text("utf-8").partition("\n## Tools")
    filters = re.findall(r"^\| `((?:nettool|_ws)[._][^`]+)` \|", tools, re.MULTILINE)
    assert len(filters) > 10
    capture = tmp_path / "capture.pcap"
    write_capture(capture, [(True, INITIAL)])
    any_of_them = " || ".join(f"({text})" for text in filters)
    assert tshark(capture, "-Y", f"({any_of_them}) && !nettool.type") == ""
