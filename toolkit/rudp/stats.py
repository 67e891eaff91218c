"""The snapshot of a connection that drivers, logs and results read."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConnectionStats:
    """What `Connection.stats` returns: the state of the path now, and totals since the connection began.

    Times are in nanoseconds, sizes in bytes, rates in bits per second. Packet sizes are those of UDP datagrams, without
    IP and UDP headers. A change of path resets the fields of the path, but no total.

    The path (RFC 9002):

    latest_rtt_ns, min_rtt_ns, smoothed_rtt_ns, rttvar_ns: see `RttEstimator`
    path_rtt_ns:              the latest sample, without the time for which either host held the packet or its
                              acknowledgement, as far as they know it
    pto_ns:                   probe timeout without acknowledgement delay and without back-off
    pto_count:                probe timeouts in a row, with nothing acknowledged in between
    packet_threshold:         reordering threshold of loss detection, in packets
    loss_time_ns:             when the next packet is old enough to be declared lost; None for never
    congestion_control:       name of the controller
    congestion_window_bytes, pacing_rate_bps: what the controller allows
    congestion:               the controller's own snapshot, with its `phase`
    datagram_bytes:           largest datagram that is known to fit the path
    is_mtu_found:             whether the MTU search has ended
    is_batching:              whether several packets may be sent together
    is_ecn_capable:           whether packets are marked as those of an ECN-capable transport (RFC 3168)

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
    receive_window_bytes:     how far that is beyond the highest byte received, once it is advertised
    is_socket_limited:        drops at this side's socket hold the receive window back
    packets_received:         packets that elicit an acknowledgement, duplicates included
    packets_duplicate:        those of them that had arrived before
    packets_invalid:          datagrams that no correct peer sends
    peer_dropped_datagrams:   datagrams that the peer's host dropped at its socket, as far as the peer has reported
    """

    latest_rtt_ns: int
    path_rtt_ns: int
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
    is_batching: bool
    is_ecn_capable: bool

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
    receive_window_bytes: int
    is_socket_limited: bool
    packets_received: int
    packets_duplicate: int
    packets_invalid: int
    peer_dropped_datagrams: int
