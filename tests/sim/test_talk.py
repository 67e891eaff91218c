"""A conversation over the reliable protocol on UDP, over a path that loses packets in both directions. Virtual time."""

from contextlib import closing

import pytest

from tests.support.virtual_channels import MS, VirtualPath, random_loss
from toolkit.channel import Channel
from toolkit.conversation.lines import LineQueue
from toolkit.conversation.talk import Conversation

LINES, LOSS = 10_000, 0.05


def say(channel: Channel, lines: list[str], is_client: bool) -> list[str]:
    """Say the lines, and return what the other side says."""
    heard: list[str] = []
    with closing(LineQueue()) as outgoing:
        for line in lines:
            outgoing.put(line.encode())
        outgoing.end()
        Conversation(channel, is_client, outgoing, heard.append).run()
    channel.close()
    return heard


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_line_arrives_once_in_order_both_ways_at_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = ([f"{side} {number}" for number in range(LINES)] for side in ("our line", "their line"))
    path = VirtualPath(monkeypatch, 40 * MS, random_loss(seed, LOSS))
    heard = path.run(lambda channel: say(channel, ours, True), lambda channel: say(channel, theirs, False))
    assert heard == (theirs, ours), f"seed {seed}"
