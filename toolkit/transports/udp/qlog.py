"""Writes what a connection reports as qlog, the IETF's format for logs of transport protocols, which qvis can draw.

A qlog file is a header and a list of events; each event has a time in milliseconds, a name and data. This writer uses
JSON text sequences: every record begins with the byte RS and ends with a line feed, so a truncated file can be read up
to its last whole record.

The protocol is not QUIC, but close enough to be described in QUIC's terms (`qlog_packets.py`). What QUIC has no term
for has names of the form `nettool:...`.

The version is 0.3, the newest that qvis loads. Later drafts move the events into one name space
(`quic:packet_sent`, `quic:recovery_metrics_updated`) and keep nearly all fields.

Size and cost: a packet takes about 215 bytes and 1.4 us of CPU, with its share of the acknowledgements. After
DETAIL_BYTES, some 300,000 packets or 450 MB of content, the file holds counts of packets per batch only; after
MAX_BYTES it holds only the end. A warning event marks each limit.

Read: draft-ietf-quic-qlog-main-schema-02 and draft-ietf-quic-qlog-quic-events-02 (these two are qlog 0.3), RFC 7464
      (JSON text sequences).
"""

import json
import math
from collections.abc import Mapping
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.channel import Address
from toolkit.errors import printable
from toolkit.rudp import loss_thresholds, rtt, wire
from toolkit.rudp.batch import Batch, PeerAddress, Transmit
from toolkit.rudp.observer import Timer
from toolkit.rudp.state import ConnectionEvent
from toolkit.rudp.stats import ConnectionStats
from toolkit.transports.udp.qlog_packets import describe

DETAIL_BYTES: Final = 64 << 20
MAX_BYTES: Final = 128 << 20
_BUFFER_BYTES: Final = 1 << 18
_NS_PER_MS: Final = 1_000_000

_ENDINGS: Final = {
    ConnectionEvent.CLOSE: ("local", "application"),
    ConnectionEvent.PEER_CLOSED: ("remote", "application"),
    ConnectionEvent.LOST: ("local", "error"),
}
_TIMERS: Final = {Timer.LOSS: "ack", Timer.PROBE: "pto", Timer.IDLE: "idle_timeout"}
_OWN_NAMES: Final = frozenset({"phase", "congestion_window", "pacing_rate", "min_rtt", "ssthresh"})
"""Values of a controller's snapshot that are written under qlog's own names."""

VantagePoint = Literal["client", "server"]
Number = int | float


class Writable(Protocol):
    """The methods of a binary file that the writer uses."""

    def write(self, data: bytes, /) -> object: ...

    def close(self) -> None: ...


class QlogWriter:
    """A `ConnectionObserver` that writes one file for one connection; `close` ends and closes the file.

    wall_clock_ns: the wall clock (Unix time) at the first event; the times in the file are relative to it
    detail_bytes:  the size of the file from which on packets are only counted
    max_bytes:     the size of the file from which on only the end is written

    A log must not break what it logs: if the file cannot be written (the disk is full), the log ends, and only `close`
    raises that OSError.
    """

    def __init__(
        self,
        file: Writable,
        vantage_point: VantagePoint,
        wall_clock_ns: int = 0,
        local: Address | None = None,
        remote: Address | None = None,
        detail_bytes: int = DETAIL_BYTES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._file = file
        self._local = local
        self._remote = remote
        self._detail_bytes = min(detail_bytes, max_bytes)
        self._max_bytes = max_bytes
        self._has_detail = True
        self._is_full = False
        self._is_closed = False
        self._error: OSError | None = None
        self._written_bytes = 0
        self._buffer: list[str] = []
        self._buffered_bytes = 0
        self._start_ns: int | None = None
        self._last_ns = 0
        self._tag_bytes = 0
        self._metrics: dict[str, Number] = {}
        self._phase: str | None = None
        self._datagram_bytes: int | None = None
        self._is_mtu_found = False
        self._loss_time_ns: int | None = None
        self._idle_expired = False
        header = {
            "qlog_version": "0.3",
            "qlog_format": "JSON-SEQ",
            "title": "nettool",
            "trace": {
                "vantage_point": {"name": "nettool", "type": vantage_point},
                "common_fields": {
                    "time_format": "relative",
                    "reference_time": wall_clock_ns / _NS_PER_MS,
                    "protocol_type": ["nettool"],
                },
            },
        }
        self._append(json.dumps(header, separators=(",", ":")))

    # The ConnectionObserver protocol

    def connection_started(
        self, now_ns: int, local_id: int, peer_id: int, congestion_control: str, tag_bytes: int
    ) -> None:
        self._start_ns = now_ns
        self._tag_bytes = tag_bytes
        data: dict[str, object] = {"protocol": "nettool", "src_cid": f"{local_id:016x}", "dst_cid": f"{peer_id:016x}"}
        for side, address in (("src", self._local), ("dst", self._remote)):
            if address is not None:
                data |= {f"{side}_ip": address.host, f"{side}_port": address.port}
        self._event(now_ns, "connectivity:connection_started", data)
        self._event(
            now_ns,
            "recovery:parameters_set",
            {
                "reordering_threshold": loss_thresholds.PACKET_THRESHOLD,
                "time_threshold": loss_thresholds.TIME_THRESHOLD_EIGHTHS / 8,
                "timer_granularity": rtt.GRANULARITY_NS // _NS_PER_MS,
                "initial_rtt": rtt.INITIAL_RTT_NS / _NS_PER_MS,
                "max_datagram_size": wire.MIN_DATAGRAM_BYTES,
                "persistent_congestion_threshold": loss_thresholds.PERSISTENT_CONGESTION_PTOS,
                "congestion_control": congestion_control,
            },
        )

    def packets_sent(self, now_ns: int, transmit: Transmit) -> None:
        self._packets(now_ns, "sent", transmit.data, transmit.segment_bytes)

    def packets_received(self, now_ns: int, batch: Batch) -> None:
        self._packets(now_ns, "received", batch.data, batch.segment_bytes)

    def packets_lost(
        self, now_ns: int, packet_numbers: NDArray[np.int64], kinds: NDArray[np.uint8], reordered_below: int
    ) -> None:
        for number, kind in zip(packet_numbers.tolist(), kinds.tolist(), strict=True):
            data: dict[str, object] = {
                "header": {"packet_type": "1RTT", "packet_number": number},
                "trigger": "reordering_threshold" if number < reordered_below else "time_threshold",
            }
            if kind == wire.PacketType.PROBE:
                data["is_mtu_probe_packet"] = True
            self._event(now_ns, "recovery:packet_lost", data)

    def spurious_losses_detected(self, now_ns: int, packets: int) -> None:
        self._event(now_ns, "nettool:losses_spurious", {"packets": packets})

    def locally_dropped(self, now_ns: int, packets: int) -> None:
        self._event(now_ns, "nettool:local_drop", {"packets": packets})

    def stats_updated(self, now_ns: int, stats: ConnectionStats) -> None:
        new = _metrics_fields(stats)
        changed = {name: value for name, value in new.items() if self._metrics.get(name) != value}
        self._metrics = new
        if changed:
            self._event(now_ns, "recovery:metrics_updated", changed)
        phase = str(stats.congestion["phase"])
        if phase != self._phase:
            old = {} if self._phase is None else {"old": self._phase}
            self._event(now_ns, "recovery:congestion_state_updated", old | {"new": phase})
            self._phase = phase
        if stats.datagram_bytes != self._datagram_bytes or stats.is_mtu_found != self._is_mtu_found:
            before = {} if self._datagram_bytes is None else {"old": self._datagram_bytes}
            after = {"new": stats.datagram_bytes, "done": stats.is_mtu_found}
            self._event(now_ns, "connectivity:mtu_updated", before | after)
            self._datagram_bytes, self._is_mtu_found = stats.datagram_bytes, stats.is_mtu_found
        if stats.loss_time_ns != self._loss_time_ns:
            timer: dict[str, object] = {"timer_type": "ack", "event_type": "cancelled"}
            if stats.loss_time_ns is not None:
                delta_ms = max(0, stats.loss_time_ns - now_ns) / _NS_PER_MS
                timer |= {"event_type": "set", "delta": delta_ms}
            self._event(now_ns, "recovery:loss_timer_updated", timer)
            self._loss_time_ns = stats.loss_time_ns

    def timer_expired(self, now_ns: int, timer: Timer) -> None:
        self._idle_expired = timer is Timer.IDLE
        if timer is Timer.LOSS:
            self._loss_time_ns = None
        data = {"timer_type": _TIMERS[timer], "event_type": "expired"}
        self._event(now_ns, "recovery:loss_timer_updated", data)

    def path_validated(self, now_ns: int, peer_address: PeerAddress) -> None:
        self._event(now_ns, "nettool:path_updated", {"dst_ip": peer_address[0], "dst_port": peer_address[1]})

    def connection_closed(self, now_ns: int, ended_by: ConnectionEvent, code: int, reason: str) -> None:
        owner, trigger = _ENDINGS[ended_by]
        if self._idle_expired:
            trigger = "idle_timeout"
        data = {"owner": owner, "application_code": code, "reason": printable(reason), "trigger": trigger}
        self._event(now_ns, "connectivity:connection_closed", data, is_last=True)

    def close(self) -> None:
        """Write what is buffered and close the file. Raises OSError if the log is incomplete. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._flush()
        self._file.close()
        if self._error is not None:
            raise self._error

    # Writing

    def _packets(self, now_ns: int, direction: str, data: memoryview, segment_bytes: int) -> None:
        if self._has_detail:
            time = self._time_ms(now_ns)
            for packet in describe(data, segment_bytes, self._tag_bytes):
                self._append(f'{{"time":{time},"name":"transport:packet_{direction}","data":{packet}}}')
            if self._written_bytes + self._buffered_bytes > self._detail_bytes:
                self._has_detail = False
                self._warn(now_ns, "the file has grown large: from here on, packets are only counted")
            return
        count = -(-len(data) // segment_bytes)
        self._event(now_ns, f"transport:datagrams_{direction}", {"count": count, "raw": [{"length": len(data)}]})

    def _event(self, now_ns: int, name: str, data: Mapping[str, object], is_last: bool = False) -> None:
        if self._is_full and not is_last:
            return
        body = json.dumps(data, separators=(",", ":"))
        self._append(f'{{"time":{self._time_ms(now_ns)},"name":"{name}","data":{body}}}')
        if not self._is_full and self._written_bytes + self._buffered_bytes > self._max_bytes:
            self._warn(now_ns, "the file is full: from here on, only the end is written")
            self._is_full = True

    def _warn(self, now_ns: int, message: str) -> None:
        body = json.dumps({"message": message})
        self._append(f'{{"time":{self._time_ms(now_ns)},"name":"loglevel:warning","data":{body}}}')

    def _time_ms(self, now_ns: int) -> float:
        assert self._start_ns is not None, "connection_started comes first"
        self._last_ns = max(self._last_ns, now_ns)
        return (self._last_ns - self._start_ns) / _NS_PER_MS

    def _append(self, record: str) -> None:
        self._buffer.append(f"\x1e{record}\n")
        self._buffered_bytes += len(record) + 2
        if self._buffered_bytes >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        text = "".join(self._buffer)
        self._buffer.clear()
        self._written_bytes += len(text)
        self._buffered_bytes = 0
        if self._error is None:
            try:
                self._file.write(text.encode())
            except OSError as error:
                self._error = error


def _metrics_fields(stats: ConnectionStats) -> dict[str, Number]:
    """Return the metrics by qlog's names: times in milliseconds, rates in bits per second. Unknown ones are absent."""
    fields: dict[str, Number] = {
        "min_rtt": stats.min_rtt_ns / _NS_PER_MS,
        "smoothed_rtt": stats.smoothed_rtt_ns / _NS_PER_MS,
        "latest_rtt": stats.latest_rtt_ns / _NS_PER_MS,
        "rtt_variance": stats.rttvar_ns / _NS_PER_MS,
        "pto_count": stats.pto_count,
        "congestion_window": stats.congestion_window_bytes,
        "bytes_in_flight": stats.bytes_in_flight,
        "pacing_rate": int(stats.pacing_rate_bps),
        "reordering_threshold": stats.packet_threshold,
        "delivered_bytes": stats.delivered_bytes,
        "lost_bytes": stats.lost_bytes,
    }
    ssthresh = stats.congestion.get("ssthresh")
    if isinstance(ssthresh, int | float) and math.isfinite(ssthresh):
        fields["ssthresh"] = int(ssthresh)
    for name, value in stats.congestion.items():
        if name not in _OWN_NAMES and isinstance(value, int | float) and math.isfinite(value):
            fields[name] = value
    return fields
