"""A conversation over the reliable protocol on UDP, over a path that loses packets in both directions. Virtual time."""

import itertools
from contextlib import closing, suppress

import pytest

from tests.support.content import BytesSource
from tests.support.conversations import talk
from tests.support.virtual_channels import MS, VirtualPath, random_loss
from toolkit.channel import Channel, Extent
from toolkit.errors import PeerClosedError, RefusedError
from toolkit.transfer.messages import Begin, ErrorMessage, decode_untrusted

LINES, LOSS = 10_000, 0.05


def say(channel: Channel, lines: list[str], is_client: bool) -> list[str]:
    """Say the lines, return what the other side says, and close the channel."""
    with closing(channel):
        return talk(channel, lines, is_client)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_line_arrives_once_in_order_both_ways_at_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = ([f"{side} {number}" for number in range(LINES)] for side in ("our line", "their line"))
    path = VirtualPath(monkeypatch, 40 * MS, random_loss(seed, LOSS))
    heard = path.run(lambda channel: say(channel, ours, True), lambda channel: say(channel, theirs, False))
    assert heard == (theirs, ours), f"seed {seed}"


def test_a_sender_of_files_learns_its_mistake_although_its_content_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(channel: Channel) -> bytes | None:
        channel.send_message(Begin().encode())
        channel.send_extent(Extent(0, 0, 100_000), BytesSource(bytes(100_000)))
        with suppress(PeerClosedError):
            channel.flush()
        answer = channel.receive(None, 5.0)
        channel.close()
        return answer

    def listen(channel: Channel) -> None:
        with pytest.raises(RefusedError, match="sends or receives files"):
            say(channel, [], False)

    # Only the content of what the sender sends first arrives.
    sent = itertools.count()
    path = VirtualPath(monkeypatch, 40 * MS, lambda _now, sender, _data: sender == "near" and next(sent) < 3)
    answer, _ = path.run(send, listen)
    assert answer is not None
    assert isinstance(decode_untrusted(answer), ErrorMessage)
