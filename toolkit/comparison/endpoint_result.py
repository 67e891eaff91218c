"""What one endpoint of a transfer reports: the `sender` and `receiver` objects of docs/data-format.md.

A worker process writes one as a line of JSON, `nettool serve` sends one to the machine that measures, and a trial's
record keeps both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from toolkit.channel import Statistic
from toolkit.comparison.json_codec import decode_fields, encode_fields

_SIZE = "bytes"
"""JSON name of `size_bytes`."""


@dataclass(frozen=True, slots=True)
class Samples:
    """What `toolkit.comparison.sampler` saw, column by column; all columns are equally long.

    t_s:                      time since the endpoint's clock started
    delivered_bytes:          acknowledged so far
    congestion_window_bytes, rtt_ms: at that moment; 0 where the transport does not report them
    retransmitted_packets:    so far
    recovering_s:             time spent in loss recovery so far
    receiver_limited_s:       time for which the receive window or the send buffer limited the sender, so far
    busy_s:                   processor time so far
    waiting_s:                time spent waiting for a processor, so far; empty from an endpoint that does not know
    """

    t_s: Sequence[float]
    delivered_bytes: Sequence[float]
    congestion_window_bytes: Sequence[float]
    rtt_ms: Sequence[float]
    retransmitted_packets: Sequence[float]
    recovering_s: Sequence[float]
    receiver_limited_s: Sequence[float]
    busy_s: Sequence[float]
    waiting_s: Sequence[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EndpointResult:
    """One endpoint's report; None where the endpoint does not know. One that never reported has only defaults.

    size_bytes:           payload transferred and verified; `bytes` in JSON
    seconds, goodput_bps: by the endpoint's own clock
    algorithm, digest:    of the content
    cpu_seconds:          processor time, user and system
    peak_memory_bytes:    largest resident size of the process
    error, exit_code:     why the transfer failed, and what nettool would exit with
    started_s:            when the clock started, on the host's monotonic clock
    connect_s:            of the end that connects: from its first connect until connection and keys were there
    accepted_s:           sender: from its first connect until the receiver's answer to the offer had come; content may
                          have been sent before
    cut_s, cut_bytes:     when the time of a timed trial was up, on the host's monotonic clock, and how much content the
                          receiver had in order by then
    is_delivered:         the program itself confirms, without a digest, that `size_bytes` have arrived (iperf3)
    is_unreliable:        the program does not repair losses (iperf3 over UDP)
    encryption:           the AEAD that sealed the content, or "none"; None in records from before nettool encrypted
    authentication:       "none", "key" or "code": how the sender proved who it is
    packets_...:          sent, received and retransmitted by this endpoint
    datagrams_...:        UDP datagrams at the socket
    duplicates_reported:  segments reported as duplicates by DSACK (RFC 2883)
    local_drops:          datagrams for which a queue of this host had no room
    socket_drops:         datagrams the kernel dropped because the socket's queue was full
    counters:             every other counter of the transport, by name; in JSON they stand beside the fields
    series:               samples over time; never written to a record
    """

    size_bytes: int | None = None
    seconds: float | None = None
    goodput_bps: float | None = None
    algorithm: str | None = None
    digest: str | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    error: str | None = None
    exit_code: int | None = None
    started_s: float | None = None
    connect_s: float | None = None
    accepted_s: float | None = None
    cut_s: float | None = None
    cut_bytes: int | None = None
    is_delivered: bool | None = None
    is_unreliable: bool | None = None
    encryption: str | None = None
    authentication: str | None = None
    congestion_control: str | None = None
    rtt_ms: float | None = None
    rtt_min_ms: float | None = None
    packets_sent: int | None = None
    packets_received: int | None = None
    packets_retransmitted: int | None = None
    datagrams_sent: int | None = None
    datagrams_received: int | None = None
    duplicates_reported: int | None = None
    local_drops: int | None = None
    socket_drops: int | None = None
    counters: Mapping[str, Statistic] = field(default_factory=dict)
    series: Samples | None = None

    def with_statistics(self, statistics: Mapping[str, Statistic]) -> "EndpointResult":
        """This result together with what `Channel.statistics` returned."""
        return EndpointResult.from_json({**self.to_json(), **statistics})

    def to_json(self) -> dict[str, object]:
        """One flat object; fields that are None are left out."""
        members = {name: value for name, value in encode_fields(self).items() if value is not None}
        del members["counters"]
        if self.size_bytes is not None:
            members = {_SIZE: members.pop("size_bytes"), **members}
        return {**members, **self.counters}

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "EndpointResult":
        """Raises FieldError. Unknown members that are neither a number nor text are ignored."""
        members = {name: each for name, each in value.items() if each is not None}
        if _SIZE in members:
            members["size_bytes"] = members.pop(_SIZE)
        known = {each.name for each in fields(cls)}
        counters = {name: each for name, each in members.items() if name not in known and isinstance(each, Statistic)}
        return decode_fields(cls, {**members, "counters": counters})
