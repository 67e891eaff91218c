"""A session over one or more TCP connections: messages use the first connection, content uses all of them."""

import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from toolkit.channel import (
    MAX_LINGER_S,
    MAX_MESSAGE_BYTES,
    Address,
    Extent,
    ExtentSink,
    ExtentSource,
    Statistic,
    TransportOptions,
)
from toolkit.errors import PeerClosedError
from toolkit.transports.keep_alive import KEEP_ALIVES, FileWait
from toolkit.transports.tcp.handshake import Session
from toolkit.transports.tcp.linger import linger
from toolkit.transports.tcp.pool import StreamPool, slices
from toolkit.transports.tcp.settings import check_loaded, check_options, configure_sending
from toolkit.transports.tcp.stream import TcpStream
from toolkit.transports.tcp.tcp_info import OPTION_ECN, buffer_bytes, congestion_control, tcp_info

_LINGER_S: Final = 2.0
_CA_RECOVERY: Final = 3  # TCP_CA_Recovery; 4 is TCP_CA_Loss (linux/tcp.h)
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, zero seconds


class TcpChannel:
    """See `toolkit.channel.Channel`. Owns the sockets; the first of the session comes first.

    session: what the handshake of the first connection has agreed on
    """

    def __init__(
        self, socks: Sequence[socket.socket], session: Session, peer: Address, idle_timeout_s: float, is_client: bool
    ) -> None:
        self._peer = peer
        self._session = session
        self.admitted = session.admitted  # see Channel
        # A sink's descriptors may be used by one thread only, and one thread only may receive on a connection.
        is_single = len(socks) == 1
        self._streams = [
            TcpStream(
                sock,
                peer,
                idle_timeout_s,
                session.record_keys(number, is_client),
                reads_while_sending=not number,
                may_splice=is_single,
            )
            for number, sock in enumerate(socks)
        ]
        self._first = self._streams[0]
        self._pool = StreamPool(self._streams) if len(self._streams) > 1 else None
        self._is_closed = False
        self._last_statistics: dict[str, Statistic] = {}
        if session.keys is not None:
            KEEP_ALIVES.add(self._first.file_wait, self._first.send_keep_alive)

    @property
    def peer(self) -> Address:
        return self._peer

    @property
    def sockets(self) -> list[socket.socket]:
        """The sockets of the session's connections, the first connection's first."""
        return [stream.socket for stream in self._streams]

    def send_message(self, message: bytes, has_more: bool = False) -> None:
        del has_more  # a message of its own costs little here
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes is longer than {MAX_MESSAGE_BYTES}")
        self._check_open()
        self._first.send_message(message)

    def send_extent(self, extent: Extent, source: ExtentSource) -> None:
        self._check_open()
        if self._pool is not None:
            self._pool.send_extent(extent, source)
            return
        try:
            for piece in slices(extent):
                self._first.send_slice(piece, source, may_hold=True)
        finally:
            source.release(extent)

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        self._check_open()
        if timeout_s != 0:
            with suppress(PeerClosedError):  # what the peer has sent before comes first; then the reader knows why
                self._first.flush()
        return (self._pool or self._first).receive(sink, timeout_s, wake)

    def file_access(self) -> FileWait:
        return self._first.file_wait

    def check_while_waiting(self, check: Callable[[], None]) -> None:
        self._first.wait_check.use(check)

    def flush(self) -> None:
        self._check_open()
        self._first.flush()
        if self._pool is not None:
            self._pool.flush()

    def close(self, linger_s: float | None = None) -> None:
        if self._is_closed:
            return
        linger_s = _LINGER_S if linger_s is None else linger_s
        end_s = time.monotonic() + max(linger_s, MAX_LINGER_S)
        try:
            if self._pool is not None:
                self._pool.stop(is_orderly=self._pool.drain(linger_s, end_s))
                self._pool = None
            with suppress(PeerClosedError):
                self._first.flush()
            for stream in self._streams:
                stream.shut_down()
            for stream in self._streams:
                linger(stream.socket, linger_s / len(self._streams), end_s)
        except BaseException:
            self.abort()
            raise
        self._free()

    def abort(self) -> None:
        if self._is_closed:
            return
        try:
            if self._pool is not None:
                self._pool.stop(is_orderly=False)
        finally:
            for sock in self.sockets:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._free()

    @property
    def acknowledged_bytes(self) -> int:
        return sum(stream.acknowledged_bytes for stream in self._streams)

    def statistics(self) -> Mapping[str, Statistic]:
        return self._last_statistics if self._is_closed else self._read_statistics()

    def choose_sending(self, congestion_control: str | None, rate_bps: float | None, backlog_bytes: int | None) -> None:
        """Send as a side that connected with these TransportOptions. Call it before content. Raises UsageError."""
        options = TransportOptions(
            congestion_control=congestion_control,
            rate_bps=rate_bps,
            backlog_bytes=backlog_bytes,
            streams=len(self._streams),
        )
        check_options(options)
        if congestion_control is not None:
            check_loaded(congestion_control)
        for sock in self.sockets:
            configure_sending(sock, options)

    def _read_statistics(self) -> dict[str, Statistic]:
        infos = [tcp_info(sock) for sock in self.sockets]

        def total(name: str) -> int:
            return sum(info.get(name, 0) for info in infos)

        count = len(infos)
        return {
            "packets_sent": total("segs_out"),
            "packets_retransmitted": total("total_retrans"),
            "rtt_ms": total("rtt") / count / 1e3,
            "rtt_min_ms": min(info.get("min_rtt", 0) for info in infos) / 1e3,
            "congestion_control": congestion_control(self._first.socket),
            "rtt_var_ms": total("rttvar") / count / 1e3,
            "data_packets_sent": total("data_segs_out"),
            "packets_received": total("segs_in"),
            "bytes_sent": total("bytes_sent"),
            "bytes_delivered": total("bytes_acked"),
            "congestion_window_bytes": sum(info.get("snd_cwnd", 0) * info.get("snd_mss", 0) for info in infos),
            "is_recovering": int(any(info.get("ca_state", 0) >= _CA_RECOVERY for info in infos)),
            "bytes_retransmitted": total("bytes_retrans"),
            "delivery_rate_bps": total("delivery_rate") * 8,
            "busy_ms": total("busy_time") / 1e3,
            "rwnd_limited_ms": total("rwnd_limited") / 1e3,
            "sndbuf_limited_ms": total("sndbuf_limited") / 1e3,
            "reordering_seen": total("reord_seen"),
            "duplicates_reported": total("dsack_dups"),
            "unopened_bytes": sum(stream.unopened_bytes for stream in self._streams),
            "streams": count,
            "segment_bytes": min(info.get("snd_mss", 0) for info in infos),
            "send_buffer_bytes": sum(buffer_bytes(sock, socket.SO_SNDBUF) for sock in self.sockets),
            "receive_buffer_bytes": sum(buffer_bytes(sock, socket.SO_RCVBUF) for sock in self.sockets),
            "ecn": int(all(info.get("options", 0) & OPTION_ECN for info in infos)),
            "encryption": "none" if self._session.keys is None else str(self._session.keys.client.aead_name),
            "authentication": self.admitted.method.name.lower(),
        }

    def _check_open(self) -> None:
        if self._is_closed:
            raise PeerClosedError("this side has closed the channel")

    def _free(self) -> None:
        self._last_statistics = self._read_statistics()
        self._is_closed = True
        KEEP_ALIVES.remove(self._first.file_wait)
        self._first.wait_check.use(None)  # it refers to the session, which refers to this channel
        for stream in self._streams:
            stream.free()
