"""The snapshot of a connection that drivers, logs and results read."""

from dataclasses import dataclass

from toolkit.rudp.ack_tracker import AckTracker
from toolkit.rudp.flow_control import ReceiveWindow
from toolkit.rudp.sender import Sender


@dataclass(frozen=True, slots=True)
class ConnectionStats:
    """What `Connection.stats` returns: the state of the path now, and totals since the connection began.

    Times are in nanoseconds, sizes in bytes, rates in bits per second. Packet sizes are those of UDP datagrams, without
    IP and UDP headers. A change of path resets the fields of the path, but no total.

    The path (RFC 9002):

    latest_rtt_ns, min_rtt_ns, smoothed_rtt_ns, rttvar_ns: see `RttEstimator`
    pto_ns:                   probe timeout without acknowledgement delay and without back-off
    pto_count:                probe timeouts in a row, with nothing acknowledged in between
    packet_threshold:         reordering threshold of loss detection, in packets
    loss_time_ns:             when the next packet is old enough to be declared lost; None for never
    congestion_control:       name of the controller
    congestion_window_bytes, pacing_rate_bps: what the controller allows
    congestion:               the controller's own snapshot, with its `phase`
    datagram_bytes:           largest datagram that is known to fit the path
    is_mtu_found:             whether the MTU search has ended

    Sent:

    next_packet_number:       packet number of the next packet
    bytes_in_flight:          sent, and neither acknowledged nor declared lost
    packets_sent, bytes_sent: packets that elicit an acknowledgement
    packets_retransmitted:    packets that carried retransmitted data
    packets_lost, lost_bytes: declared lost, without probes of the path MTU
    packets_spuriously_lost:  declared lost, but acknowledged later
    delivered_bytes:          acknowledged
    data_sent_bytes:          bytes of the data stream that were sent at least once
    message_sent_bytes:       the same for the message stream
    data_send_limit:          stream offset up to which the peer accepts data
    is_data_blocked:          data waits, and only the peer's receive window holds it back

    Received:

    data_receive_limit:       stream offset up to which this side accepts data
    packets_received:         packets that elicit an acknowledgement, duplicates included
    packets_duplicate:        those of them that had arrived before
    packets_invalid:          datagrams that no correct peer sends
    peer_dropped_datagrams:   datagrams that the peer's host dropped at its socket, as far as the peer has reported
    """

    latest_rtt_ns: int
    min_rtt_ns: int
    smoothed_rtt_ns: int
    rttvar_ns: int
    pto_ns: int
    pto_count: int
    packet_threshold: int
    loss_time_ns: int | None
    congestion_control: str
    congestion_window_bytes: int
    pacing_rate_bps: float
    congestion: dict[str, float | str]
    datagram_bytes: int
    is_mtu_found: bool

    next_packet_number: int
    bytes_in_flight: int
    packets_sent: int
    bytes_sent: int
    packets_retransmitted: int
    packets_lost: int
    lost_bytes: int
    packets_spuriously_lost: int
    delivered_bytes: int
    data_sent_bytes: int
    message_sent_bytes: int
    data_send_limit: int
    is_data_blocked: bool

    data_receive_limit: int
    packets_received: int
    packets_duplicate: int
    packets_invalid: int
    peer_dropped_datagrams: int


def take_stats(sender: Sender, acks: AckTracker, window: ReceiveWindow, packets_invalid: int) -> ConnectionStats:
    """Return a snapshot of the parts of a connection."""
    recovery, path, streams = sender.recovery, sender.recovery.path, sender.streams
    return ConnectionStats(
        latest_rtt_ns=path.rtt.latest_rtt_ns,
        min_rtt_ns=path.rtt.min_rtt_ns,
        smoothed_rtt_ns=path.rtt.smoothed_rtt_ns,
        rttvar_ns=path.rtt.rttvar_ns,
        pto_ns=path.rtt.pto_ns(0),
        pto_count=path.loss.pto_count,
        packet_threshold=path.loss.packet_threshold,
        loss_time_ns=path.loss.loss_time_ns,
        congestion_control=path.controller.name,
        congestion_window_bytes=path.controller.congestion_window_bytes,
        pacing_rate_bps=path.controller.pacing_rate_bps,
        congestion=path.controller.snapshot(),
        datagram_bytes=path.mtu.datagram_bytes,
        is_mtu_found=path.mtu.is_found,
        next_packet_number=recovery.sent.next_packet_number,
        bytes_in_flight=recovery.bytes_in_flight,
        packets_sent=recovery.packets_sent,
        bytes_sent=recovery.bytes_sent,
        packets_retransmitted=sender.packets_retransmitted,
        packets_lost=recovery.packets_lost,
        lost_bytes=recovery.delivery.lost_bytes,
        packets_spuriously_lost=recovery.packets_spuriously_lost,
        delivered_bytes=recovery.delivery.delivered_bytes,
        data_sent_bytes=streams.data.next_offset,
        message_sent_bytes=streams.messages.next_offset,
        data_send_limit=streams.data.limit,
        is_data_blocked=streams.data.is_blocked,
        data_receive_limit=window.limit,
        packets_received=acks.packets_received,
        packets_duplicate=acks.packets_duplicate,
        packets_invalid=packets_invalid,
        peer_dropped_datagrams=recovery.peer_dropped_datagrams,
    )
