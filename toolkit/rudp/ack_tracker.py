"""Receive side, part one: which packet numbers have arrived, and when to acknowledge them.

Acknowledgements are SACK ranges of packet numbers with the acknowledgement delay, the receive windows, and counters.
The sender sets their frequency by PING: after how many bytes, and after how much time at most. A packet that is
newly missing, that fills a gap late, or that carries ACK_NOW is acknowledged at once. PING also carries the lowest
packet number that the sender still waits for, so a range is repeated until the sender no longer needs it.

Read: RFC 9000 sections 13.2 and 19.3 (acknowledgements), draft-ietf-quic-ack-frequency, RFC 3168 section 5 (ECN).
"""

from typing import Final

from toolkit.rudp import wire
from toolkit.rudp.range_set import RangeSet

MAX_RANGES: Final = 1 << 16
"""Maximum number of packet-number ranges kept, so that a peer that skips numbers cannot exhaust memory."""

INITIAL_ACK_EVERY_BYTES: Final = 4 * wire.MIN_DATAGRAM_BYTES
INITIAL_MAX_ACK_DELAY_NS: Final = 1_000_000
"""Acknowledgement frequency until the first PING arrives."""

_MAX_ACK_PACKETS: Final = 3
"""Maximum ACK packets per acknowledgement. Ranges that do not fit are older, and were reported before."""


class AckTracker:
    """Report arrivals by the `on_*` methods; `make_acks` once `ack_time_ns` has come.

    A packet whose number has arrived before is a duplicate, or so old that its number is no longer kept (RFC 9000
    section 12.3). Nothing follows from it.

    ack_time_ns:       when the next acknowledgement is due; None while none is
    max_ack_delay_ns:  how long the peer lets an acknowledgement wait
    waited_ns:         how long the packets that are reported had waited in the socket
    send_time_ns:      how long this host takes to seal and send a packet once it is made
    packets_received:  ack-eliciting packets, duplicates included
    packets_duplicate: those of them that had arrived before
    packets_accepted:  packets of any type without duplicates
    largest_eliciting: highest packet number of all, when an ack-eliciting packet had it last
    """

    def __init__(self) -> None:
        self.ack_time_ns: int | None = None
        self.packets_received = 0
        self.packets_duplicate = 0
        self.packets_accepted = 0
        self.largest_eliciting = -1
        self._ack_every_bytes = INITIAL_ACK_EVERY_BYTES
        self.max_ack_delay_ns = INITIAL_MAX_ACK_DELAY_NS
        self.waited_ns = self.send_time_ns = 0
        self._received = RangeSet()
        self._floor = 0  # every packet number below it is a duplicate
        self._least_unacked = 0  # the sender needs no acknowledgement below this packet number
        self._frequency_number = -1  # packet number of the PING that has set the frequency
        self._largest = -1
        self._newest_eliciting = -1  # highest number of an ack-eliciting packet, whatever came after it
        self._newest_eliciting_time_ns = 0
        self._unacked_bytes = 0
        self._is_immediate = False
        self._ect_count = 0
        self._ce_count = 0

    @property
    def bytes_until_ack(self) -> int:
        """How much may still arrive in sequence before an acknowledgement is due; 0 while none is scheduled."""
        return 0 if self.ack_time_ns is None else max(0, self._ack_every_bytes - self._unacked_bytes)

    def on_packet(self, packet_number: int, flags: int, size_bytes: int, now_ns: int) -> None:
        """An ack-eliciting packet has arrived."""
        if flags & wire.Flags.ACK_NOW:
            self._is_immediate = True
        self.on_packets(packet_number, packet_number + 1, size_bytes, now_ns)

    def on_packets(self, start: int, end: int, size_bytes: int, now_ns: int) -> bool:
        """The ack-eliciting packets [start, end) have arrived in order, `size_bytes` in total; return if any is new."""
        count = end - start
        self.packets_received += count
        new = self._add(start, end)
        if not new or new[0] != (start, end):
            accepted = sum(new_end - new_start for new_start, new_end in new)
            self.packets_duplicate += count - accepted
            if not accepted:
                return False
            self.packets_accepted += accepted
        else:
            self.packets_accepted += count
        if start > self._largest + 1 or end <= self._largest:
            self._is_immediate = True  # a new gap, or a late packet that fills one (RFC 9000 section 13.2.1)
        if end > self._largest + 1:
            self._largest = self.largest_eliciting = end - 1
        if end > self._newest_eliciting + 1:
            self._newest_eliciting, self._newest_eliciting_time_ns = end - 1, now_ns - self.waited_ns
        self._unacked_bytes += size_bytes
        if self._is_immediate or self._unacked_bytes >= self._ack_every_bytes:
            self.ack_time_ns = now_ns
        elif self.ack_time_ns is None:
            self.ack_time_ns = now_ns + self.max_ack_delay_ns
        return True

    def is_duplicate(self, packet_number: int) -> bool:
        """Whether a packet with this number has arrived before, or is too old to know."""
        return packet_number <= self._largest and (packet_number < self._floor or packet_number in self._received)

    def on_duplicate(self, is_eliciting: bool) -> None:
        """A packet has arrived whose number is a duplicate."""
        self.packets_received += is_eliciting
        self.packets_duplicate += is_eliciting

    def on_non_eliciting_packet(self, packet_number: int) -> None:
        """A packet that needs no acknowledgement has arrived. Its number is kept, so that it leaves no gap."""
        self._add(packet_number, packet_number + 1)
        self.packets_accepted += 1
        self._largest = max(self._largest, packet_number)

    def on_ack_now(self, now_ns: int) -> None:
        """One of the packets that were just reported carries ACK_NOW."""
        self._is_immediate = True
        self.ack_time_ns = now_ns

    def on_ecn(self, ecn: int, count: int, now_ns: int) -> None:
        """Count the IP ECN field of `count` packets that were reported before. A CE mark is acknowledged at once."""
        if ecn == 0b11:
            self._ce_count += count
            if self.ack_time_ns is not None:
                self.ack_time_ns = now_ns
        elif ecn:
            self._ect_count += count

    def on_ack_frequency(
        self, packet_number: int, least_unacked: int, ack_every_bytes: int, max_ack_delay_ns: int
    ) -> None:
        """Take the contents of the sender's PING. A PING that was overtaken by another one changes nothing."""
        if packet_number <= self._frequency_number:
            return
        self._frequency_number = packet_number
        self._least_unacked = max(self._least_unacked, least_unacked)
        self._forget(min(self._least_unacked, self._largest))
        self._ack_every_bytes = ack_every_bytes
        self.max_ack_delay_ns = max_ack_delay_ns

    def request_ack(self, now_ns: int) -> None:
        """Schedule an acknowledgement that no packet caused, for example of a larger receive window."""
        if self._largest >= 0:
            self.ack_time_ns = now_ns

    def make_acks(
        self, now_ns: int, packet_bytes: int, data_limit: int, message_limit: int, dropped_datagrams: int
    ) -> list[wire.AckPacket]:
        """Return the due acknowledgement in as many packets as its ranges need, newest ranges first.

        `packet_bytes` is the size of a packet without its authentication tag.
        Only the first packet states a delay: the arrival time of older packets is not kept.
        """
        per_packet = wire.max_ack_ranges(packet_bytes)
        limit = per_packet if self._is_immediate else per_packet * _MAX_ACK_PACKETS
        ranges = self._received.newest_first(self._least_unacked, limit)
        self.ack_time_ns = None
        self._is_immediate = False
        self._unacked_bytes = 0
        delay_us = max(0, now_ns + self.send_time_ns - self._newest_eliciting_time_ns) // 1000
        return [
            wire.AckPacket(
                ranges[i : i + per_packet],
                wire.UNKNOWN_DELAY_US if i else delay_us,
                data_limit,
                message_limit,
                self._ect_count,
                self._ce_count,
                dropped_datagrams,
            )
            for i in range(0, len(ranges), per_packet)
        ]

    def _add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Add packet numbers and return the new ones. If there are too many ranges, the oldest half is dropped."""
        new = self._received.add(max(start, self._floor), end)
        if len(self._received) > MAX_RANGES:
            self._forget(self._received.newest_first(0, MAX_RANGES // 2)[-1][0])
        return new

    def _forget(self, floor: int) -> None:
        """Keep no packet numbers below `floor` any longer: all of them count as duplicates."""
        if floor > self._floor:
            self._floor = floor
            self._received.remove(0, floor)
