"""qlog files of simulated transfers: they follow the drafts, and they describe what happened."""

import io
import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.engine_pair import FAR_ID, MS, NEAR_ID, SECOND, Hazards, Pair, Source
from tests.support.repetitions import first_then_long
from toolkit.channel import Address
from toolkit.rudp import wire
from toolkit.rudp.batch import Batch, Transmit
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.protection import Unprotected
from toolkit.rudp.state import ConnectionState
from toolkit.transports.udp.qlog import DETAIL_BYTES, MAX_BYTES, QlogWriter
from toolkit.transports.udp.qlog_packets import describe

NUMBER = (int, float)
HEADER = {"packet_type": str, "packet_number": int, "packet_type_bytes": int}
PACKET = ({"header": dict, "raw": dict}, {"frames": list})
TIMER = ({"timer_type": str, "event_type": str}, {"delta": NUMBER})
EVENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "connectivity:connection_started": (
        {},
        {
            "protocol": str,
            "src_ip": str,
            "dst_ip": str,
            "src_port": int,
            "dst_port": int,
            "src_cid": str,
            "dst_cid": str,
        },
    ),
    "connectivity:connection_closed": (
        {},
        {"owner": str, "application_code": int, "reason": str, "trigger": str},
    ),
    "connectivity:mtu_updated": ({"new": int}, {"old": int, "done": bool}),
    "transport:packet_sent": PACKET,
    "transport:packet_received": PACKET,
    "transport:datagrams_sent": ({}, {"count": int, "raw": list}),
    "transport:datagrams_received": ({}, {"count": int, "raw": list}),
    "recovery:parameters_set": (
        {},
        {
            "reordering_threshold": int,
            "time_threshold": NUMBER,
            "timer_granularity": int,
            "initial_rtt": NUMBER,
            "max_datagram_size": int,
            "persistent_congestion_threshold": int,
            "congestion_control": str,
        },
    ),
    "recovery:congestion_state_updated": ({"new": str}, {"old": str}),
    "recovery:loss_timer_updated": TIMER,
    "recovery:packet_lost": ({}, {"header": dict, "trigger": str, "is_mtu_probe_packet": bool}),
    "nettool:losses_spurious": ({"packets": int}, {}),
    "nettool:path_updated": ({"dst_ip": str, "dst_port": int}, {}),
    "loglevel:warning": ({"message": str}, {}),
}
"""Required and optional fields of each event; recovery:metrics_updated may hold any number of numbers."""


@dataclass
class Log:
    """A file and its records."""

    data: bytes = b""
    header: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.events if event["name"] == name]

    def series(self, name: str) -> list[tuple[float, Any]]:
        """Return a metric over time."""
        updates = [event for event in self.events if event["name"] == "recovery:metrics_updated"]
        return [(event["time"], event["data"][name]) for event in updates if name in event["data"]]


class KeptFile(io.BytesIO):
    """A file that keeps its content after it is closed."""

    content = b""

    def close(self) -> None:
        if not self.closed:
            self.content = self.getvalue()
        super().close()


def read(data: bytes) -> Log:
    """Read a JSON text sequence (RFC 7464 section 2.1)."""
    assert data.startswith(b"\x1e")
    assert data.endswith(b"\n")
    records = data[1:].split(b"\x1e")
    assert all(record.endswith(b"\n") and record.count(b"\n") == 1 for record in records)
    values = [json.loads(record) for record in records]
    return Log(data, values[0], values[1:])


def check(log: Log) -> None:
    """Check the rules of the schema: the header, the order of times, the names, and the types of all fields."""
    assert (log.header["qlog_version"], log.header["qlog_format"]) == ("0.3", "JSON-SEQ")
    assert log.header["trace"]["vantage_point"]["type"] in ("client", "server")
    assert log.header["trace"]["common_fields"]["time_format"] == "relative"
    assert all(set(event) == {"time", "name", "data"} for event in log.events)
    times = [event["time"] for event in log.events]
    assert times[0] == 0
    assert all(before <= after for before, after in pairwise(times))
    for event in log.events:
        data = event["data"]
        if event["name"] == "recovery:metrics_updated":
            assert data
            assert all(isinstance(value, NUMBER) for value in data.values())
            continue
        required, optional = EVENTS[event["name"]]
        assert set(required) <= set(data) <= set(required) | set(optional), event
        assert all(isinstance(value, (required | optional)[name]) for name, value in data.items()), event
        if "header" in data:
            assert all(isinstance(value, HEADER[name]) for name, value in data["header"].items())
        if event["name"] == "recovery:packet_lost":
            assert data["trigger"] in ("reordering_threshold", "time_threshold")
        if event["name"] == "recovery:loss_timer_updated":
            assert data["event_type"] in ("set", "expired", "cancelled")
            assert ("delta" in data) == (data["event_type"] == "set")


def transfer(
    seed: int,
    hazards: Hazards,
    length: int = 400_000,
    config: Config | None = None,
    limits: tuple[int, int] = (DETAIL_BYTES, MAX_BYTES),
) -> tuple[Pair, Log, Log]:
    """Send content and a message from near to far, and close."""
    files = KeptFile(), KeptFile()
    near = QlogWriter(
        files[0], "client", 1_700_000_000 * SECOND, Address("10.0.0.1", 4), Address("10.0.0.2", 5), *limits
    )
    far = QlogWriter(files[1], "server", 0, None, None, *limits)
    pair = Pair(seed, hazards, data=length, near_config=config, near_observer=near, far_observer=far)
    pair.near.offer_all([b"hello"])
    pair.run(lambda: pair.near.connection.is_fully_acked)
    pair.near.connection.close(0, "done")
    pair.run(lambda: pair.far.connection.state is ConnectionState.CLOSED)
    answer = pair.far.connection.poll_transmit(pair.now_ns)
    assert answer is not None
    assert answer.data[0] == wire.PacketType.CLOSE
    for writer in (near, far):
        writer.close()
        writer.close()
    return pair, read(files[0].content), read(files[1].content)


LOSSY = Hazards(loss=0.05, reorder=0.02, rate_bps=50e6)


@pytest.mark.parametrize("congestion_control", ["bbr", "cubic", "newreno"])
@pytest.mark.parametrize("seed", first_then_long([1, 2, 3]))
def test_a_lossy_transfer_is_logged_as_it_happened(seed: int, congestion_control: str) -> None:
    pair, near, far = transfer(seed, LOSSY, config=Config(congestion_control=congestion_control))
    stats = pair.near.connection.stats()
    check(near)
    check(far)

    losses = near.named("recovery:packet_lost")
    assert sum("is_mtu_probe_packet" not in loss for loss in losses) == stats.packets_lost > 0
    assert (
        sum(spurious["packets"] for spurious in near.named("nettool:losses_spurious")) == stats.packets_spuriously_lost
    )

    numbers = [sent["header"].get("packet_number") for sent in near.named("transport:packet_sent")]
    assert numbers == sorted(set(numbers))
    skipped = set(range(stats.next_packet_number)) - set(numbers)
    assert len(skipped) <= 2
    assert {loss["header"]["packet_number"] for loss in losses} <= set(numbers)
    arrived = Counter(got["header"].get("packet_number") for got in far.named("transport:packet_received"))
    assert set(arrived) <= set(numbers)

    streams = [f for sent in near.named("transport:packet_sent") for f in sent["frames"] if f["frame_type"] == "stream"]
    assert sum(f["length"] for f in streams if f["stream_id"] == 0) >= 400_000
    assert {f["offset"] for f in streams if f["stream_id"] == 4} == {0}

    acked = {
        number
        for got in near.named("transport:packet_received")
        for f in got.get("frames", [])
        if f["frame_type"] == "ack"
        for low, *high in f["acked_ranges"]
        for number in range(low, (high or [low])[0] + 1)
    }
    assert acked <= set(arrived)


def test_a_loss_has_its_trigger() -> None:
    file = KeptFile()
    writer = QlogWriter(file, "client")
    writer.connection_started(0, 1, 2, "bbr", 0)
    kinds = np.array([wire.PacketType.DATA, wire.PacketType.PROBE, wire.PacketType.MESSAGE], np.uint8)
    writer.packets_lost(7, np.array([3, 4, 5]), kinds, 5)
    writer.close()
    losses = read(file.content).named("recovery:packet_lost")
    assert [(loss["header"]["packet_number"], loss["trigger"]) for loss in losses] == [
        (3, "reordering_threshold"),
        (4, "reordering_threshold"),
        (5, "time_threshold"),
    ]
    assert [loss.get("is_mtu_probe_packet", False) for loss in losses] == [False, True, False]


@pytest.mark.parametrize("seed", first_then_long([1, 2, 3]))
def test_triggers_are_those_of_rfc_9002(seed: int) -> None:
    """Section 6.1: the triggers follow from the acknowledgements in the same file."""
    _, near, _ = transfer(seed, LOSSY, length=1_000_000)
    triggers: Counter[str] = Counter()
    largest_acked, threshold, by_timer = -1, 3, False
    waiting: list[tuple[int, str]] = []
    for event in near.events:
        data, is_over = event["data"], False
        if event["name"] == "recovery:packet_lost":
            waiting.append((data["header"]["packet_number"], data["trigger"]))
        elif event["name"] == "recovery:loss_timer_updated":
            by_timer |= data["event_type"] == "expired"
        elif event["name"] == "recovery:metrics_updated":
            threshold = data.get("reordering_threshold", threshold)
            is_over, by_timer = by_timer, False
        elif event["name"] == "transport:packet_received":  # its consequences are logged before it
            acked = [r[-1] for f in data.get("frames", []) if f["frame_type"] == "ack" for r in f["acked_ranges"]]
            largest_acked = max([largest_acked, *acked])
            is_over = True
        if is_over:
            for number, trigger in waiting:
                is_reordered = number <= largest_acked - threshold
                assert trigger == ("reordering_threshold" if is_reordered else "time_threshold")
                triggers[trigger] += 1
            waiting.clear()
    assert len(triggers) == 2


def test_goodput_window_and_rtt_can_be_drawn() -> None:
    pair, near, _ = transfer(5, Hazards(loss=0.01, rate_bps=20e6), length=1_000_000)
    stats = pair.near.connection.stats()
    delivered = near.series("delivered_bytes")
    assert all(before[1] < after[1] for before, after in pairwise(delivered))
    assert delivered[-1][1] == stats.delivered_bytes
    assert near.series("congestion_window")[-1][1] == stats.congestion_window_bytes
    assert near.series("smoothed_rtt")[-1][1] == stats.smoothed_rtt_ns / MS
    assert near.series("bytes_in_flight")[-1][1] == 0
    seconds = (delivered[-1][0] - delivered[0][0]) / 1000
    goodput_bps = 8 * (delivered[-1][1] - delivered[0][1]) / seconds
    assert 0.7 * 20e6 < goodput_bps <= 20e6


def test_phases_follow_each_other() -> None:
    _, near, _ = transfer(2, LOSSY, length=1_000_000)
    phases = near.named("recovery:congestion_state_updated")
    assert len(phases) > 1
    assert "old" not in phases[0]
    assert all(before["new"] == after["old"] != after["new"] for before, after in pairwise(phases))


def test_both_sides_log_the_start_and_the_end() -> None:
    _, near, far = transfer(1, Hazards())
    assert near.named("connectivity:connection_started")[0] | {"src_cid": "", "dst_cid": ""} == {
        "protocol": "nettool",
        "src_cid": "",
        "dst_cid": "",
        "src_ip": "10.0.0.1",
        "src_port": 4,
        "dst_ip": "10.0.0.2",
        "dst_port": 5,
    }
    assert near.header["trace"]["common_fields"]["reference_time"] == 1_700_000_000_000
    closed = {"application_code": 0, "reason": "done", "trigger": "application"}
    assert near.named("connectivity:connection_closed") == [closed | {"owner": "local"}]
    assert far.named("connectivity:connection_closed") == [closed | {"owner": "remote"}]
    assert near.named("connectivity:mtu_updated")[-1] == {"old": 1200, "new": 1472, "done": True} or near.named(
        "connectivity:mtu_updated"
    ) == [{"new": 1472, "done": True}]


def test_silence_and_its_timers_are_logged() -> None:
    file = KeptFile()
    writer = QlogWriter(file, "client")
    silent_from_ns = SECOND + 20 * MS
    hazards = Hazards(blackout=lambda now_ns: now_ns >= silent_from_ns)
    pair = Pair(1, hazards, data=100_000, near_config=Config(idle_timeout_ns=3 * SECOND), near_observer=writer)
    pair.near.offer()
    pair.run(lambda: pair.near.connection.state is ConnectionState.CLOSED)
    pair.near.connection.poll_transmit(pair.now_ns)
    writer.close()
    log = read(file.content)
    check(log)
    [closed] = log.named("connectivity:connection_closed")
    assert (closed["owner"], closed["trigger"]) == ("local", "idle_timeout")
    expired = Counter(
        timer["timer_type"] for timer in log.named("recovery:loss_timer_updated") if timer["event_type"] == "expired"
    )
    assert expired["pto"] >= 3
    assert expired["idle_timeout"] == 1
    assert max(value for _, value in log.series("pto_count")) == expired["pto"]


def test_a_new_peer_address_is_logged() -> None:
    file = KeptFile()
    writer = QlogWriter(file, "server")
    server = Connection(
        Config(),
        Source(1, 0),
        FAR_ID,
        NEAR_ID,
        1472,
        SECOND,
        Unprotected(),
        observer=writer,
        peer_address=("192.0.2.1", 7),
    )
    data = wire.DATA.pack(wire.PacketType.DATA, 0, FAR_ID, 0, 0) + b"moved"
    server.handle_off_path_batch(Batch(memoryview(data), len(data)), ("192.0.2.2", 8), 0xC0FFEE, SECOND)
    while server.poll_transmit(SECOND) is not None:
        pass
    response = wire.PATH.pack(wire.PacketType.PATH_RESPONSE, 0, FAR_ID, 1, 0xC0FFEE)
    server.handle_batch(Batch(memoryview(response), len(response)), SECOND + MS)
    writer.close()
    log = read(file.content)
    check(log)
    assert log.named("nettool:path_updated") == [{"dst_ip": "192.0.2.2", "dst_port": 8}]
    frames = [f for sent in log.named("transport:packet_sent") for f in sent.get("frames", [])]
    assert {"frame_type": "path_challenge", "data": "0000000000c0ffee"} in frames


def test_an_observer_changes_nothing() -> None:
    class Recording(Pair):
        def __init__(self, writer: QlogWriter | None) -> None:
            self.wire: list[bytes] = []
            super().__init__(7, LOSSY, data=200_000, near_observer=writer)

        def transmit(self, end: Any, peer: Any, datagrams: bytes, segment_bytes: int) -> None:
            self.wire.append(datagrams)
            super().transmit(end, peer, datagrams, segment_bytes)

    runs = []
    for writer in (None, QlogWriter(KeptFile(), "client")):
        pair = Recording(writer)
        pair.near.offer()
        pair.run(lambda pair=pair: pair.near.connection.is_fully_acked)  # type: ignore[misc]
        runs.append(pair.wire)
    assert runs[0] == runs[1]


def test_the_size_of_a_file_is_limited_and_it_says_so() -> None:
    pair, near, _ = transfer(4, LOSSY, length=2_000_000, limits=(40_000, 60_000))
    check(near)
    assert len(near.data) < 62_000
    first, second = near.named("loglevel:warning")
    assert "counted" in first["message"]
    assert "full" in second["message"]
    described = [sent["header"]["packet_number"] for sent in near.named("transport:packet_sent")]
    assert described == list(range(len(described)))
    counted = sum(sent["count"] for sent in near.named("transport:datagrams_sent"))
    assert 0 < len(described) + counted < pair.near.connection.stats().next_packet_number
    assert near.events[-1]["name"] == "connectivity:connection_closed"


def test_a_truncated_file_can_be_read() -> None:
    _, near, _ = transfer(1, Hazards())
    cut = near.data[: len(near.data) * 2 // 3].rpartition(b"\x1e")[0]
    assert read(cut).events == near.events[: len(read(cut).events)]


def test_a_full_disk_ends_the_log_but_not_the_transfer() -> None:
    class Full(io.BytesIO):
        writes = 0

        def write(self, data: Any, /) -> int:
            self.writes += 1
            raise OSError(f"no space left for {len(data)} bytes")

    file = Full()
    writer = QlogWriter(file, "client")
    writer.connection_started(5, 1, 2, "bbr", 0)
    packet = wire.DATA.pack(wire.PacketType.DATA, 0, 1, 0, 0).ljust(1472, b"\0")
    batch = Transmit(memoryview(packet * 45), 1472)
    for now_ns in range(6, 200):
        writer.packets_sent(now_ns, batch)
    with pytest.raises(OSError, match="no space left"):
        writer.close()
    assert file.writes == 1
    assert file.closed


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from([*wire.PacketType, 0, 0x7F, 0xFF]),
    tail=st.integers(0, 150).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    segment_bytes=st.integers(1, 150),
)
def test_any_bytes_can_be_described(kind: int, tail: bytes, segment_bytes: int) -> None:
    data = bytes([kind]) + tail
    segment_bytes = min(segment_bytes, len(data))
    packets = [json.loads(text) for text in describe(memoryview(data), segment_bytes)]
    assert sum(packet["raw"]["length"] for packet in packets) == len(data)
    for packet in packets:
        assert set(packet) <= {"header", "raw", "frames"}
