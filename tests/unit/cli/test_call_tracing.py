"""The options that show or keep system calls."""

import socket
import subprocess
import sys
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


@pytest.mark.parametrize("command", ["send", "recv"])
def test_a_command_starts_without_what_only_a_trace_file_needs(command: str) -> None:
    script = f"import sys, toolkit.cli.{command}; print(*(name for name in sys.modules if 'comparison.' in name))"
    started = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert started.stdout == "\n"
