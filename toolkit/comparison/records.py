"""Results as data: the objects in a file of records, from which every table and plot can be made again.

docs/data-format.md describes each field; `toolkit.comparison.record_file` reads and writes the files. Fields that were
added later have defaults, so that a file of an earlier minor version can be read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from toolkit.comparison.conditions import TrialConditions
from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.host_info import HostInfo
from toolkit.comparison.packet_counts import PacketAudit
from toolkit.comparison.verdict import DEFAULT_MARGIN
from toolkit.emulator.accounting import Bottleneck
from toolkit.units import format_seconds, format_size

CONTROL_SUFFIX = "#2"
"""The A/A control is the baseline run a second time, under its own label with this suffix."""
PLAINTEXT_SUFFIX = "+plaintext"
"""A transport of nettool's own that goes without encryption has this in its label."""
CP = "cp"
"""The yardstick of loopback: a copy of the file, without a network."""

CPU_BOUND = "cpu-bound"  # a processor, not the path, was the limit
EMULATOR_LATE = "emulator-late"  # the emulated link did not keep its own schedule
LEDGER_OFF = "ledger-off"  # packets are missing that no counter accounts for
PROBE_OFF = "probe-off"  # the link, measured beforehand, is not what was specified
HOST_DROPS = "host-drops"  # an endpoint's host, not the path, lost packets
SELF_LOSS = "self-loss"  # queues of the sender's own host dropped packets
UNRELIABLE = "unreliable"  # the program does not repair losses
PARTIAL = "partial"  # the program ended before its receiver had counted all content
BUSY_MACHINE = "busy-machine"  # other programs, or the hypervisor, took processor time
MARKS = (CPU_BOUND, EMULATOR_LATE, LEDGER_OFF, PROBE_OFF, HOST_DROPS, SELF_LOSS, UNRELIABLE, PARTIAL, BUSY_MACHINE)

DEFAULT_LIMIT_S = 300.0  # of one transfer, where the user sets no limit

LinkOption = str | int | bool | Sequence[str]
"""Value of an option of `nettool link`, as the user wrote it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One transport with its settings.

    label:              its name in tables, for example "tcp-cubic"
    transport:          "tcp", "udp" or "quic"; "cp" for the yardstick
    congestion_control: its name; None for the program's default
    program:            None for nettool itself, else "iperf3", "aioquic" or "cp"
    rate_bps:           upper bound on the sending rate, or the target of the congestion control `rate`; None for no
                        bound, or for the rate of the path
    is_encrypted:       whether both ends encrypt what they send; False in records from before nettool could
    """

    label: str
    transport: str
    congestion_control: str | None
    program: str | None = None
    rate_bps: float | None = None
    is_encrypted: bool = False

    @property
    def is_yardstick(self) -> bool:
        """Whether this is no transport, but what the machine does without a network: it gets no verdict."""
        return self.program == CP


@dataclass(frozen=True, slots=True)
class PathRecord:
    """A path as its campaign records it; None where a field does not apply.

    kind:      "loopback", "lan", "link" or "remote"
    rate_bps:  rate of the bottleneck, in bits of IP packets
    rtt_ms:    round trip without any queue
    loss:      share of packets lost on the way from the sender to the receiver, bursts included
    burst, queue: as text
    text:      the command line of `nettool link` that makes this path
    seed:      of the link's random draws
    ideal_bps: payload rate that no transport can exceed
    link:      options of `nettool link`, as the user wrote them
    sender, receiver: names of hosts of a fleet; None elsewhere
    is_reverse: whether the other machine of a remote path sends, and the one that measures receives
    """

    kind: str
    rate_bps: float | None = None
    rtt_ms: float | None = None
    loss: float | None = None
    burst: str | None = None
    jitter_ms: float | None = None
    queue: str | None = None
    text: str | None = None
    seed: int | None = None
    ideal_bps: float | None = None
    link: Mapping[str, LinkOption] = field(default_factory=dict)
    sender: str | None = None
    receiver: str | None = None
    is_reverse: bool = False


@dataclass(frozen=True, slots=True)
class Campaign:
    """What was measured, how, and on which host.

    name:            kind of campaign: "loopback", "lan", "link", "remote" or "fleet"
    started_unix_s:  wall clock
    seed:            of the order of trials, the payload and the links
    repeats:         number of blocks; with a budget, of those that every path and size has at least (the pilot)
    baseline:        label of the transport that ratios are relative to
    transports:      label -> setting
    paths:           label -> path
    sizes:           file sizes in bytes; every transport moves each over every path
    storage:         where the files were kept, for example "/dev/shm (memory)"
    method:          how it was measured, as sentences
    command:         what the user typed
    is_probed:       whether links were measured before the first trial
    limit_s:         time limit of one transfer
    competitor:      setting of the background flow that shares the path with each transfer; None for none
    margin:          the largest difference between two goodputs that counts as negligible
    left_out:        label -> why this host could not run a transport of the scenario
    time_s:          duration of a trial; None where a trial ends with its file, else `sizes` is [0]
    budget_s:        time for the pilot and for further blocks where intervals are wide; None for `repeats` blocks
    patience_s:      total time for waits for quiet processors and for repeated trials
    hosts:           hosts of a fleet that were there when it began: name -> host
    """

    name: str
    started_unix_s: float
    seed: int
    repeats: int
    baseline: str
    transports: Mapping[str, Setting]
    paths: Mapping[str, PathRecord]
    sizes: Sequence[int]
    storage: str
    host: HostInfo
    method: Sequence[str] = field(default_factory=list)
    command: Sequence[str] = field(default_factory=list)
    is_probed: bool = True
    limit_s: float = DEFAULT_LIMIT_S
    competitor: Setting | None = None
    margin: float = DEFAULT_MARGIN
    left_out: Mapping[str, str] = field(default_factory=dict)
    budget_s: float | None = None
    time_s: float | None = None
    patience_s: float = 0.0
    hosts: Mapping[str, HostInfo] = field(default_factory=dict)

    def content_text(self, payload_bytes: int) -> str:
        """The size of a file, or the duration of a timed trial, in words."""
        return format_size(payload_bytes) if self.time_s is None else format_seconds(self.time_s)

    @property
    def first_look(self) -> int | None:
        """The number of blocks from which on results decided how many more there were; None if it was fixed."""
        return None if self.budget_s is None else self.repeats

    @property
    def comparison_count(self) -> int:
        """How many verdicts there are, without those on the control."""
        own = (self.baseline, self.baseline + CONTROL_SUFFIX)
        rivals = [name for name, each in self.transports.items() if name not in own and not each.is_yardstick]
        return len(self.paths) * len(self.sizes) * len(rivals)


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Round-trip times in milliseconds."""

    median: float
    p99: float


@dataclass(frozen=True, slots=True)
class Probe:
    """A path as measured before the first trial; None where a figure was not measured, or cannot be judged.

    rate_bps, rate_back_bps: on the way from the sender to the receiver, and back
    loss, loss_back:    share of packets lost on these two ways
    emulator_cpu_share: of one core, at the full rate of the path
    bottleneck:         what the kernel has installed, if it limits the path
    is_met:             whether the path is what was specified
    text:               the findings as one sentence
    """

    path: str
    rate_bps: float | None
    rtt_ms: RoundTrips | None
    loss: float | None
    emulator_cpu_share: float | None
    is_met: bool | None
    text: str
    bottleneck: Bottleneck | None = None
    loss_back: float | None = None
    rate_back_bps: float | None = None


@dataclass(frozen=True, slots=True)
class TrialCost:
    """What a transfer cost each endpoint, and the wire; None where a figure is not known.

    wire_bytes_per_payload_byte: bytes of IP packets in both directions
    """

    cpu_seconds_sender: float | None = None
    cpu_seconds_receiver: float | None = None
    peak_memory_bytes_sender: float | None = None
    peak_memory_bytes_receiver: float | None = None
    wire_bytes_per_payload_byte: float | None = None


@dataclass(frozen=True, slots=True)
class TimeSplit:
    """Where the time of a transfer went (`toolkit.comparison.diagnosis`); the parts sum to the whole time."""

    handshake_s: float = 0.0
    ramp_up_s: float = 0.0
    recovery_s: float = 0.0
    window_limited_s: float = 0.0
    cpu_bound_s: float = 0.0
    waiting_s: float = 0.0
    congestion_limited_s: float = 0.0
    tail_s: float = 0.0
    steady_s: float = 0.0

    @property
    def startup_s(self) -> float:
        """Time that a transfer takes whatever its size: handshake, ramp-up and tail."""
        return self.handshake_s + self.ramp_up_s + self.tail_s

    def by_kind(self) -> dict[str, float]:
        """Name of the field -> seconds."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, slots=True)
class DelaySummary:
    """Round trips of a ping beside the transfer (`toolkit.comparison.ping`). base_ms: without any queue."""

    base_ms: float
    median_ms: float
    p95_ms: float
    lost: int = 0


@dataclass(frozen=True, slots=True)
class BackgroundFlowResult:
    """What the transfer did to the background flow beside it.

    goodput_bps_alone, goodput_bps_beside: of the background flow
    jain: Jain's fairness index of the two flows
    """

    goodput_bps_alone: float
    goodput_bps_beside: float
    jain: float

    @property
    def slow_down(self) -> float:
        """How many times slower the background flow was than alone."""
        return self.goodput_bps_alone / max(self.goodput_bps_beside, 1.0)


@dataclass(frozen=True, slots=True)
class TrialSeries:
    """The course of a transfer, as columns of equal length; None where a value is not known. Delivered is payload."""

    t_s: Sequence[float]
    delivered_bytes: Sequence[float | None] = ()
    congestion_window_bytes: Sequence[float | None] = ()
    rtt_ms: Sequence[float | None] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """One transfer.

    The fields have their names in JSON. Three of them are called otherwise in code: `ledger` is the packet audit,
    `time_split` where the time went, and `competitor` the result of the background flow (in a Campaign: its setting).

    block:                 see `toolkit.comparison.plan`; WARM_UP is -1
    position:              among all trials, in order of time
    transport, path:       labels of the campaign
    payload_bytes:         file size; 0 for the stream of a timed trial
    verified:              the receiver has the sender's digest, and both endpoints ended without an error
    seconds:               from the first connect to the receiver's verified digest, or until the time of the trial was
                           up; None where the transfer failed
    goodput_bps:           8 x payload_bytes / seconds; in a timed trial, of receiver.cut_bytes, or all (remote path);
                           of an outside program, its own figure
    error:                 why the transfer failed
    sender, receiver:      what the two endpoints report
    ledger:                where each packet went; None without an emulated link
    cost:                  processor time, memory, and bytes on the wire
    retransmitted_packets: by the sender
    time_split:            where the time went; None where the transfer failed, or its sender reported no samples
    why:                   one sentence that explains the time
    delay:                 of a ping beside the transfer; None where it was not measured
    competitor:            what the transfer did to the background flow; None without one
    series:                the course of the transfer, for plots; None where it is not known
    marks:                 subset of MARKS; a cell with many marked trials gets no verdict
    link_seed:             of the link's random draws; the same for every transport of a block
    elapsed_s:             time from the campaign's start to the trial's end, without interruptions
    started_s:             of a fleet: the same to the trial's start; between the two, both its hosts were held
    waited_s:              how long it waited for quiet processors before it began
    is_repeated:           whether it was measured again, because the hypervisor had disturbed it
    conditions:            settings of sockets, device and kernel, and what else the machine did
    """

    block: int
    position: int
    transport: str
    path: str
    payload_bytes: int
    verified: bool
    seconds: float | None
    goodput_bps: float | None
    error: str | None = None
    sender: EndpointResult = field(default_factory=EndpointResult)
    receiver: EndpointResult = field(default_factory=EndpointResult)
    ledger: PacketAudit | None = None
    cost: TrialCost = field(default_factory=TrialCost)
    retransmitted_packets: int | None = None
    time_split: TimeSplit | None = None
    why: str = ""
    delay: DelaySummary | None = None
    competitor: BackgroundFlowResult | None = None
    series: TrialSeries | None = None
    marks: Sequence[str] = field(default_factory=list)
    link_seed: int | None = None
    elapsed_s: float | None = None
    conditions: TrialConditions | None = None
    started_s: float | None = None
    waited_s: float = 0.0
    is_repeated: bool = False

    @property
    def is_doubtful(self) -> bool:
        """Whether a mark makes it unfit. BUSY_MACHINE does not: the verdict is about this machine as it was."""
        return any(mark != BUSY_MACHINE for mark in self.marks)

    @property
    def content_bytes(self) -> int:
        """All content that was sent; of an outside program, what it counted; in a timed trial, also what came late."""
        counted = self.sender.size_bytes if self.sender.is_delivered else None
        return counted or self.payload_bytes or self.sender.size_bytes or 0

    @property
    def connect_s(self) -> float | None:
        """The time until connection and keys were there, at the end that connected: the receiver of a reverse path."""
        return self.sender.connect_s if self.sender.connect_s is not None else self.receiver.connect_s

    @property
    def is_counted(self) -> bool:
        """Whether it counts in figures: it was verified, and it is not a warm-up."""
        return self.verified and self.block >= 0 and self.seconds is not None


@dataclass(frozen=True, slots=True)
class Outage:
    """A trial of a fleet that was not measured, because a host or the way to it was missing: it is in no figure.

    path, block, transport, payload_bytes: the trial
    host:      name of the host that was missing
    reason:    what was seen
    attempt:   how often this was tried, from 1
    is_final:  whether the pair of hosts was given up for the rest of the run
    started_s, elapsed_s: as in Trial
    """

    path: str
    block: int
    transport: str
    payload_bytes: int
    host: str
    reason: str
    attempt: int
    is_final: bool
    started_s: float
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Results:
    """The content of one file of records.

    trials:   those that count
    repeated: those that the hypervisor disturbed, and that were measured again: they are in no figure
    """

    campaign: Campaign
    trials: Sequence[Trial]
    probes: Sequence[Probe] = ()
    outages: Sequence[Outage] = ()
    repeated: Sequence[Trial] = ()

    @property
    def attempts(self) -> list[Trial]:
        """The trials that count and those that were repeated, in order of time."""
        return sorted((*self.trials, *self.repeated), key=lambda trial: trial.position)
