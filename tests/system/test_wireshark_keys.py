"""What the Wireshark dissector opens with a key log file, and what it shows without one."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from tests.support.captures import (
    CLIENT_ID,
    DISSECTOR,
    INITIAL,
    PLAINTEXT,
    SERVER_ID,
    data_packet,
    needs_tshark,
    read_fields,
    run_tshark,
    sample_packet,
    tshark,
    with_keys,
    write_capture,
)
from tests.support.repetitions import first_then_long
from toolkit.rudp import wire
from toolkit.rudp.aead_protection import AeadProtection
from toolkit.rudp.wire import PacketType
from toolkit.security import keylog
from toolkit.security.keys import AeadName, TrafficKeys
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import Begin, Offer

pytestmark = [needs_tshark, pytest.mark.long]

TAG = bytes(wire.TAG_BYTES)
OPENED, NO_KEYS, FORGED, NOT_ASKED = "1", "2", "3", "4"
SEALED_FIELDS = [
    *("payload", "largest", "delay_us", "data_window", "message_window", "ect_count", "ce_count", "drop_count"),
    *("range_count", "range.first", "least_unacked", "ack_every_bytes", "max_ack_delay_us", "challenge", "code"),
    *("reason_bytes", "reason", "session.type", "session.path"),
]
ACK = wire.AckPacket([(5, 8), (0, 3)], 12, 1 << 23, 1 << 20, 0, 0, 0)


@pytest.fixture
def key_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file to which keys are logged, which does not exist yet."""
    keylog.warn_once.cache_clear()
    path = tmp_path / "keys"
    monkeypatch.setenv(keylog.VARIABLE, str(path))
    yield path
    keylog.warn_once.cache_clear()


def logged_keys(connection_id: int, aead: AeadName = AeadName.AES_256_GCM, seed: int = 1) -> TrafficKeys:
    """Keys of a direction, of which every generation is logged."""
    secret = random.Random(seed).randbytes(32)
    return keylog.with_key_log("udp", connection_id.to_bytes(8), TrafficKeys(aead, secret))


def make_protection(aead: AeadName = AeadName.AES_256_GCM, update_after: int = 1 << 21) -> AeadProtection:
    """The client's protection of its packets."""
    return AeadProtection(
        logged_keys(SERVER_ID, aead, seed=1), logged_keys(CLIENT_ID, aead, seed=2), update_after=update_after
    )


def session_messages() -> bytes:
    """The beginning of a message stream: BEGIN, and the OFFER of a file, as the channel frames them."""
    offer = Offer(0, (Entry(EntryKind.FILE, b"holiday.jpg", 0o644, 0, 5),), {27: b"grease"})
    return b"".join(wire_message(message.encode()) for message in (Begin(), offer))


def wire_message(message: bytes) -> bytes:
    return (len(message) + 1).to_bytes(4) + b"\0" + message


def states(capture: Path, *preferences: str) -> list[str]:
    """What became of each protected packet."""
    return shown_and_states(capture, *preferences)[1]


def shown_and_states(capture: Path, *preferences: str) -> tuple[set[str], list[str]]:
    """The names of the sealed fields of which anything is shown, and what became of each protected packet."""
    names = ["nettool.protection", *(f"nettool.{name}" for name in SEALED_FIELDS)]
    rows = read_fields(capture, names, "nettool", preferences)
    found = [state for row in rows for state in row.pop("nettool.protection")]
    return {name.removeprefix("nettool.") for row in rows for name, values in row.items() if values}, found


@pytest.mark.parametrize("aead", list(AeadName))
def test_a_sealed_packet_of_each_type_is_opened(aead: AeadName, key_log: Path, tmp_path: Path) -> None:
    protection = AeadProtection(logged_keys(CLIENT_ID, aead), logged_keys(SERVER_ID, aead))
    samples = {kind: sample_packet(kind) for kind in wire.LAYOUTS}
    capture = tmp_path / "capture.pcap"
    write_capture(capture, [(True, protection.seal(packet + TAG)) for packet, _ in samples.values()])
    names = sorted({field.name for layout in wire.LAYOUTS.values() for field in layout.fields})
    others = ["aead", "protection", "payload"]
    rows = read_fields(capture, [f"nettool.{name}" for name in names + others], preferences=with_keys(key_log))
    for (kind, (_, values)), row in zip(samples.items(), rows, strict=True):
        assert row.pop("nettool.aead") == [aead], kind
        assert row.pop("nettool.protection") == [OPENED], kind
        payload = [b"payload".hex()] if kind in (PacketType.DATA, PacketType.MESSAGE) else []
        assert row.pop("nettool.payload") == payload, kind
        shown_values = {name.removeprefix("nettool."): [int(text, 0) for text in texts] for name, texts in row.items()}
        assert shown_values == {name: [values[name]] if name in values else [] for name in names}, kind


def test_without_keys_only_headers_are_shown(key_log: Path, tmp_path: Path) -> None:
    """Neither without a key log file, nor with one of another session."""
    protection = make_protection()
    capture = tmp_path / "capture.pcap"
    packets = [wire.encode_ack(SERVER_ID, 0, ACK), wire.encode_close(SERVER_ID, 1, 1, "disk full")]
    packets += [data_packet(2, 0, session_messages(), kind=PacketType.MESSAGE), data_packet(3, 0, b"content")]
    write_capture(capture, [(True, INITIAL), *((True, protection.seal(packet + TAG)) for packet in packets)])
    other = tmp_path / "other"
    other.write_text(key_log.read_text().replace(f"{SERVER_ID:x}", f"{SERVER_ID + 1:x}"))
    assert shown_and_states(capture, *with_keys(key_log))[0] > {"payload", "range.first", "reason", "session.path"}
    for preferences in ((), with_keys(other), with_keys(tmp_path / "missing")):
        assert shown_and_states(capture, *preferences) == (set(), [NO_KEYS] * 4)
    lines = tshark(capture).splitlines()
    assert "DATA 3, offset 0, protected payload, 7 bytes; give a key log file" in lines[4]
    assert "cannot read the key log file" in tshark(capture, *with_keys(tmp_path / "missing"))


def test_session_messages_and_names_are_shown(key_log: Path, tmp_path: Path) -> None:
    """Even if the packets of the message stream arrive out of order, and some twice."""
    protection = make_protection()
    stream = session_messages()
    cuts = [0, 10, 10, 60, 40, len(stream)]
    pieces = [(start, stream[start:end]) for start, end in ((10, 40), (60, len(stream)), (0, 10), (0, 10), (35, 60))]
    assert cuts[-1] > 60
    packets = [data_packet(n, start, piece, kind=PacketType.MESSAGE) for n, (start, piece) in enumerate(pieces)]
    capture = tmp_path / "capture.pcap"
    write_capture(capture, [(True, INITIAL), *((True, protection.seal(packet + TAG)) for packet in packets)])
    names = ["frame.number", "nettool.session.type", "nettool.session.path"]
    rows = read_fields(capture, names, "nettool.session.type", with_keys(key_log))
    assert [row for row in rows if row["nettool.session.path"]] == [
        {"frame.number": ["6"], "nettool.session.type": ["2"], "nettool.session.path": ["holiday.jpg"]}
    ]
    assert [kind for row in rows for kind in row["nettool.session.type"]] == ["1", "2"]


def test_the_generation_of_keys_is_found(key_log: Path, tmp_path: Path) -> None:
    """Also if the capture begins late, or packets are reordered around a key update."""
    protection = make_protection(update_after=3)
    packets = []
    for number in range(16):
        protection.update_keys(number, number - 1)
        packets.append((True, protection.seal(data_packet(number, 10 * number, b"x" * 10) + TAG)))
    packets[5], packets[6] = packets[6], packets[5]
    capture = tmp_path / "capture.pcap"
    write_capture(capture, packets[4:])
    names = ["nettool.packet_number", "nettool.key_generation", "nettool.payload"]
    rows = read_fields(capture, names, preferences=with_keys(key_log))
    assert [(int(row[names[0]][0]), int(row[names[1]][0])) for row in rows] == [
        (number, number // 3) for number in [4, 6, 5, *range(7, 16)]
    ]
    assert {row[names[2]][0] for row in rows} == {(b"x" * 10).hex()}


def test_a_packet_that_was_changed_does_not_open(key_log: Path, tmp_path: Path) -> None:
    """Wherever the change is. It changes nothing for the packets after it, either."""
    protection = make_protection()
    sealed = protection.seal(wire.encode_ack(SERVER_ID, 7, ACK) + TAG)
    changed = []
    for position in range(len(sealed)):
        packet = bytearray(sealed)
        packet[position] ^= 0x80 if position == 1 else 0x02
        changed.append((True, bytes(packet)))
    capture = tmp_path / "capture.pcap"
    write_capture(capture, [*changed, (True, sealed)], server_port=9000)
    last = len(changed) + 1
    names = ["frame.number", "nettool.protection", "nettool.range.first", "nettool.expert.duplicate"]
    rows = read_fields(capture, names, "nettool.protection == 1 || nettool.range.first", with_keys(key_log))
    assert rows == [dict(zip(names, ([str(last)], [OPENED], ["5", "0"], []), strict=True))]
    forged = read_fields(capture, ["frame.number"], "nettool.expert.forged", with_keys(key_log))
    in_id = [{"frame.number": [str(position + 1)]} for position in range(2, 10)]
    assert len(forged) == len(changed) - len(in_id)
    assert not [row for row in forged if row in in_id]


def test_tags_of_data_need_not_be_checked(key_log: Path, tmp_path: Path) -> None:
    protection = make_protection()
    capture = tmp_path / "capture.pcap"
    packets = [protection.seal(data_packet(0, 0, b"content") + TAG), protection.seal(PING + TAG)]
    forged = packets[0][:-1] + bytes([packets[0][-1] ^ 1])
    write_capture(capture, [(True, INITIAL), *((True, packet) for packet in (*packets, forged))])
    fast = (*with_keys(key_log), "-o", "nettool.verify_data:FALSE")
    assert states(capture, *with_keys(key_log)) == [OPENED, OPENED, FORGED]  # -T fields asks for everything
    found = {
        state: len(tshark(capture, *fast, "-Y", f"nettool.protection == {state}").splitlines())
        for state in (OPENED, FORGED, NOT_ASKED)
    }
    assert found == {OPENED: 1, FORGED: 0, NOT_ASKED: 2}
    by_payload = tshark(capture, *fast, "-Y", 'nettool.payload contains "content"')
    assert [line.split()[0] for line in by_payload.splitlines()] == ["2"]


def test_a_sealed_super_packet_is_split(key_log: Path, tmp_path: Path) -> None:
    """Numbers may have been skipped, and the last packet may be a shorter one of another type."""
    protection = make_protection()
    packets = [data_packet(n, 100 * i, bytes([i]) * 100) for i, n in enumerate([0, 1, 3])]
    whole = b"".join(protection.seal(packet + TAG) for packet in (*packets, PING))
    capture = tmp_path / "capture.pcap"
    write_capture(capture, [(True, INITIAL), (True, whole)])
    names = ["nettool.packet_number", "nettool.type", "nettool.offset", "nettool.payload", "nettool.protection"]
    [row] = read_fields(capture, names, "nettool.segments == 4", with_keys(key_log))
    assert row["nettool.packet_number"] == ["0", "1", "3", "9"]
    assert row["nettool.type"] == ["0x10"] * 3 + ["0x13"]
    assert row["nettool.payload"] == [(bytes([i]) * 100).hex() for i in range(3)]
    assert row["nettool.protection"] == [OPENED] * 4


PING = wire.PING.pack(PacketType.PING, 0, SERVER_ID, 9, 0, 3000, 1000)
CONTENT = data_packet(10, 0, b"content" * 5)


@pytest.mark.parametrize(
    "sign",
    [PING, wire.encode_ack(SERVER_ID, 0, ACK), data_packet(0, 0, session_messages(), kind=PacketType.MESSAGE)],
    ids=["PING", "ACK", "BEGIN"],
)
def test_plaintext_is_recognised(sign: bytes, tmp_path: Path) -> None:
    """By a packet that cannot be a protected one; the packets of both directions follow it."""
    capture = tmp_path / "capture.pcap"
    back = wire.DATA.pack(PacketType.DATA, 0, CLIENT_ID, 0, 0) + b"answer"
    write_capture(capture, [(True, INITIAL), (True, CONTENT), (True, sign), (True, CONTENT), (False, back)])
    names = ["nettool.protection", "nettool.payload"]
    rows = read_fields(capture, names, "nettool.type == 0x10", preferences=())
    assert [row["nettool.payload"] for row in rows] == [[], [(b"content" * 5).hex()], [b"answer".hex()]]
    assert [row["nettool.protection"] for row in rows] == [[NO_KEYS], ["0"], ["0"]]
    forced = ("-o", "nettool.without_keys:protected")
    assert shown_and_states(capture, *forced)[0] == set()
    assert states(capture, *PLAINTEXT) == ["0"] * 4


def test_contradictory_signs_are_reported(key_log: Path, tmp_path: Path) -> None:
    """A forged plaintext PING does not make protected packets plaintext, once a protected PING was seen."""
    sealed = make_protection().seal(PING + TAG)
    for signs in ([sealed, PING], [PING, sealed]):
        capture = tmp_path / "capture.pcap"
        write_capture(capture, [(True, INITIAL), *((True, sign) for sign in signs), (True, CONTENT)])
        rows = read_fields(
            capture, ["frame.number", "nettool.expert.contradiction", "nettool.protection"], preferences=()
        )
        assert [row["frame.number"] for row in rows if row["nettool.expert.contradiction"]] == [["3"]]
        assert rows[-1]["nettool.protection"] == [NO_KEYS]
        assert states(capture, *with_keys(key_log)) == [OPENED if sign is sealed else FORGED for sign in signs] + [
            FORGED
        ]


def test_an_installed_dissector_finds_its_neighbours(key_log: Path, tmp_path: Path) -> None:
    """As in the manual: all files in the folder for personal plugins. Alone, it says what is missing."""
    capture = tmp_path / "capture.pcap"
    write_capture(capture, [(True, INITIAL), (True, make_protection().seal(PING + TAG))])
    plugins = tmp_path / "home" / ".local" / "lib" / "wireshark" / "plugins"
    shutil.copytree(DISSECTOR.parent, plugins)
    arguments = ("-r", str(capture), *with_keys(key_log), "-Y", "nettool.protection")
    assert "PING 9, acknowledge every 3000 bytes" in run_tshark(*arguments, home=tmp_path / "home")
    alone = shutil.copy(DISSECTOR, tmp_path)
    assert "copy nettool_keylog.lua" in run_tshark("-X", f"lua_script:{alone}", *arguments, home=tmp_path)


@pytest.mark.parametrize("seed", first_then_long([1, 2]))
def test_hostile_bytes_are_never_taken_for_sealed_ones(seed: int, key_log: Path, tmp_path: Path) -> None:
    """Sealed packets of every type, changed, cut and joined, with keys and without."""
    rng = random.Random(seed)
    protection = make_protection()
    whole = [protection.seal(packet + TAG) for packet in (PING, CONTENT, wire.encode_ack(SERVER_ID, 3, ACK))]
    datagrams = []
    for _ in range(200):
        packet = bytearray(b"".join(rng.choices(whole, k=rng.randint(1, 3)))[: rng.randint(1, 250)])
        packet[rng.randrange(len(packet))] ^= rng.randint(1, 255)
        datagrams.append((True, bytes(packet)))
    capture = tmp_path / "capture.pcap"
    write_capture(capture, datagrams, server_port=9000)
    for preferences in ((), PLAINTEXT, with_keys(key_log)):
        shown_text = tshark(capture, *preferences, "-V", "-O", "nettool")
        assert "Lua Error" not in shown_text
        assert shown_text.count("\nFrame ") + 1 == len(datagrams)
    only_opened = (*with_keys(key_log), "-o", "nettool.without_keys:protected")
    right = {"payload": {(b"content" * 5).hex()}, "ack_every_bytes": {"3000"}, "range.first": {"5", "0"}}
    rows = read_fields(capture, [f"nettool.{name}" for name in right], "nettool", only_opened)
    for name, values in right.items():
        assert {value for row in rows for value in row[f"nettool.{name}"]} == values, name


def test_the_ciphers_open_what_cryptography_seals(tmp_path: Path) -> None:
    """In the Lua of tshark, for every length up to a few blocks."""
    rng = random.Random(1)
    rows = []
    for name, cipher in (("aes-256-gcm", AESGCM), ("chacha20-poly1305", ChaCha20Poly1305)):
        for size in [*range(135), 1430]:
            key, nonce, associated_data = (
                rng.randbytes(32),
                rng.randbytes(12),
                rng.randbytes(rng.choice((0, 16, 18, 26))),
            )
            text = b"\xff" * size if size % 10 == 7 else rng.randbytes(size)
            sealed = cipher(key).encrypt(nonce, text, associated_data)
            values = (key, nonce, associated_data, text, sealed[:-16], sealed[-16:])
            arguments = ", ".join(f"'{value.hex()}'" for value in values)
            rows.append(f"check('{name}', {arguments})\n")
    script = tmp_path / "check.lua"
    script.write_text(
        f"""
        local ciphers, passed = dofile("{DISSECTOR.parent / "nettool_aead.lua"}"), 0
        local function bytes(text)
            return (text:gsub("..", function(pair) return string.char(tonumber(pair, 16)) end))
        end
        local function check(name, key, nonce, associated_data, text, sealed, tag)
            local cipher = ciphers[name](bytes(key))
            assert(cipher:decrypt(bytes(nonce), bytes(sealed)) == bytes(text), "text of " .. #text / 2 .. " bytes")
            assert(cipher:tag(bytes(nonce), bytes(sealed), bytes(associated_data)) == bytes(tag), "tag")
            passed = passed + 1
        end
        {"".join(rows)}
        print("passed " .. passed)
        """
    )
    capture = tmp_path / "empty.pcap"
    write_capture(capture, [])
    assert f"passed {len(rows)}" in tshark(capture, "-X", f"lua_script:{script}")
