"""A side of a conversation that says some lines and listens to the other side."""

from contextlib import closing

from toolkit.channel import Channel
from toolkit.conversation.lines import LineQueue
from toolkit.conversation.talk import Conversation


def talk(channel: Channel, lines: list[str], is_client: bool) -> list[str]:
    """Say the lines, and return what the other side says. The channel stays open."""
    heard: list[str] = []
    with closing(LineQueue()) as outgoing:
        for line in lines:
            outgoing.put(line.encode())
        outgoing.end()
        Conversation(channel, is_client, outgoing, heard.append).run()
    return heard
