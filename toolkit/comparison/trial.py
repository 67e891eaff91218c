"""One trial: a receiver and a sender, each in a process of its own, and what is recorded about them.

The clock runs from the sender's first connect to the receiver's verified digest; both endpoints have loaded everything
before it starts. A transfer that fails is a trial as well, its record says why, and the campaign continues.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from toolkit.comparison.background_flow import BackgroundFlow
from toolkit.comparison.conditions import TrialConditions, socket_settings
from toolkit.comparison.device import DeviceSettings
from toolkit.comparison.diagnosis import MIN_SAMPLES, on_sender_clock, split_time, thinned
from toolkit.comparison.endpoint_result import EndpointResult, Samples
from toolkit.comparison.explanation import Facts, explanation, facts_of
from toolkit.comparison.machine_load import LoadMeter, MachineLoad
from toolkit.comparison.packet_audit import has_host_drops, has_self_loss, is_balanced
from toolkit.comparison.packet_counts import PacketAudit
from toolkit.comparison.paths import LAN_KIND, LINK, PAYLOAD_SHARE, REMOTE, BenchPath
from toolkit.comparison.ping import Pinger
from toolkit.comparison.plan import TrialSpec
from toolkit.comparison.records import (
    BUSY_MACHINE,
    CPU_BOUND,
    DEFAULT_LIMIT_S,
    EMULATOR_LATE,
    HOST_DROPS,
    LEDGER_OFF,
    PARTIAL,
    PROBE_OFF,
    SELF_LOSS,
    UNRELIABLE,
    BackgroundFlowResult,
    Probe,
    Setting,
    TimeSplit,
    Trial,
    TrialCost,
)
from toolkit.comparison.testbed import ReceiverHandle, Testbed
from toolkit.comparison.timed import SLICE_BYTES, Portions, portions, real_portions, until
from toolkit.comparison.worker_protocol import ReceiveJob, SendJob
from toolkit.comparison.workspace import Workspace
from toolkit.emulator.accounting import TUN
from toolkit.errors import NettoolError, UsageError
from toolkit.units import rate_of

_RESULT_LIMIT_S = 15.0
_FAILED_LIMIT_S = 0.5
_LATE_MS, _LATE_SHARE = 2.0, 0.1
_CPU_SHARE, _FILLED_SHARE = 0.25, 0.9
_COUNTED_SHARE = 0.95
"""Of the content, how much another program has to have counted for its rate to be that of the content."""


@dataclass(slots=True)
class _Outcome:
    """What is known about a trial so far; a trial that fails keeps what it has.

    connected, accepted: the end that has connected, whose clock counts, and the one that has accepted
    is_reverse:          whether the end that has accepted sends
    """

    connected: EndpointResult
    accepted: EndpointResult
    is_reverse: bool
    error: str | None = None
    ledger: PacketAudit | None = None
    background_flow: BackgroundFlowResult | None = None
    device: DeviceSettings | None = None
    tcp_metrics: str | None = None
    load: MachineLoad | None = None

    @property
    def sender(self) -> EndpointResult:
        """The end that sends."""
        return self.accepted if self.is_reverse else self.connected

    @property
    def receiver(self) -> EndpointResult:
        """The end that receives."""
        return self.connected if self.is_reverse else self.accepted


@dataclass(frozen=True, slots=True)
class _Arrived:
    """How much counts as arrived, and in which time; `seconds` is None, and there is an `error`, if nothing does."""

    size_bytes: int = 0
    seconds: float | None = None
    goodput_bps: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TrialRunner:
    """Runs the trials of one path.

    probe:           of the path, if it was measured
    limit_s:         time limit of one transfer
    background_flow: shares the path with each transfer; its `measure_alone` has been called
    time_s:          duration of a timed trial; None where a trial ends with its file
    seed:            of the content of timed trials
    """

    testbed: Testbed
    workspace: Workspace
    probe: Probe | None = None
    limit_s: float = DEFAULT_LIMIT_S
    background_flow: BackgroundFlow | None = None
    time_s: float | None = None
    seed: int = 0

    def run(self, spec: TrialSpec, position: int, link_seed: int) -> Trial:
        """Send the payload once, or content until the time is up. A failure is recorded, and raises nothing."""
        outcome = _Outcome(EndpointResult(), EndpointResult(), self.testbed.path.is_reverse)
        pinger = self.testbed.pinger()
        try:
            if self.testbed.path.kind != REMOTE:
                self.workspace.prefault(spec.payload_bytes)
            with ExitStack() as watching, ExitStack() as running:
                accepting, job = self._start_receiver(spec, running)
                connecting = running.enter_context(
                    self.testbed.sender(spec.setting, lambda: replace(job, port=accepting.await_port()))
                )
                connecting.await_ready()
                outcome.device, outcome.tcp_metrics = self.testbed.device(), self.testbed.forget_path()
                self.testbed.begin(link_seed)
                if self.background_flow is not None:
                    running.enter_context(self.background_flow.running(self.testbed))
                if pinger is not None:
                    watching.enter_context(pinger)
                meter = LoadMeter(self.testbed.load_counters, self.time_s)
                started_s = time.monotonic()
                if self.time_s is not None:
                    accepting.set_deadline(started_s + self.time_s)
                connecting.go()
                try:
                    outcome.connected = connecting.result(self.limit_s + (self.time_s or 0.0))
                finally:
                    ended_s = time.monotonic()
                    outcome.load = meter.load()
                if self.background_flow is not None:
                    size_bytes = spec.payload_bytes or outcome.sender.size_bytes or 0
                    goodput_bps = rate_of(size_bytes, ended_s - started_s)
                    outcome.background_flow = self.background_flow.finish(started_s, ended_s, goodput_bps)
                outcome.accepted = _accepted_result(accepting, outcome.connected)
                outcome.error = outcome.connected.error or outcome.accepted.error
                running.close()
                outcome.ledger = self.testbed.account(outcome.sender, outcome.receiver, pinger)
        except NettoolError as error:
            outcome.error = str(error)
        return self._record(spec, position, link_seed, outcome, pinger)

    def _portions(self, transport: str) -> Portions:
        if self.time_s is None:
            return Portions(None, SLICE_BYTES)
        path = self.testbed.path
        return real_portions(transport) if path.kind == REMOTE else portions(transport, path.rate_bps)

    def _start_receiver(self, spec: TrialSpec, running: ExitStack) -> tuple[ReceiverHandle, SendJob]:
        """Start the receiver; the handle, and the job of a sender to it without the port. Raises NettoolError.

        On a reverse path, the one that accepts sends, and the other receives.
        """
        setting, size = spec.setting, spec.payload_bytes
        directory = str(self.workspace.received)
        job = ReceiveJob(
            setting.transport,
            directory,
            payload_bytes=size,
            is_timed=self.time_s is not None,
            plaintext=not setting.is_encrypted,
        )
        receiver = running.enter_context(self.testbed.receiver(setting, job))
        return receiver, SendJob(
            transport=setting.transport,
            congestion_control=setting.congestion_control,
            rate_bps=_rate_bps(setting, self.testbed.path),
            host=self.testbed.host,
            port=0,
            payload=str(self.workspace.payload(size)) if self.time_s is None else None,
            payload_bytes=size,
            time_s=self.time_s,
            seed=self.seed,
            **self._portions(setting.transport)._asdict(),
            plaintext=not setting.is_encrypted,
            directory=directory,
            is_reverse=self.testbed.path.is_reverse,
        )

    def _record(
        self, spec: TrialSpec, position: int, link_seed: int, outcome: _Outcome, pinger: Pinger | None
    ) -> Trial:
        sender, receiver, path, ledger = outcome.sender, outcome.receiver, self.testbed.path, outcome.ledger
        if self.time_s is None:
            arrived = _arrived(spec.payload_bytes, outcome)
        else:
            arrived = _arrived_in_time(outcome, has_one_clock=path.kind != REMOTE)
        kept = None
        if arrived.seconds is not None and sender.series is not None:
            kept = sender.series if self.time_s is None else until(sender.series, arrived.seconds)
        rtt_ms = self.probe.rtt_ms if self.probe is not None else None
        trial = Trial(
            block=spec.block,
            position=position,
            transport=spec.setting.label,
            path=path.label,
            payload_bytes=spec.payload_bytes,
            verified=arrived.seconds is not None,
            seconds=arrived.seconds,
            goodput_bps=arrived.goodput_bps,
            error=arrived.error,
            sender=replace(sender, series=None),
            receiver=replace(receiver, series=None),
            ledger=ledger,
            cost=TrialCost(),
            retransmitted_packets=sender.packets_retransmitted,
            time_split=_time_split(path, arrived, kept, outcome),
            delay=pinger.delay(rtt_ms.median if rtt_ms is not None else None, path.round_trip_loss) if pinger else None,
            competitor=outcome.background_flow,
            series=thinned(kept, arrived.size_bytes) if kept is not None else None,
            link_seed=link_seed if ledger is not None else None,
            conditions=TrialConditions(
                sender=socket_settings(sender),
                receiver=socket_settings(receiver),
                device=outcome.device,
                tcp_metrics=outcome.tcp_metrics,
                load=outcome.load,
            ),
        )
        facts = facts_of(trial, path.record(), spec.setting.congestion_control)
        why = explanation(facts) if facts is not None else ""
        if facts is not None and outcome.background_flow is not None:
            why = f"It shared the path with another flow. {why}"
        cost = _cost(outcome, trial.content_bytes)
        return replace(trial, cost=cost, why=why, marks=list(self._marks(spec.setting, trial, facts, outcome)))

    def _marks(self, setting: Setting, trial: Trial, facts: Facts | None, outcome: _Outcome) -> Iterator[str]:
        """What makes the trial less trustworthy (docs/data-format.md)."""
        path, ledger = self.testbed.path, outcome.ledger
        if setting.program is not None and outcome.sender.is_unreliable:
            yield UNRELIABLE
        elif trial.content_bytes < _COUNTED_SHARE * trial.payload_bytes:
            yield PARTIAL
        if facts is not None and _lacked_processor(facts, path, ledger):
            yield CPU_BOUND
        if has_self_loss(ledger, outcome.sender):
            yield SELF_LOSS
        if ledger is not None:
            if outcome.background_flow is None and not is_balanced(
                ledger
            ):  # the background flow's packets are not counted
                yield LEDGER_OFF
            if has_host_drops(ledger):
                yield HOST_DROPS
            limit_ms = max(_LATE_MS, _LATE_SHARE * path.rtt_s * 1e3)
            late_ms = max(ledger.late_p99_ms, ledger.ping_late_p95_ms or 0.0)
            if late_ms > limit_ms or ledger.dropped_by_emulator:
                yield EMULATOR_LATE
        if self.probe is not None and self.probe.is_met is False:
            yield PROBE_OFF
        if outcome.load is not None and outcome.load.is_busy:
            yield BUSY_MACHINE


def _lacked_processor(facts: Facts, path: BenchPath, ledger: PacketAudit | None) -> bool:
    """Whether a processor, not an emulated path, was the limit.

    On a LAN the endpoints' own use of a processor is part of what is compared, and the explanation says that it was the
    limit. What an emulator's process took from them is not. Without such a process, all is.
    """
    split = facts.time_split
    if split is None or path.ideal_bps is None or path.kind not in (LAN_KIND, LINK):
        return False
    is_slower = facts.goodput_bps < _FILLED_SHARE * path.ideal_bps
    if path.kind == LAN_KIND:
        lacked_s = split.waiting_s if ledger is not None and ledger.emulator == TUN else 0.0
    else:
        lacked_s = split.waiting_s + split.cpu_bound_s
    return is_slower and lacked_s > _CPU_SHARE * facts.seconds


def _accepted_result(handle: ReceiverHandle, connected: EndpointResult) -> EndpointResult:
    """The result of the end that has accepted. One that connected and failed explains enough, and may be alone."""
    digest = connected.digest or ""
    if connected.error is None:
        return handle.result(_RESULT_LIMIT_S, digest)
    with suppress(NettoolError):
        return handle.result(_FAILED_LIMIT_S, digest)
    return EndpointResult()


def _rate_bps(setting: Setting, path: BenchPath) -> float | None:
    """The rate that a setting asks for. Without one, the congestion control `rate` takes what the path carries."""
    if setting.rate_bps is not None:
        return setting.rate_bps
    is_needed = setting.congestion_control == "rate" or setting.label.startswith("iperf3-udp")
    if not is_needed:
        return None
    if path.rate_bps is None:
        raise UsageError(f"{setting.label} needs a rate, because {path.label} has none: write {setting.label}=1Gbit")
    return path.rate_bps * PAYLOAD_SHARE


def _arrived(size: int, outcome: _Outcome) -> _Arrived:
    """What arrived of a file: all of it, verified, or nothing that counts."""
    sender = outcome.sender
    is_same = sender.digest is not None and sender.digest == outcome.receiver.digest and sender.size_bytes == size
    seconds = outcome.connected.seconds
    if outcome.error is not None or not (is_same or sender.is_delivered) or seconds is None:
        return _Arrived(error=outcome.error or "the received content differs")
    # Another program itself reports how much has arrived.
    goodput_bps = sender.goodput_bps if sender.is_delivered else rate_of(size, seconds)
    return _Arrived(size, seconds, goodput_bps)


def _arrived_in_time(outcome: _Outcome, *, has_one_clock: bool) -> _Arrived:
    """What had arrived when the time was up, if all that came later is verified as well.

    has_one_clock: whether the receiver could tell; if not, everything counts, and the time until it was verified
    """
    sender, receiver = outcome.sender, outcome.receiver
    if outcome.error is not None:
        return _Arrived(error=outcome.error)
    if sender.digest is None or (sender.digest, sender.size_bytes) != (receiver.digest, receiver.size_bytes):
        return _Arrived(error="the received content differs")
    if not has_one_clock:
        size, seconds = sender.size_bytes, outcome.connected.seconds
        if not size or seconds is None:
            return _Arrived(error="no content was sent before the time was up")
        return _Arrived(size, seconds, rate_of(size, seconds))
    if receiver.cut_s is None or receiver.cut_bytes is None or sender.started_s is None:
        return _Arrived(error="the transfer ended before its time was up")
    if not receiver.cut_bytes:
        return _Arrived(error="nothing had arrived when the time was up")
    seconds = receiver.cut_s - sender.started_s
    return _Arrived(receiver.cut_bytes, seconds, rate_of(receiver.cut_bytes, seconds))


def _time_split(path: BenchPath, arrived: _Arrived, series: Samples | None, outcome: _Outcome) -> TimeSplit | None:
    """Where the time went; None if the transfer failed, or too few samples show it."""
    sender, seconds = outcome.sender, arrived.seconds
    if seconds is None or series is None or len(series.t_s) < MIN_SAMPLES:
        return None
    receiver = on_sender_clock(sender, outcome.receiver)
    rtt_s = path.rtt_s or (sender.rtt_min_ms or 0.0) / 1e3
    connect_s, size = outcome.connected.connect_s or 0.0, arrived.size_bytes
    split = split_time(seconds, connect_s, size, series, receiver, path.ideal_bps, rtt_s)
    if outcome.receiver.cut_s is not None:  # a timed trial waits for nothing at its end
        split = replace(split, steady_s=split.steady_s + split.tail_s, tail_s=0.0)
    return TimeSplit(**{kind: round(value, 6) for kind, value in split.by_kind().items()})


def _cost(outcome: _Outcome, size: int) -> TrialCost:
    sender, receiver = outcome.sender, outcome.receiver
    is_alone = outcome.background_flow is None  # beside another flow the wire's bytes are not the transfer's own
    wire_bytes = outcome.ledger.wire_bytes if outcome.ledger is not None and is_alone else None
    return TrialCost(
        cpu_seconds_sender=sender.cpu_seconds,
        cpu_seconds_receiver=receiver.cpu_seconds,
        peak_memory_bytes_sender=sender.peak_memory_bytes,
        peak_memory_bytes_receiver=receiver.peak_memory_bytes,
        wire_bytes_per_payload_byte=wire_bytes / size if wire_bytes is not None and size else None,
    )
