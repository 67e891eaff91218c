"""The options that show or keep system calls."""

import socket
from pathlib import Path

import pytest

from toolkit.cli.call_tracing import TraceArguments
from toolkit.errors import TransferError, UsageError


def test_a_full_disk_stops_the_trace_and_nothing_else() -> None:
    made: list[int] = []

    def traced() -> None:
        with TraceArguments(trace_file=Path("/dev/full")).running("tcp-send"):
            for number in range(200):  # more than any buffer holds
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
                made.append(number)

    with pytest.raises(TransferError, match=r"cannot write the calls to /dev/full: no space left on device; "):
        traced()
    assert len(made) == 200


def test_the_error_of_the_block_comes_first() -> None:
    with pytest.raises(UsageError, match=r"^mine$"), TraceArguments(trace_file=Path("/dev/full")).running("tcp-send"):
        raise UsageError("mine")
