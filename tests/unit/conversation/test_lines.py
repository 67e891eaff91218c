"""Lines between threads: what a file holds, in order, whatever the pieces in which it is read."""

import os
import select
from contextlib import closing

import pytest

from tests.support.background import Background
from toolkit.conversation.lines import MAX_LINE_BYTES, LineQueue, read_lines


def is_readable(queue: LineQueue) -> bool:
    return bool(select.select([queue], [], [], 0)[0])


def lines_in(*pieces: bytes) -> list[bytes]:
    reading, writing = os.pipe()
    with closing(LineQueue()) as queue:
        reader = Background(lambda: read_lines(reading, queue))
        for piece in pieces:
            os.write(writing, piece)
        os.close(writing)
        found: list[bytes] = []
        while not queue.is_over:
            select.select([queue], [], [])
            found += queue.take(1 << 20)
        reader.outcome()
    os.close(reading)
    return found


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([], []),
        ([b"\n"], [b""]),
        ([b"one\ntw", b"o\n"], [b"one", b"two"]),
        ([b"no newline"], [b"no newline"]),
        ([b"a" * (MAX_LINE_BYTES - 1), b"bc\n"], [b"a" * (MAX_LINE_BYTES - 1) + b"b", b"c"]),
    ],
)
def test_a_file_becomes_its_lines(pieces: list[bytes], lines: list[bytes]) -> None:
    assert lines_in(*pieces) == lines


def test_a_descriptor_that_does_not_block_ends_with_its_file_and_not_before() -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    with closing(LineQueue()) as queue, open(reading, "rb"):
        reader = Background(lambda: read_lines(reading, queue))
        for line in (b"one", b"two"):
            os.write(writing, line + b"\n")
            select.select([queue], [], [])
            assert queue.take(100) == [line]  # what follows, `read_lines` has to wait for
        assert not queue.is_over
        os.close(writing)
        reader.outcome()
        assert queue.is_over


def test_the_descriptor_is_readable_while_there_is_something_to_take() -> None:
    with closing(LineQueue()) as queue:
        assert not is_readable(queue)
        queue.put(b"one")
        queue.put(b"two")
        assert is_readable(queue)
        assert queue.take(1) == [b"one"]
        assert is_readable(queue)
        assert queue.take(100) == [b"two"]
        assert not is_readable(queue)
        queue.end()
        assert is_readable(queue)
        assert queue.is_over


def test_who_puts_lines_in_waits_for_room_and_is_released_when_nobody_takes_them() -> None:
    queue = LineQueue()
    line = bytes(MAX_LINE_BYTES)
    writer = Background(lambda: [queue.put(line) for _ in range(100)])
    assert len(queue.take(1 << 18)) <= 4
    queue.close()
    assert not writer.outcome()[-1]
