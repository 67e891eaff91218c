"""The record layer: what is sealed opens once, whole and in order, and nothing else does."""

import random
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from toolkit.errors import ProtocolError
from toolkit.security.keylog import with_key_log
from toolkit.security.keys import AeadName, TrafficKeys
from toolkit.transports.tcp import records
from toolkit.transports.tcp.records import (
    LENGTH_BYTES,
    MAX_RECORD_BYTES,
    RecordOpener,
    RecordSealer,
)

KEYS = TrafficKeys(AeadName.AES_256_GCM, bytes(range(32)))
OTHER_KEYS = TrafficKeys(AeadName.AES_256_GCM, bytes(32))
OVERHEAD = LENGTH_BYTES + 16


class Wire:
    """What a socket has received: at most `step` bytes a call, then BlockingIOError, or the end if it is closed."""

    def __init__(self, data: bytes, step: int = 1 << 30, is_closed: bool = False) -> None:
        self.data = data
        self.is_closed = is_closed
        self._step = step

    def receive_into(self, target: memoryview) -> int:
        if not self.data and not self.is_closed:
            raise BlockingIOError
        piece = self.data[: min(self._step, len(target))]
        target[: len(piece)] = piece
        self.data = self.data[len(piece) :]
        return len(piece)


def seal(sealer: RecordSealer, plaintext: bytes) -> bytes:
    sealer.plaintext[: len(plaintext)] = plaintext
    return sealer.seal(len(plaintext)).tobytes()


def sealed(plaintexts: Iterable[bytes], keys: TrafficKeys = KEYS) -> list[bytes]:
    sealer = RecordSealer(keys)
    return [seal(sealer, plaintext) for plaintext in plaintexts]


def opened(data: bytes, step: int = 1 << 30, keys: TrafficKeys = KEYS) -> list[bytes]:
    """Return the plaintext of all records, one for each call that returns some."""
    opener = RecordOpener(Wire(data, step, is_closed=True).receive_into, keys)
    pieces = []
    while piece := opener.take_untrusted(1 << 30):
        pieces.append(piece.tobytes())
    return pieces


@pytest.mark.parametrize("name", AeadName)
@pytest.mark.parametrize("size", [1, 2, 1000, 1 << 16, MAX_RECORD_BYTES])
def test_a_record_opens_to_what_was_sealed(name: AeadName, size: int) -> None:
    keys = TrafficKeys(name, bytes(32))
    plaintext = random.Random(size).randbytes(size)
    [record] = sealed([plaintext], keys)
    assert len(record) == size + OVERHEAD
    assert opened(record, keys=keys) == [plaintext]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 19, 20, 21, 100, 1 << 30])
def test_records_may_arrive_in_any_pieces(step: int) -> None:
    plaintexts = [bytes([n]) * n for n in range(1, 60)]
    assert opened(b"".join(sealed(plaintexts)), step) == plaintexts


def test_a_small_record_is_opened_before_the_next_one_arrives() -> None:
    first, second = sealed([b"first", b"second"])
    arrived = Wire(first)
    opener = RecordOpener(arrived.receive_into, KEYS)
    assert opener.take_untrusted(100) == b"first"
    with pytest.raises(BlockingIOError):
        opener.take_untrusted(100)
    arrived.data = second[:-1]
    with pytest.raises(BlockingIOError):
        opener.take_untrusted(100)
    assert not opener.is_between_records
    arrived.data = second[-1:]
    assert opener.take_untrusted(100) == b"second"
    assert opener.is_between_records


@pytest.mark.parametrize("step", [1, 19, 20, 21, 1 << 30])
def test_a_keep_alive_is_reported_and_brings_nothing_and_disturbs_no_record_that_is_begun(step: int) -> None:
    sealer = RecordSealer(KEYS)
    first = seal(sealer, b"first")
    sealer.plaintext[:3] = b"sec"
    keep_alives = sealer.keep_alive() + sealer.keep_alive()
    sealer.plaintext[3:6] = b"ond"
    arrived = Wire(first + keep_alives + sealer.seal(6).tobytes(), step)
    opener = RecordOpener(arrived.receive_into, KEYS)
    pieces = []
    while arrived.data or not opener.is_between_records:
        with suppress(BlockingIOError):
            pieces.append(opener.take_untrusted(100).tobytes())
    assert pieces == [b"first", b"second"]
    assert opener.keep_alives == 2


def test_plaintext_may_be_taken_in_parts() -> None:
    opener = RecordOpener(Wire(sealed([b"abcdef"])[0]).receive_into, KEYS)
    assert opener.take_untrusted(2) == b"ab"
    assert opener.has_plaintext
    assert not opener.is_between_records
    target = bytearray(3)
    assert opener.receive_into_untrusted(memoryview(target)) == 3
    assert target == b"cde"
    assert opener.take_untrusted(100) == b"f"
    assert not opener.has_plaintext


def test_no_plaintext_is_on_the_wire_and_equal_plaintexts_look_different() -> None:
    plaintext = b"the same every time" * 10
    first, second = sealed([plaintext, plaintext])
    assert plaintext[:19] not in first
    assert first[LENGTH_BYTES:] != second[LENGTH_BYTES:]


@pytest.mark.parametrize("number", [0, 1])
def test_every_flipped_bit_is_noticed_and_the_record_yields_nothing(number: int) -> None:
    whole = sealed([b"first", b"second"])
    for bit in range(8 * len(whole[number])):
        changed = bytearray(whole[number])
        changed[bit // 8] ^= 1 << bit % 8
        data = b"".join([*whole[:number], bytes(changed), *whole[number + 1 :]])
        opener = RecordOpener(Wire(data).receive_into, KEYS)
        for plaintext in (b"first", b"second")[:number]:
            assert opener.take_untrusted(100) == plaintext
        # A length that is too large but possible makes the opener wait for the rest of the record.
        with pytest.raises((ProtocolError, BlockingIOError)):
            opener.take_untrusted(100)
        assert not opener.has_plaintext


def test_a_connection_that_ends_at_any_byte_of_a_record_yields_nothing_of_it() -> None:
    first, second = sealed([b"first", b"second"])
    for cut in range(len(second)):
        assert opened(first + second[:cut]) == [b"first"]


@pytest.mark.parametrize(
    "order",
    [[1], [0, 0], [0, 2], [0, 1, 0], [1, 0, 2], [0, 2, 1], [0, 1, 1]],
    ids=["lost first", "repeated", "lost", "replayed", "swapped", "reordered", "repeated later"],
)
def test_records_open_only_once_and_in_order(order: list[int]) -> None:
    whole = sealed([b"a", b"b", b"c"])
    opener = RecordOpener(Wire(b"".join(whole[n] for n in order)).receive_into, KEYS)
    intact = next(position for position, number in enumerate(order) if position != number)
    assert [opener.take_untrusted(10).tobytes() for _ in range(intact)] == [b"a", b"b", b"c"][:intact]
    with pytest.raises(ProtocolError, match="was changed on the way"):
        opener.take_untrusted(10)


def test_nothing_opens_after_a_record_that_does_not() -> None:
    whole = sealed([b"a", b"b", b"c"])
    opener = RecordOpener(Wire(b"".join([whole[1], whole[1], whole[2], whole[0]])).receive_into, KEYS)
    for _ in range(5):
        with pytest.raises(ProtocolError):
            opener.take_untrusted(10)


def test_a_record_of_the_other_direction_does_not_open() -> None:
    with pytest.raises(ProtocolError):
        opened(sealed([b"reflected"], OTHER_KEYS)[0])


def test_a_record_of_another_connection_of_the_session_does_not_open() -> None:
    other = KEYS.derive(b"tcp connection 1")
    with pytest.raises(ProtocolError):
        opened(sealed([b"moved"], other)[0])


@pytest.mark.parametrize("length", [0, 1, 15, MAX_RECORD_BYTES + 17, (1 << 32) - 1])
def test_an_impossible_length_is_refused_before_anything_more_is_read(length: int) -> None:
    arrived = Wire(length.to_bytes(4, "big") + bytes(100))
    opener = RecordOpener(arrived.receive_into, KEYS)
    with pytest.raises(ProtocolError, match="announces a record"):
        opener.take_untrusted(10)
    assert len(arrived.data) == 100


def test_keys_are_updated_by_counting_at_both_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RECORDS_PER_KEY", 3)
    log = tmp_path / "keys"
    monkeypatch.setenv("NETTOOL_KEYLOG", str(log))
    plaintexts = [bytes([n]) for n in range(10)]
    data = b"".join(sealed(plaintexts, with_key_log("tcp", b"", KEYS)))
    generations, _, keys, ivs = zip(*(line.split()[-4:] for line in log.read_text().splitlines()), strict=True)
    assert generations == ("0", "1", "2", "3")
    assert len(set(keys)) == len(set(ivs)) == 4
    assert opened(data) == plaintexts


def test_the_first_record_after_a_key_update_does_not_open_under_the_old_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RECORDS_PER_KEY", 3)
    whole = sealed([b"a", b"b", b"c", b"d"])
    monkeypatch.setattr(records, "RECORDS_PER_KEY", 1 << 16)
    with pytest.raises(ProtocolError):
        opened(b"".join(whole))


def test_keys_are_updated_well_before_2_to_the_23_records() -> None:
    assert records.RECORDS_PER_KEY * MAX_RECORD_BYTES // 16 <= 2**34
    assert records.RECORDS_PER_KEY <= 2**20


def test_what_has_arrived_is_counted_also_within_a_record() -> None:
    """Wherever a stream is cut, what is opened and what is not differ from it by the overhead of records only."""
    plaintexts = [bytes(1 << 14)] * 20
    stream = b"".join(sealed(plaintexts))
    generator = random.Random(5)
    for cut in [generator.randrange(len(stream)) for _ in range(50)]:
        opener = RecordOpener(Wire(stream[:cut]).receive_into, KEYS)
        opened_bytes = 0
        with suppress(BlockingIOError):
            while True:
                opened_bytes += len(opener.take_untrusted(1 << 30))
        assert 0 <= cut - opened_bytes - opener.unopened_bytes <= OVERHEAD * (1 + len(plaintexts)), f"cut at {cut}"
