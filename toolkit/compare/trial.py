"""One trial: a receiver and a sender, each a process of its own, and everything that is to be told of it.

The clock runs from the sender's first connect to the receiver's verified digest. Both ends have loaded everything by
then. A transfer that fails is a trial as well, which says why; the campaign goes on.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from toolkit.compare.background_flow import Competitor
from toolkit.compare.diagnosis import busy_share, kept, receiver_on, split
from toolkit.compare.explain import Facts, sentence
from toolkit.compare.packet_audit import has_host_drops, is_balanced
from toolkit.compare.paths import LINK, PAYLOAD_SHARE, BenchPath
from toolkit.compare.plan import Setting, Turn
from toolkit.compare.records import (
    CPU_BOUND,
    DEFAULT_LIMIT_S,
    EMULATOR_LATE,
    HOST_DROPS,
    LEDGER_OFF,
    PROBE_OFF,
    UNRELIABLE,
    Probe,
    Trial,
)
from toolkit.compare.testbed import Place, Receiving
from toolkit.compare.workspace import Workspace
from toolkit.errors import NettoolError, UsageError
from toolkit.units import rate_of

_RESULT_LIMIT_S = 15.0
_FAILED_LIMIT_S = 0.5
_LATE_MS, _LATE_SHARE = 2.0, 0.1
_CPU_SHARE, _FULL_SHARE = 0.25, 0.9


def run_trial(
    place: Place,
    turn: Turn,
    position: int,
    workspace: Workspace,
    link_seed: int,
    probed: Probe | None = None,
    limit_s: float = DEFAULT_LIMIT_S,
    competitor: Competitor | None = None,
) -> Trial:
    """Send the payload once. Never raises for a transfer that fails: the trial says so."""
    setting, size = turn.setting, turn.payload_bytes
    sender: dict[str, Any] = {}
    receiver: dict[str, Any] = {}
    error: str | None = None
    pinger = place.pinger()
    ledger = competition = None
    try:
        with ExitStack() as watching, ExitStack() as running:
            job = {"role": "receive", "transport": setting.transport, "payload_bytes": size}
            receiving = running.enter_context(place.receiver(setting, {**job, "directory": str(workspace.received)}))
            rate_bps = _rate_bps(setting, place.path)
            job = {
                "role": "send",
                "transport": setting.transport,
                "congestion_control": setting.congestion_control,
                "rate_bps": rate_bps,
                "address": [place.host, receiving.await_port()],
                "payload": str(workspace.payload(size)),
                "payload_bytes": size,
            }
            sending = running.enter_context(place.sender(setting, job))
            sending.await_ready()
            place.begin(link_seed)
            if competitor is not None:
                running.enter_context(competitor.beside(place))
            if pinger is not None:
                watching.enter_context(pinger)
            started_s = time.monotonic()
            sending.go()
            sender = sending.result(limit_s)
            ended_s = time.monotonic()
            if competitor is not None:
                competition = competitor.ended(started_s, ended_s, rate_of(size, ended_s - started_s))
            receiver = _receiver_s(receiving, sender)
            error = sender.get("error") or receiver.get("error")
            running.close()
            ledger = place.account(sender, receiver, pinger)
    except NettoolError as caught:
        error = str(caught)
    finally:
        (workspace.received / workspace.payload(size).name).unlink(missing_ok=True)
    return _trial(turn, position, place.path, sender, receiver, error, ledger, pinger, probed, link_seed, competition)


def _receiver_s(receiving: Receiving, sender: Mapping[str, Any]) -> dict[str, Any]:
    """What the receiver tells; a sender that has failed says enough by itself, and may never have come to it."""
    digest = str(sender.get("digest", ""))
    if "error" not in sender:
        return receiving.result(_RESULT_LIMIT_S, digest)
    with suppress(NettoolError):
        return receiving.result(_FAILED_LIMIT_S, digest)
    return {}


def _rate_bps(setting: Setting, path: BenchPath) -> float | None:
    """The rate that a setting asks for; the control `rate` holds what the path carries, where nothing was said."""
    if setting.rate_bps is not None:
        return setting.rate_bps
    is_needed = setting.congestion_control == "rate" or setting.label.startswith("iperf3-udp")
    if not is_needed:
        return None
    if path.rate_bps is None:
        raise UsageError(
            f"{setting.label} needs a rate, for {path.label} has no limit of its own: {setting.label}=1Gbit"
        )
    return path.rate_bps * PAYLOAD_SHARE


def _trial(
    turn: Turn,
    position: int,
    path: BenchPath,
    sender: dict[str, Any],
    receiver: dict[str, Any],
    error: str | None,
    ledger: dict[str, Any] | None,
    pinger: Any,
    probed: Probe | None,
    link_seed: int,
    competition: Mapping[str, float] | None,
) -> Trial:
    size = turn.payload_bytes
    series, their_series = sender.pop("series", None), receiver.get("series")
    their_series = receiver_on({**sender}, receiver) if series is not None and their_series is not None else None
    receiver.pop("series", None)
    is_same = sender.get("digest") == receiver.get("digest") is not None and sender.get("bytes") == size
    verified = error is None and (is_same or bool(sender.get("is_delivered")))
    seconds = float(sender["seconds"]) if verified else None
    goodput_bps = rate_of(size, seconds) if seconds is not None else None
    if goodput_bps is not None and sender.get("is_delivered"):  # such a program says itself what has arrived
        goodput_bps = float(sender["goodput_bps"])
    reasons, why, marks = None, "", []
    if turn.setting.program is not None and sender.get("is_unreliable"):
        marks.append(UNRELIABLE)
    if seconds is not None and goodput_bps is not None and series is not None:
        rtt_s = path.rtt_s or float(sender.get("rtt_min_ms") or 0.0) / 1e3
        connect_s = float(sender.get("connect_s", 0.0))
        reasons = split(seconds, connect_s, size, series, their_series, path.ideal_bps, rtt_s)
        busy = (busy_share(series, seconds), _their_share(receiver, their_series))
        facts = Facts(
            congestion_control=str(sender.get("congestion_control", "")),
            seconds=seconds,
            goodput_bps=goodput_bps,
            reasons=reasons,
            retransmitted_packets=int(sender.get("packets_retransmitted", 0)),
            ideal_bps=path.ideal_bps,
            loss=path.loss,
            rtt_s=rtt_s,
            busy_sender=busy[0],
            busy_receiver=busy[1],
        )
        why = sentence(facts) if competition is None else f"It shared the path with another flow. {sentence(facts)}"
        # Elsewhere the processors are part of what is compared, and the sentence says that they were the limit.
        is_slower = path.kind == LINK and path.ideal_bps is not None and goodput_bps < _FULL_SHARE * path.ideal_bps
        if is_slower and reasons["cpu_bound_s"] > _CPU_SHARE * seconds:
            marks.append(CPU_BOUND)
    if ledger is not None:
        marks += _link_marks(path, ledger, is_compared=competition is None)
    if probed is not None and probed.is_met is False:
        marks.append(PROBE_OFF)
    base_ms = probed.rtt_ms["median"] if probed is not None and probed.rtt_ms is not None else None
    return Trial(
        block=turn.block,
        position=position,
        transport=turn.setting.label,
        path=path.label,
        payload_bytes=size,
        verified=verified,
        seconds=seconds,
        goodput_bps=goodput_bps,
        error=error if error is not None or verified else "what arrived is not what was sent",
        sender=sender,
        receiver=receiver,
        ledger=ledger,
        cost=_cost(sender, receiver, ledger if competition is None else None, size),
        retransmitted_packets=sender.get("packets_retransmitted"),
        reasons={kind: round(value, 6) for kind, value in reasons.items()} if reasons is not None else None,
        why=why,
        delay=pinger.delay(base_ms) if pinger is not None else None,
        competitor=competition,
        series=kept(series, size) if series is not None and verified else None,
        marks=list(dict.fromkeys(marks)),
        link_seed=link_seed if ledger is not None else None,
    )


def _their_share(receiver: Mapping[str, Any], series: Mapping[str, Any] | None) -> float:
    return busy_share(series, float(receiver["seconds"])) if series is not None else 0.0


def _link_marks(path: BenchPath, ledger: Mapping[str, Any], is_compared: bool) -> list[str]:
    marks = []
    if is_compared and not is_balanced(ledger):
        marks.append(LEDGER_OFF)
    if has_host_drops(ledger):
        marks.append(HOST_DROPS)
    limit_ms = max(_LATE_MS, _LATE_SHARE * path.rtt_s * 1e3)
    if path.kind == LINK and (ledger["late_p99_ms"] > limit_ms or ledger["dropped_by_emulator"]):
        marks.append(EMULATOR_LATE)
    return marks


def _cost(
    sender: Mapping[str, Any], receiver: Mapping[str, Any], ledger: Mapping[str, Any] | None, size: int
) -> dict[str, float | None]:
    return {
        "cpu_seconds_sender": sender.get("cpu_seconds"),
        "cpu_seconds_receiver": receiver.get("cpu_seconds"),
        "peak_memory_bytes_sender": sender.get("peak_memory_bytes"),
        "peak_memory_bytes_receiver": receiver.get("peak_memory_bytes"),
        "wire_bytes_per_payload_byte": ledger["wire_bytes"] / size if ledger is not None else None,
    }
