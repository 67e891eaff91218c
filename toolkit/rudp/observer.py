"""The interface through which a connection reports its events, for logs, plots and diagnosis.

The engine reports batches, as it works on batches: one call per batch of datagrams or per acknowledgement, and a
single test of a reference if there is no observer. It passes what it has (the datagrams, columns of packet numbers,
a snapshot of the state) and formats nothing. An observer cannot change anything.

Packets have the size that they have on the wire, and are in the clear, except for the tag and the payload of DATA and
MESSAGE.

Views of datagrams are valid only during the call. Times are nanoseconds of the driver's clock.
"""

from enum import Enum, auto
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.rudp.batch import Batch, PeerAddress, Transmit
from toolkit.rudp.state import ConnectionEvent
from toolkit.rudp.stats import ConnectionStats


class Timer(Enum):
    """The timers whose expiry is reported."""

    LOSS = auto()  # a packet is old enough to be declared lost (RFC 9002 section 6.1.2)
    PROBE = auto()  # nothing was acknowledged for a probe timeout (section 6.2)
    IDLE = auto()  # nothing arrived for the idle timeout, or nothing in flight was acknowledged for that long


class LossObserver(Protocol):
    """The events that loss recovery reports; `ConnectionObserver` has the others."""

    def packets_lost(
        self, now_ns: int, packet_numbers: NDArray[np.int64], kinds: NDArray[np.uint8], reordered_below: int
    ) -> None:
        """These packets were declared lost: below `reordered_below` by the packet threshold, the others by time.

        `kinds` are packet types. The loss of a PROBE of the path MTU is no sign of congestion.
        """

    def spurious_losses_detected(self, now_ns: int, packets: int) -> None:
        """This many packets that were declared lost have been acknowledged later."""

    def locally_dropped(self, now_ns: int, packets: int) -> None:
        """The last `packets` that were reported as sent never left this host, and count as never sent."""

    def timer_expired(self, now_ns: int, timer: Timer) -> None:
        """A timer has expired; its consequences are reported next."""


class ConnectionObserver(LossObserver, Protocol):
    """Observes one connection, including the losses and timers of `LossObserver`.

    Calls come one after the other: from the thread that drives the connection, or, while that waits for a file, from
    the one that sends a keep-alive. After such a wait, times go back to its beginning.
    """

    def connection_started(
        self, now_ns: int, local_id: int, peer_id: int, congestion_control: str, tag_bytes: int
    ) -> None:
        """The handshake is complete. The ids are the connection ids of each side.

        The last `tag_bytes` of each protected packet are its authentication tag.
        """

    def packets_sent(self, now_ns: int, transmit: Transmit) -> None:
        """These datagrams are handed to the driver."""

    def packets_received(self, now_ns: int, batch: Batch) -> None:
        """These datagrams have arrived and are valid, duplicates included."""

    def stats_updated(self, now_ns: int, stats: ConnectionStats) -> None:
        """An acknowledgement or a timer was processed."""

    def path_validated(self, now_ns: int, peer_address: PeerAddress) -> None:
        """The peer has moved, and its new address is in use."""

    def connection_closed(self, now_ns: int, ended_by: ConnectionEvent, code: int, reason: str) -> None:
        """The connection has ended: by CLOSE of this side, PEER_CLOSED, or LOST. `reason` may be the peer's text."""
