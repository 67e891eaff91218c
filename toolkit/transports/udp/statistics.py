"""What a channel over UDP reports of itself: see docs/data-format.md."""

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.channel import Statistic
from toolkit.rudp.stats import ConnectionStats
from toolkit.transports.udp.protection import SessionSecurity
from toolkit.transports.udp.socket import DatagramSocket


@dataclass(slots=True)
class HandshakeCounts:
    """The datagrams of a connection's handshake that a listener has received and sent, at its own socket."""

    received: int = 0
    sent: int = 0


def statistics_of(
    stats: ConnectionStats, sock: DatagramSocket, security: SessionSecurity, handshake: HandshakeCounts
) -> Mapping[str, Statistic]:
    """Return the statistics of a channel; its socket may be closed."""
    return {
        "packets_sent": stats.packets_sent,
        "packets_retransmitted": stats.packets_retransmitted,
        "rtt_ms": stats.smoothed_rtt_ns / 1e6,
        "rtt_min_ms": stats.min_rtt_ns / 1e6,
        "path_rtt_ms": stats.path_rtt_ns / 1e6,
        "congestion_control": stats.congestion_control,
        "encryption": security.encryption,
        "authentication": security.admitted.method.name.lower(),
        "bytes_sent": stats.bytes_sent,
        "bytes_delivered": stats.delivered_bytes,
        "is_receiver_limited": int(stats.is_data_blocked),
        "receive_window_bytes": stats.receive_window_bytes,
        "receive_window_limit": "socket" if stats.is_socket_limited else "path",
        "receive_buffer_bytes": sock.receive_buffer_bytes,
        "send_buffer_bytes": sock.room.buffer_bytes,
        "ecn": int(stats.is_ecn_capable),
        "datagrams_sent": sock.datagrams_sent + handshake.sent,
        "datagrams_received": sock.datagrams_received + handshake.received,
        "send_errors": sock.send_errors,
        "local_drops": sock.local_drops,
        "packets_lost": stats.packets_lost,
        "packets_spuriously_lost": stats.packets_spuriously_lost,
        "packets_received": stats.packets_received,
        "packets_duplicate": stats.packets_duplicate,
        "packets_invalid": stats.packets_invalid,
        "peer_socket_drops": stats.peer_dropped_datagrams,
        "socket_drops": sock.drop_count,
        "datagram_bytes": stats.datagram_bytes,
        "congestion_window_bytes": stats.congestion_window_bytes,
        "segmentation_offload": int(sock.can_segment and stats.is_batching),
        "receive_offload": int(sock.can_coalesce),
    }
