"""What a side of a conversation accepts of its peer, and when it is over."""

import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.background import together
from tests.support.conversations import talk
from tests.support.memory_transport import MemoryTransport
from toolkit.channel import Address, Channel, TransportOptions
from toolkit.conversation.lines import LineQueue
from toolkit.conversation.talk import Conversation, TalkMessage, describe_talk
from toolkit.errors import PeerClosedError, ProtocolError, RefusedError, TransferError
from toolkit.transfer.messages import Begin, decode_untrusted

HELLO = bytes([TalkMessage.HELLO, 1])
Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    transport = MemoryTransport()
    with closing(transport.listen(Address("here", 1), TransportOptions())) as listener:
        near = transport.connect(listener.address, TransportOptions())
        far = listener.accept(0)
        assert far is not None
        with closing(near), closing(far):
            yield near, far


def end(count: int) -> bytes:
    return bytes([TalkMessage.END]) + struct.pack("!Q", count)


def test_both_sides_hear_everything(pair: Pair) -> None:
    near, far = pair
    ours, theirs = ["", "안녕하세요", "a\tb"], ["one", ""]
    heard = together(lambda: talk(near, ours, True), lambda: talk(far, theirs, False))
    assert heard == [theirs, ours]


def test_a_side_that_says_nothing_hears_everything(pair: Pair) -> None:
    near, far = pair
    assert together(lambda: talk(near, [], True), lambda: talk(far, ["x"] * 5000, False)) == [["x"] * 5000, []]


def test_many_small_messages_at_once_are_all_heard(pair: Pair) -> None:
    near, far = pair
    lines = [bytes([TalkMessage.LINES]) + b"%d" % number for number in range(1000)]
    for message in (HELLO, *lines, end(1000), bytes([TalkMessage.BYE])):
        far.send_message(message)
    with closing(LineQueue()) as outgoing:
        heard: list[str] = []
        outgoing.end()
        Conversation(near, True, outgoing, heard.append).run()
    assert heard == [str(number) for number in range(1000)]


def test_lines_that_are_missing_are_an_error(pair: Pair) -> None:
    near, far = pair
    for message in (HELLO, bytes([TalkMessage.LINES]) + b"one\ntwo", end(3)):
        far.send_message(message)
    with pytest.raises(TransferError, match="has sent 3 lines, and 2 have arrived"):
        talk(near, [], True)


@pytest.mark.parametrize(
    "messages",
    [
        [b"\x99"],
        [b""],
        [HELLO, HELLO],
        [HELLO, b""],
        [HELLO, bytes([TalkMessage.END])],
        [HELLO, bytes([TalkMessage.BYE])],  # before this side's END
        [HELLO, end(0), bytes([TalkMessage.LINES]) + b"one more"],
        [HELLO, end(0), end(0)],
    ],
)
def test_what_no_correct_peer_sends_is_refused(messages: list[bytes], pair: Pair) -> None:
    near, far = pair
    for message in messages:
        far.send_message(message)
    with closing(LineQueue()) as outgoing, pytest.raises(ProtocolError):  # it has not ended: nothing is over
        Conversation(near, True, outgoing, lambda _line: None).run()


def test_a_sender_of_files_is_told_where_it_is(pair: Pair) -> None:
    near, far = pair
    near.send_message(Begin().encode())
    with pytest.raises(RefusedError, match="sends or receives files"):
        talk(far, ["hello"], False)
    answer = near.receive(None, 0)
    assert answer is not None
    assert "this is nettool talk" in str(decode_untrusted(answer))


def test_a_peer_that_leaves_early_is_an_error(pair: Pair) -> None:
    near, far = pair
    far.send_message(HELLO)
    far.close()
    with pytest.raises(PeerClosedError):
        talk(near, ["hello"], True)


def test_a_cancelled_conversation_ends(pair: Pair) -> None:
    near, _ = pair
    with closing(LineQueue()) as outgoing:
        Conversation(near, True, outgoing, lambda _line: None, is_cancelled=lambda: True).run()


def test_a_trace_says_what_is_said() -> None:
    lines = bytes([TalkMessage.LINES]) + "안녕\x1b[0m\nmore".encode()
    assert describe_talk(lines, True) == "sends a line: 안녕\\x1b[0m and 1 more"
    assert describe_talk(end(3), False) == "heard: no more lines follow"
    assert describe_talk(HELLO, True) == ""
