"""Messages: encoding and decoding are inverse, and malformed bytes raise ProtocolError and nothing else."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.repetitions import examples
from toolkit.channel import MAX_MESSAGE_BYTES
from toolkit.errors import ProtocolError
from toolkit.parameters import encode_parameters
from toolkit.transfer.chunks import (
    CHUNK_DIGEST_BYTES,
    MAX_CHUNKS,
    MAX_HELD_RANGES,
    MAX_MESSAGE_CHUNKS,
    ChunkRange,
    Chunks,
    HeldChunks,
    Kept,
    decode_held_untrusted,
    encode_held,
)
from toolkit.transfer.digest import ALGORITHMS
from toolkit.transfer.manifest import (
    MAX_GROUP_ENTRIES,
    MAX_HOLE_BYTES,
    MAX_SIZE_BYTES,
    Entry,
    EntryKind,
)
from toolkit.transfer.message_types import MessageType
from toolkit.transfer.messages import (
    SESSION_VERSION,
    Accept,
    Alive,
    AnyMessage,
    Begin,
    Digests,
    Done,
    End,
    EntryOutcome,
    EntryStatus,
    ErrorMessage,
    ErrorReason,
    FileDigest,
    Hole,
    Offer,
    Result,
    Withdraw,
    decode_untrusted,
)
from toolkit.transfer.reader import MAX_TEXT_BYTES

ids = st.integers(0, 2**32 - 1)
sizes = st.integers(0, MAX_SIZE_BYTES)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=MAX_TEXT_BYTES // 4)
paths = st.binary(max_size=300)
modes = st.integers(0, 0o777)
times = st.integers(-(2**63), 2**63 - 1)


@st.composite
def files(draw: st.DrawFn) -> Entry:
    size = draw(st.none() | sizes)
    content = draw(st.integers(0, MAX_SIZE_BYTES if size is None else size))
    return Entry(EntryKind.FILE, draw(paths), draw(modes), draw(times), size, content)


directories = st.builds(Entry, st.just(EntryKind.DIRECTORY), paths, modes, times)
targets = st.binary(min_size=1, max_size=50).filter(lambda target: 0 not in target)
links = st.builds(Entry, st.just(EntryKind.LINK), paths, modes, times, target=targets)
outcomes = st.builds(EntryOutcome, st.sampled_from(EntryStatus), texts)
decisions = st.builds(EntryOutcome, st.sampled_from([EntryStatus.OK, EntryStatus.REFUSED]), texts)


def lists(elements: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(elements, min_size=1, max_size=5).map(tuple)


@st.composite
def digests(draw: st.DrawFn) -> Digests:
    length = draw(st.sampled_from([algorithm.digest_bytes for algorithm in ALGORITHMS]))
    digest = st.binary(min_size=length, max_size=length)
    return Digests(draw(lists(st.builds(FileDigest, ids, sizes, digest))))


totals = st.none() | st.integers(0, 2**64 - 2)
holes = st.builds(Hole, ids, st.integers(0, MAX_SIZE_BYTES - MAX_HOLE_BYTES), st.integers(1, MAX_HOLE_BYTES))
firsts = st.integers(0, MAX_CHUNKS - MAX_MESSAGE_CHUNKS)
parameters = st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=9), max_size=3)
messages: st.SearchStrategy[AnyMessage] = st.one_of(
    st.builds(Begin, st.sampled_from(ALGORITHMS), totals, totals, parameters=parameters),
    st.builds(Offer, ids, lists(files() | directories | links), parameters),
    st.builds(Accept, ids, lists(decisions), parameters),
    st.builds(Result, ids, lists(outcomes)),
    holes,
    digests(),
    st.builds(End, st.integers(0, 2**64 - 1)),
    st.builds(Done, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    st.builds(ErrorMessage, st.sampled_from(ErrorReason), texts),
    st.just(Alive()),
    st.builds(Withdraw, ids, texts),
    st.builds(Chunks, ids, firsts, lists(st.binary(min_size=CHUNK_DIGEST_BYTES, max_size=CHUNK_DIGEST_BYTES))),
    st.builds(Kept, ids, firsts, lists(st.booleans())),
)


@st.composite
def held_chunks(draw: st.DrawFn) -> HeldChunks:
    """What a receiver holds of some files."""
    held = {}
    for index in sorted(draw(st.sets(st.integers(0, MAX_GROUP_ENTRIES - 1), max_size=4))):
        bounds = sorted(draw(st.sets(st.integers(0, MAX_CHUNKS), min_size=2, max_size=8)))
        pairs = zip(bounds[::2], bounds[1::2], strict=False)
        held[index] = tuple(ChunkRange(first, end - first) for first, end in pairs)
    return held


@settings(max_examples=examples(300))
@given(messages)
def test_a_decoded_message_equals_the_encoded_one(message: AnyMessage) -> None:
    assert decode_untrusted(message.encode()) == message


@settings(max_examples=examples(300))
@given(messages, st.data())
def test_a_damaged_message_raises_or_decodes_to_another_canonical_one(message: AnyMessage, data: st.DataObject) -> None:
    encoded = bytearray(message.encode())
    action = data.draw(st.sampled_from(["flip", "cut", "append"]))
    if action == "flip":
        for _ in range(data.draw(st.integers(1, 3))):
            encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    elif action == "cut":
        del encoded[data.draw(st.integers(0, len(encoded) - 1)) :]
    else:
        encoded += data.draw(st.binary(min_size=1, max_size=9))
    try:
        decoded = decode_untrusted(bytes(encoded))
    except ProtocolError:
        return
    assert action == "flip" or isinstance(decoded, Begin | Offer | Accept)
    assert_canonical(decoded, bytes(encoded))


def assert_canonical(decoded: AnyMessage, encoded: bytes) -> None:
    """Parameters may have any order; nothing is known of a BEGIN of another version."""
    if isinstance(decoded, Begin) and decoded.version != SESSION_VERSION:
        return
    if isinstance(decoded, Begin | Offer | Accept):
        assert sorted(decoded.encode()) == sorted(encoded)
        assert decode_untrusted(decoded.encode()) == decoded
    else:
        assert decoded.encode() == encoded


@settings(max_examples=examples(500))
@given(st.binary(max_size=80))
@example(b"")
def test_garbage_raises_only_protocol_error(garbage: bytes) -> None:
    try:
        decoded = decode_untrusted(garbage)
    except ProtocolError:
        return
    assert_canonical(decoded, garbage)


@pytest.mark.parametrize("kind", list(MessageType))
@settings(max_examples=examples(60))
@given(st.binary(max_size=60))
def test_garbage_after_a_type_raises_only_protocol_error(kind: MessageType, garbage: bytes) -> None:
    try:
        decoded = decode_untrusted(bytes([kind]) + garbage)
    except ProtocolError:
        return
    assert decoded.TYPE is kind


PARAMETERS = encode_parameters({7: b"of the future", 27: b""})


@pytest.mark.parametrize(
    "message",
    [Begin(), Offer(0, (Entry(EntryKind.FILE, b"x", 0, 0),)), Accept(0, (EntryOutcome(EntryStatus.OK),))],
    ids=lambda message: message.TYPE.name,
)
def test_parameters_may_follow_and_unknown_ones_are_ignored(message: Begin | Offer | Accept) -> None:
    decoded = decode_untrusted(message.encode() + PARAMETERS)
    assert isinstance(decoded, type(message))
    assert decoded.parameters == {7: b"of the future", 27: b""}
    assert replace(decoded, parameters={}) == message
    for malformed in (PARAMETERS[:-1], PARAMETERS[:5], PARAMETERS + PARAMETERS):
        with pytest.raises(ProtocolError):
            decode_untrusted(message.encode() + malformed)


@pytest.mark.parametrize("message", [Result(0, (EntryOutcome(EntryStatus.OK),)), Alive(), End(1), Hole(0, 0, 1)])
def test_nothing_may_follow_other_messages(message: AnyMessage) -> None:
    with pytest.raises(ProtocolError, match="trailing"):
        decode_untrusted(message.encode() + PARAMETERS)


def test_begin_of_another_version_decodes_whatever_follows_the_version() -> None:
    future = Begin(version=77).encode() + b"fields of the future"
    assert decode_untrusted(future) == Begin(version=77)
    with pytest.raises(ProtocolError):
        decode_untrusted(Begin().encode() + b"fields of the future")


@pytest.mark.parametrize(
    "entry",
    [
        Entry(EntryKind.FILE, b"x", 0o1000, 0),
        Entry(EntryKind.FILE, b"x", 0o4755, 0),
        Entry(EntryKind.FILE, b"x", 0, 0, MAX_SIZE_BYTES + 1),
        Entry(EntryKind.FILE, b"x", 0, 0, 5, 6),
        Entry(EntryKind.FILE, b"x", 0, 0, 0, 1),
        Entry(EntryKind.DIRECTORY, b"x", 0, 0, 1),
        Entry(EntryKind.DIRECTORY, b"x", 0, 0, None),
        Entry(EntryKind.LINK, b"x", 0, 0),
        Entry(EntryKind.LINK, b"x", 0, 0, target=b"a\0b"),
        Entry(EntryKind.LINK, b"x", 0, 0, target=b"a" * 4096),
        Entry(EntryKind.LINK, b"x", 0, 0, 0, 1, target=b"a"),
        Entry(7, b"x", 0, 0),  # type: ignore[arg-type]
    ],
)
def test_invalid_entries_raise(entry: Entry) -> None:
    with pytest.raises(ProtocolError):
        decode_untrusted(Offer(0, (entry,)).encode())


def test_a_list_has_one_to_max_group_entries_items() -> None:
    entry = Entry(EntryKind.FILE, b"x", 0, 0)
    assert decode_untrusted(Offer(0, (entry,) * MAX_GROUP_ENTRIES).encode())
    for count in (0, MAX_GROUP_ENTRIES + 1):
        for message in (
            Offer(0, (entry,) * count),
            Accept(0, (EntryOutcome(EntryStatus.OK),) * count),
            Result(0, (EntryOutcome(EntryStatus.OK),) * count),
        ):
            with pytest.raises(ProtocolError):
                decode_untrusted(message.encode())


def test_an_accept_may_not_contain_a_result() -> None:
    with pytest.raises(ProtocolError):
        decode_untrusted(Accept(0, (EntryOutcome(EntryStatus.MISMATCHED),)).encode())


def test_the_longest_answer_fits_a_message() -> None:
    longest = EntryOutcome(EntryStatus.REFUSED, "é" * MAX_TEXT_BYTES)
    for message in (Accept(0, (longest,) * MAX_GROUP_ENTRIES), Result(0, (longest,) * MAX_GROUP_ENTRIES)):
        encoded = message.encode()
        assert len(encoded) <= MAX_MESSAGE_BYTES
        decoded = decode_untrusted(encoded)
        assert isinstance(decoded, Accept | Result)
        assert decoded.outcomes[0].reason == "é" * (MAX_TEXT_BYTES // 2)


@given(st.text(max_size=300))
def test_any_text_can_be_encoded(text: str) -> None:
    decoded = decode_untrusted(ErrorMessage(ErrorReason.FAILED, text).encode())
    assert isinstance(decoded, ErrorMessage)
    assert len(decoded.text.encode()) <= MAX_TEXT_BYTES


@settings(max_examples=examples(200))
@given(held_chunks())
def test_the_decoded_chunks_that_a_receiver_holds_equal_the_encoded_ones(held: HeldChunks) -> None:
    assert decode_held_untrusted(encode_held(held)) == held


@settings(max_examples=examples(200))
@given(held_chunks().map(encode_held), st.data())
def test_a_damaged_list_of_held_chunks_raises_or_is_canonical(encoded: bytes, data: st.DataObject) -> None:
    damaged = bytearray(encoded or b"\0")
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        held = decode_held_untrusted(bytes(damaged))
    except ProtocolError:
        return
    assert encode_held(held) == bytes(damaged)


def test_a_list_of_held_chunks_never_exceeds_a_parameter() -> None:
    full = {index: tuple(ChunkRange(2 * number, 1) for number in range(MAX_HELD_RANGES)) for index in range(1000)}
    encoded = encode_held(full)
    assert len(encoded) <= 0xFFFF
    assert len(decode_held_untrusted(encoded)) == 0xFFFF // (4 + MAX_HELD_RANGES * 8)
