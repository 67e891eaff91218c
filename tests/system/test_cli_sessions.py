"""A receiver that runs for long: after hundreds of sessions it holds no more descriptors and memory than before."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.background import wait_until
from tests.support.cli_process import everything_below, receiver
from toolkit.channel import Address, Channel, TransportOptions
from toolkit.transfer import send
from toolkit.transports.registry import transport as transport_named

SESSIONS = 400


@contextmanager
def closed(channel: Channel) -> Iterator[Channel]:
    """Close the channel at the end of the block, or abort it after an error."""
    try:
        yield channel
        channel.close()
    finally:
        channel.abort()


def descriptors(process_id: int | str) -> int:
    """The number of open descriptors of a process."""
    return len(os.listdir(f"/proc/{process_id}/fd"))


def resident_bytes(process_id: int) -> int:
    """The resident memory of a process."""
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.long
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_many_sessions_leak_nothing(transport: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    chosen = transport_named(transport)
    with receiver(incoming, "--overwrite") as receiving:
        process_id = receiving.process.pid
        address = Address("127.0.0.1", receiving.port)

        def run(sessions: int) -> None:
            count = receiving.said.count("received 1 file")
            for _ in range(sessions):
                with closed(chosen.connect(address, TransportOptions())) as channel:
                    send(channel, [path])
            receiving.wait_for("received 1 file", count + sessions)

        run(20)
        ours, theirs, memory_bytes = descriptors("self"), descriptors(process_id), resident_bytes(process_id)
        for _ in range(10):  # in between, `run` reads the receiver's stderr: a full pipe would block it
            run(SESSIONS // 10)
        assert descriptors("self") <= ours
        wait_until(lambda: descriptors(process_id) <= theirs, "the receiver closes its descriptors")
        assert resident_bytes(process_id) < memory_bytes + (12 << 20)
        assert receiving.end(signal.SIGTERM).code == 130
    assert everything_below(incoming) == ["file"]
