"""The qlog files of real connections over loopback: which are made and when, and what unknown clients leave."""

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.background import PATIENCE_S
from tests.support.udp_channels import connected, transfer, wait_for_close
from toolkit.channel import Address, TransportOptions
from toolkit.errors import UnreachableError, UsageError
from toolkit.rudp.handshake_packets import InitialPacket, make_offer
from toolkit.rudp.wire import PacketType
from toolkit.transports.udp.connect import UdpTransport
from toolkit.transports.udp.listener import UdpListener
from toolkit.transports.udp.qlog_files import ConnectionLog, LogFiles

LOOPBACK = Address("127.0.0.1", 0)
CONTENT = bytes(range(256)) * 2000


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(record) for record in path.read_bytes().split(b"\x1e")[1:]][1:]


def named(path: Path, name: str) -> list[dict[str, Any]]:
    return [event["data"] for event in events(path) if event["name"] == name]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[UdpListener]:
    made = UdpTransport().listen(LOOPBACK, TransportOptions(qlog=str(tmp_path / "server.sqlog")))
    yield made
    made.close()


def log_transfer(listener: UdpListener, log: Path) -> tuple[int, int]:
    """Send CONTENT through a new connection with a log; returns the packets that the client sent and lost."""
    client, server = connected(listener, TransportOptions(connect_timeout_s=PATIENCE_S, qlog=str(log)))
    transfer(client, server, [CONTENT], [b"sent"])
    client.close()
    wait_for_close(server)
    server.close()
    statistics = client.statistics()
    return int(statistics["packets_sent"]), int(statistics["packets_lost"])


def test_each_connection_has_a_file_of_its_own(listener: UdpListener, tmp_path: Path) -> None:
    for session in (1, 2, 3):
        near = tmp_path / f"client-{session}.qlog"
        packets, lost = log_transfer(listener, near)
        far = tmp_path / ("server.sqlog" if session == 1 else f"server-{session}.sqlog")
        sent = named(near, "transport:packet_sent")
        after_handshake = [p for p in sent if p["header"]["packet_type"] == "1RTT"]
        eliciting = [
            p for p in after_handshake if not {f["frame_type"] for f in p["frames"]} & {"ack", "connection_close"}
        ]
        assert len(eliciting) == packets
        probes = sum("is_mtu_probe_packet" in loss for loss in named(near, "recovery:packet_lost"))
        assert len(named(near, "recovery:packet_lost")) == lost + probes
        streamed = {
            number
            for packet in named(far, "transport:packet_received")
            for frame in packet.get("frames", [])
            if frame["frame_type"] == "stream" and frame["stream_id"] == 0
            for number in range(frame["offset"], frame["offset"] + frame["length"])
        }
        assert streamed == set(range(len(CONTENT)))
        assert named(near, "connectivity:connection_closed")[0]["owner"] == "local"
        assert named(far, "connectivity:connection_closed")[0]["owner"] == "remote"
        started, answered = (named(path, "connectivity:connection_started")[0] for path in (near, far))
        assert (started["src_cid"], started["src_port"]) == (answered["dst_cid"], answered["dst_port"])
        assert (started["dst_cid"], started["dst_port"]) == (answered["src_cid"], answered["src_port"])
    assert len(list(tmp_path.iterdir())) == 6


def test_forged_first_packets_make_no_files(listener: UdpListener, tmp_path: Path) -> None:
    strangers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(5)]
    for i, stranger in enumerate(strangers):
        stranger.settimeout(PATIENCE_S)
        stranger.sendto(InitialPacket(i, make_offer(), b"m").encode(), listener.address)
        assert stranger.recv(2048)[0] == PacketType.RETRY
    log_transfer(listener, tmp_path / "client.qlog")
    listener.close()
    for stranger in strangers:
        stranger.close()
    assert {path.name for path in tmp_path.iterdir()} == {"client.qlog", "server.sqlog"}
    assert named(tmp_path / "server.sqlog", "connectivity:connection_closed")


def test_a_file_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    options = TransportOptions(qlog=str(tmp_path / "missing" / "a.qlog"))
    with pytest.raises(UsageError, match="no such file or directory; choose another file with `qlog`"):
        UdpTransport().listen(LOOPBACK, options)
    with pytest.raises(UsageError, match="no such file or directory"):
        UdpTransport().connect(Address("127.0.0.1", 9), options)


def test_a_failed_connection_leaves_no_file_open(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(LOOPBACK)
        port = taken.getsockname()[1]
    options = TransportOptions(qlog=str(tmp_path / "a.qlog"), connect_timeout_s=1)
    with pytest.raises(UnreachableError):
        UdpTransport().connect(Address("127.0.0.1", port), options)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    listener = UdpTransport().listen(LOOPBACK, TransportOptions())
    with caplog.at_level(logging.WARNING):
        log_transfer(listener, Path("/dev/full"))
    listener.close()
    assert [record.message for record in caplog.records] == ["the qlog is incomplete: no space left on device"]


def test_a_warning_names_the_file_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Log-2.qlog").write_text("mine")
    files = LogFiles("Log.qlog")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            log = ConnectionLog(files, "server", LOOPBACK, LOOPBACK)
            log.begin()
            log.close()
    (message,) = [record.message for record in caplog.records]
    assert message.startswith("the qlog is incomplete: Log-2.qlog exists and nettool did not write it")
