"""What a connection reports about itself: the events of which logs, plots and explanations are made.

The engine reports batches, as it works on batches: one call per batch of datagrams or per acknowledgement, and one
test of a reference where nobody listens. It hands over what it has (the datagrams themselves, columns of packet
numbers, the state of loss detection and congestion control) and formats nothing; what of it is worth writing down,
and how, is the listener's to decide. A listener gets no chance to change anything.

Views are valid during the call only. Times are those of the driver's clock, in nanoseconds.
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

    LOSS = auto()  # a packet is now old enough to be lost (RFC 9002 section 6.1.2)
    PROBE = auto()  # nothing was acknowledged for a probe timeout (section 6.2)
    IDLE = auto()  # the peer was silent for too long


class ConnectionObserver(Protocol):
    """A listener. Every call comes from the thread that drives the connection, in order of time."""

    def connection_started(self, now_ns: int, local_id: int, peer_id: int, congestion_control: str) -> None:
        """The handshake is complete; ids are the connection ids that each side chose."""

    def packets_sent(self, now_ns: int, transmit: Transmit) -> None:
        """These datagrams are handed to the driver."""

    def packets_received(self, now_ns: int, batch: Batch) -> None:
        """These datagrams have arrived and were accepted, first copies and duplicates alike."""

    def packets_lost(
        self, now_ns: int, packet_numbers: NDArray[np.int64], kinds: NDArray[np.uint8], reordered_below: int
    ) -> None:
        """Loss detection has given these up: those below `reordered_below` by the packet threshold, others by time.

        `kinds` are packet types; a lost PROBE of the path MTU counts as no congestion.
        """

    def spurious_losses_detected(self, now_ns: int, packets: int) -> None:
        """So many packets that were declared lost have been acknowledged after all."""

    def stats_updated(self, now_ns: int, stats: ConnectionStats) -> None:
        """An acknowledgement or a timer was processed."""

    def timer_expired(self, now_ns: int, timer: Timer) -> None:
        """A timer has come; what it leads to is reported next."""

    def path_validated(self, now_ns: int, peer_address: PeerAddress) -> None:
        """The peer has moved, and its new address is validated."""

    def connection_closed(self, now_ns: int, ended_by: ConnectionEvent, code: int, reason: str) -> None:
        """It is over: by CLOSE of this side, PEER_CLOSED, or LOST. `reason` may be the peer's text."""
