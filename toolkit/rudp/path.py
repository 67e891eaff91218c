"""One network path: everything that is known about it, and the validation of another path.

Packets with the right connection id are accepted from any address. Such a new address is only a candidate, though:
until it has echoed a challenge, nothing but challenges is sent there. Otherwise an attacker who can repeat one packet
could direct the connection's packets at a victim. Challenges are few, and their intervals grow. They are as large as
every path must carry, but no more than three times what has come from the address. The candidate
may be a longer path than the current one, so the first interval is at least the probe timeout of an unknown path. When
all challenges are lost, the candidate is dropped until something new arrives from there.

A validated address on another host is a new, unknown path: it gets a new `PathState`. A new port of
the same host is most likely a NAT rebinding, and the path stays the same.

Read: RFC 9000 sections 8.2 (path validation), 9.3 and 9.4 (migration). quinn's `PathData` is the model of `PathState`.
"""

from dataclasses import replace
from typing import Final

from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.batch import PeerAddress
from toolkit.rudp.batch_check import BatchCheck
from toolkit.rudp.config import Config
from toolkit.rudp.congestion.base import ResumingController, controller_factory
from toolkit.rudp.ecn import EcnValidator
from toolkit.rudp.loss_thresholds import LossThresholds
from toolkit.rudp.pacer import Pacer
from toolkit.rudp.pmtud import PathMtu
from toolkit.rudp.rtt import RttEstimator

MAX_CHALLENGES: Final = 5
MAX_AMPLIFICATION: Final = 3
"""How many times as many bytes may be sent to an address that is not validated as have come from it (RFC 9000
section 8)."""
_MIN_CHALLENGE_BYTES: Final = wire.PATH.size + wire.TAG_BYTES
NEARBY_RTT_NS: Final = 5_000_000
"""A handshake that took less was with a host in the same building. Up to 3 ms of it are the server's: a client with a
token measures the key exchange, which takes 1 ms on a fast and idle machine, and the time until the server runs."""
INITIAL_PTO_NS: Final = RttEstimator().pto_ns(0)
"""The probe timeout of an unknown path."""


class PathValidation:
    """The validation of one candidate path."""

    def __init__(self, peer_address: PeerAddress, challenge: int, now_ns: int) -> None:
        """`challenge` is an unguessable 64-bit value, which the response must echo."""
        self.peer_address = peer_address
        self.challenge = challenge
        self._next_send_ns = now_ns
        self._sent = 0
        self._sendable_bytes = 0

    def on_received(self, peer_address: PeerAddress, size_bytes: int) -> None:
        """New packets have arrived from `peer_address`: if it is the candidate, more may be sent to it."""
        if peer_address == self.peer_address:
            self._sendable_bytes += MAX_AMPLIFICATION * size_bytes

    def on_challenge_sent(self, size_bytes: int) -> None:
        """A challenge of this size was sent."""
        self._sendable_bytes -= size_bytes

    def has_failed(self, now_ns: int) -> bool:
        """No response has come, and no challenge is left."""
        return self._sent >= MAX_CHALLENGES and now_ns >= self._next_send_ns

    def poll_timeout(self) -> int | None:
        """When the next challenge is due; None if none is left."""
        return None if self._sent >= MAX_CHALLENGES else self._next_send_ns

    def poll_challenge(self, now_ns: int, pto_ns: int) -> int:
        """How large a challenge to send now, at most; 0 if none is due, or if the address has sent too little for one.

        `pto_ns` is the probe timeout of the current path, without back-off.
        """
        if self._sent >= MAX_CHALLENGES or now_ns < self._next_send_ns:
            return 0
        self._next_send_ns = now_ns + (max(pto_ns, INITIAL_PTO_NS) << self._sent)
        self._sent += 1
        return self._sendable_bytes if self._sendable_bytes >= _MIN_CHALLENGE_BYTES else 0


class PathState:
    """Everything known about the path in use. A change of path means a new object, by `successor`.

    peer_address:       the peer's address as the driver names it; None on a client, whose socket is connected
    candidate:          another address of the peer, while it is validated
    rtt, loss, mtu, controller, pacer, batches, ecn: the estimators and state machines of the path
    max_datagram_bytes: largest datagram that both sides accept
    datagram_bytes:     datagram size in use, which the controller knows of
    unproven_losses:    packets of the latest loss report that have not turned out spurious
    loss_report_first:  lowest packet number of that report
    loss_report_sent_time_ns: when its newest packet was sent
    loss_event_ns:      when the current loss event began; losses of packets sent before belong to it
    may_retransmit_one: a loss event has just begun, so one packet may exceed the window (RFC 9002 section 7.3.2)
    probes_due:         probes of a timeout that are still to be sent, whatever the window
    is_nearby:          the handshake has measured less than `NEARBY_RTT_NS`
    is_window_limited:  there was more to send than the congestion window allowed
    """

    def __init__(
        self,
        config: Config,
        max_datagram_bytes: int,
        peer_address: PeerAddress | None = None,
        ecn: EcnValidator | None = None,
    ) -> None:
        """`max_datagram_bytes` is the limit of the peer; that of `config` applies too."""
        self.peer_address = peer_address
        self.candidate: PathValidation | None = None
        self.rtt = RttEstimator()
        self.loss = LossThresholds(self.rtt)
        self.max_datagram_bytes = max(min(config.max_datagram_bytes, max_datagram_bytes), wire.MIN_DATAGRAM_BYTES)
        self.mtu = PathMtu(self.max_datagram_bytes)
        self.datagram_bytes = self.mtu.datagram_bytes
        new_controller = controller_factory(config.congestion_control)
        self.controller = new_controller(self.datagram_bytes, config.rate_bps, config.seed)
        self.pacer = Pacer()
        self.batches = BatchCheck()
        self.ecn = ecn or EcnValidator()
        self.unproven_losses = 0
        self.loss_report_first = 0
        self.loss_report_sent_time_ns = 0
        self.loss_event_ns = -1
        self.may_retransmit_one = False
        self.probes_due = 0
        self.is_nearby = False
        self.is_window_limited = False
        self._config = config

    def on_handshake_rtt(self, rtt_ns: int) -> None:
        """Take the first RTT sample. If it is that of a remembered path, the controller starts from the memory."""
        self.rtt.update(rtt_ns, 0)
        self.is_nearby = rtt_ns < NEARBY_RTT_NS
        memory = self._config.memory
        if memory is not None and memory.matches(rtt_ns) and isinstance(self.controller, ResumingController):
            self.controller.resume(memory)

    @property
    def has_chosen_rate(self) -> bool:
        """Whether the user has limited the rate."""
        return self._config.rate_bps is not None

    def use_controller(self, name: str, rate_bps: float | None) -> None:
        """Let another congestion controller take over before data is sent. Raises UsageError for an unknown name."""
        config = replace(self._config, congestion_control=name, rate_bps=rate_bps)
        self.controller = controller_factory(name)(self.datagram_bytes, rate_bps, config.seed)
        self._config = config

    def successor(self, peer_address: PeerAddress | None) -> "PathState":
        """Return a new path about which nothing is known. Only the peer's ECN counts continue."""
        return PathState(self._config, self.max_datagram_bytes, peer_address, self.ecn.for_new_path())

    def propose(self, peer_address: PeerAddress, challenge: int, now_ns: int) -> None:
        """Something new has arrived from `peer_address`: validate that path, unless this is under way."""
        candidate = self.candidate
        if peer_address == self.peer_address:
            return
        if candidate is None or candidate.peer_address != peer_address or candidate.has_failed(now_ns):
            self.candidate = PathValidation(peer_address, challenge, now_ns)

    def validate_untrusted(self, response: int) -> "PathState":
        """Take a PATH_RESPONSE; return the path to use from now on, which may be this one with a new address.

        Raises ProtocolError if it answers no challenge.
        """
        candidate = self.candidate
        if candidate is None or response != candidate.challenge:
            raise ProtocolError("PATH_RESPONSE without a matching PATH_CHALLENGE")
        if self.peer_address is None or self.peer_address[0] != candidate.peer_address[0]:
            return self.successor(candidate.peer_address)
        self.candidate = None
        self.peer_address = candidate.peer_address
        return self

    def apply_datagram_size(self) -> None:
        """Use the size that the MTU search has found, or fallen back to, and tell the controller."""
        if self.mtu.datagram_bytes != self.datagram_bytes:
            self.datagram_bytes = self.mtu.datagram_bytes
            self.controller.on_datagram_size(self.datagram_bytes)
