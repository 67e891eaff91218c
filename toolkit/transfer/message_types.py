"""The types of the session's messages. Their fields are in messages.py and chunks.py."""

from enum import IntEnum


class MessageType(IntEnum):
    """The type of a message, its first byte."""

    BEGIN = 1
    OFFER = 2
    ACCEPT = 3
    HOLE = 4
    DIGESTS = 5
    RESULT = 6
    END = 7
    DONE = 8
    ERROR = 9
    ALIVE = 10
    WITHDRAW = 11
    CHUNKS = 12
    KEPT = 13
