"""The congestion-controller interface, and the registry that finds a controller by name.

The engine reads two values from a controller: how many bytes may be in flight (`congestion_window_bytes`) and how fast
to send them (`pacing_rate_bps`). It reports what happens through the `on_*` methods: one `AckSample` for each batch of
acknowledgements, one `LossSample` for each set of packets declared lost. A controller has no packets, socket or clock
of its own; it receives byte counts and times in nanoseconds. All sizes are those of whole UDP datagrams, header
included.

The built-in controllers are imported only when they are requested. Another Python package adds a controller through an
entry point of the group "nettool.congestion"; docs/congestion-control.md shows how.

Read: RFC 9002 sections 7.2 (initial window) and 7.7 (pacing); draft-ietf-ccwg-bbr section 4.1 (delivery-rate samples:
the engine stamps every packet it sends with the delivery counters and reports the sample of the newest packet
acknowledged).
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol, cast, runtime_checkable

from toolkit.errors import UsageError, printable

NS_PER_S: Final = 1_000_000_000
BITS_PER_BYTE: Final = 8

ACKS_PER_RTT: Final = 4
"""Acknowledgements per round trip that suffice to keep a known path full. Each costs both hosts some processor time."""

UNMEASURED_RTT_NS: Final = 1_000_000
"""Used as the RTT before the first sample, so that the initial window is sent at once. RFC 9002 section 7.7 allows it;
draft-ietf-ccwg-bbr section 5.6.2 does the same."""

_MATCHING_RTT: Final = 0.8
_HOST_NOISE_NS: Final = 10_000_000
"""An RTT that differs by more than a fifth and 10 ms is that of another path."""


@dataclass(frozen=True, slots=True)
class AckSample:
    """The result of one batch of acknowledgements. Times are in ns of the driver's clock, sizes in bytes.

    newly_acked_bytes:       acknowledged for the first time by this batch
    newly_lost_bytes:        declared lost by this batch (`on_loss` has already reported them)
    bytes_in_flight:         outstanding after the batch
    prior_in_flight_bytes:   outstanding before the batch
    delivered_bytes:         total acknowledged since the connection began, after the batch
    prior_delivered_bytes:   the same total when the newest acknowledged packet was sent; a round trip ends when this
                             reaches the total at the start of the round
    lost_bytes:              total declared lost since the connection began
    lost_since_sent_bytes:   the part of `lost_bytes` declared lost since the newest acknowledged packet was sent
    in_flight_at_send_bytes: outstanding just after the newest acknowledged packet was sent
    rtt_ns:                  latest RTT sample without the peer's ack delay; None if the batch gave no sample
    smoothed_rtt_ns, min_rtt_ns: RFC 9002 section 5
    delivery_rate_bps:       delivery-rate sample in bits per second; None if its interval was too short to be reliable
    is_app_limited:          the application or the peer's receive window limited the sender during the sample
    is_window_limited:       the congestion window limited the sender
    ecn_ce_count:            packets newly reported with the Congestion Experienced mark
    is_late:                 this host let the sender run so late that it sent less than it might have
    """

    now_ns: int
    newly_acked_bytes: int
    newly_lost_bytes: int
    bytes_in_flight: int
    prior_in_flight_bytes: int
    delivered_bytes: int
    prior_delivered_bytes: int
    lost_bytes: int
    lost_since_sent_bytes: int
    in_flight_at_send_bytes: int
    largest_acked_sent_time_ns: int
    rtt_ns: int | None
    smoothed_rtt_ns: int
    min_rtt_ns: int
    delivery_rate_bps: float | None
    is_app_limited: bool
    is_window_limited: bool
    ecn_ce_count: int = 0
    is_late: bool = False

    @property
    def is_lower_bound(self) -> bool:
        """Whether the path may carry more than `delivery_rate_bps`, because the sender did not use it."""
        return self.is_app_limited or self.is_late


@dataclass(frozen=True, slots=True)
class LossSample:
    """Packets declared lost together. It precedes the `AckSample` of the same batch, or comes alone from a timer.

    newest_lost_sent_time_ns: when the newest lost packet was sent; a recovery period ignores losses of older packets
    in_flight_at_send_bytes:  outstanding just after the newest lost packet was sent
    is_persistent:            persistent congestion, RFC 9002 section 7.6
    """

    now_ns: int
    lost_bytes: int
    bytes_in_flight: int
    newest_lost_sent_time_ns: int
    in_flight_at_send_bytes: int
    is_persistent: bool


@dataclass(frozen=True, slots=True)
class PathMemory:
    """What an earlier connection has learned about a path.

    rate_bps: the bandwidth that it has found, in bits per second of UDP payload
    rtt_ns:   its minimum RTT
    """

    rate_bps: float
    rtt_ns: int

    @property
    def volume_bytes(self) -> float:
        """What fills the path."""
        return self.rate_bps * self.rtt_ns / (BITS_PER_BYTE * NS_PER_S)

    def matches(self, rtt_ns: int) -> bool:
        """Whether a path with this RTT may be the same one."""
        return _MATCHING_RTT * self.rtt_ns <= rtt_ns <= self.rtt_ns / _MATCHING_RTT + _HOST_NOISE_NS


class CongestionController(Protocol):
    """One instance serves one path of one connection."""

    name: str

    @property
    def congestion_window_bytes(self) -> int:
        """Maximum number of bytes in flight."""

    @property
    def pacing_rate_bps(self) -> float:
        """Rate to send at, in bits per second of UDP payload; always positive."""

    @property
    def acks_per_rtt(self) -> int:
        """How many acknowledgements per round trip the peer should send; `ACKS_PER_RTT` is the usual number."""

    def on_sent(self, now_ns: int, sent_bytes: int, bytes_in_flight: int, is_app_limited: bool) -> None:
        """A batch was sent. `bytes_in_flight` does not include it."""

    def on_ack(self, sample: AckSample) -> None:
        """A batch of acknowledgements was processed."""

    def on_loss(self, sample: LossSample) -> None:
        """Packets were declared lost."""

    def on_spurious_loss(self, now_ns: int, lost_sent_time_ns: int) -> None:
        """All packets of the latest `on_loss` have arrived; the controller may undo its reaction.

        `lost_sent_time_ns` is when the newest of them was sent.
        """

    def on_datagram_size(self, datagram_bytes: int) -> None:
        """The path's datagram size changed."""

    def snapshot(self) -> dict[str, float | str]:
        """State for logs and plots, under the field's usual names: phase, ssthresh, bandwidth estimate and so on."""


@runtime_checkable
class ResumingController(Protocol):
    """A controller that can start from a memory of the path. To others, none is given."""

    def resume(self, memory: PathMemory) -> None:
        """An earlier connection has found this, and the RTT is the same. Called before anything is sent."""


ControllerFactory = Callable[[int, float | None, int], CongestionController]
"""(datagram_bytes, rate_bps requested by the user or None, seed of all random choices) -> a new controller."""


DEFAULT_CONTROLLER: Final = "bbr"
ENTRY_POINT_GROUP: Final = "nettool.congestion"

_BUILT_IN: Final = {
    "bbr": ("toolkit.rudp.congestion.bbr", "Bbr"),
    "cubic": ("toolkit.rudp.congestion.cubic", "Cubic"),
    "newreno": ("toolkit.rudp.congestion.newreno", "NewReno"),
    "rate": ("toolkit.rudp.congestion.fixed_rate", "FixedRate"),
}
CONTROLLER_NAMES: Final = tuple(_BUILT_IN)
"""Names of the built-in controllers. An entry point cannot replace one of them."""


def controller_factory(name: str) -> ControllerFactory:
    """Return the factory of the controller `name`.

    Raises UsageError if no such controller exists, or if the one of another Python package cannot be loaded.
    """
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        return cast(ControllerFactory, getattr(import_module(module), attribute))
    from importlib.metadata import entry_points  # costs every start a tenth of its time, and few need it

    added = entry_points(group=ENTRY_POINT_GROUP)
    if name not in added.names:
        known = ", ".join(sorted(added.names | set(CONTROLLER_NAMES)))
        raise UsageError(f"unknown congestion control {printable(name)!r}: choose one of {known}")
    try:
        return cast(ControllerFactory, added[name].load())
    except (ImportError, AttributeError) as error:
        reason = printable(str(error))
        raise UsageError(f"cannot load congestion control {name!r} ({reason}): reinstall it") from error


def initial_window_bytes(datagram_bytes: int) -> int:
    """Ten datagrams, but at most the larger of 14,720 bytes and two datagrams (RFC 9002 section 7.2)."""
    return min(10 * datagram_bytes, max(14_720, 2 * datagram_bytes))


def window_rate_bps(window_bytes: float, rtt_ns: int) -> float:
    """The rate that sends one window per round trip."""
    return window_bytes * BITS_PER_BYTE * NS_PER_S / rtt_ns
