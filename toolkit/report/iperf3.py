"""Runs of iperf3, from the output of `iperf3 -J` or `--json-stream`, as rows to show beside a campaign.

An iperf3 run sends no file, verifies no digest, and has no partner in a block: it runs for a fixed time. Its row
therefore has figures and never a verdict. Goodput is what the receiver counted if it reported that, because what was
sent may not have arrived. Processor time is `cpu_utilization_percent`, which is in percent of one core, over the
duration of the run.

A file is imported as far as it is valid. Output of a shell often has a warning before or behind the JSON, iperf3 writes
`-nan` where it has divided by zero, and a run may have been interrupted: what is left out for such a reason is named.

Read: the iperf3 documentation, "Output" (https://software.es.net/iperf), and `iperf_api.c`, which writes the JSON.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.comparison.records import UNRELIABLE
from toolkit.comparison.rows import Row
from toolkit.comparison.stats import Estimate
from toolkit.comparison.verdict import NO_CLAIM
from toolkit.errors import UsageError, printable, printable_path
from toolkit.units import format_fraction, format_rate, format_seconds, format_size

MAX_FILE_BYTES = 256 << 20
_EXCERPT = 60
_IS_CUT = "is_cut_short"
_NOT_A_NUMBER = re.compile(r"(:\s*)-?(?:nan|inf(?:inity)?)(?=\s*[,}\]])", re.IGNORECASE)
"""As printf writes it, which is no JSON."""
_GIGABYTE = 1e9
_NOT_PAIRED = "imported"

Fields = Mapping[str, Any]


class Imported(NamedTuple):
    """What a file holds: a row for each run, and a sentence for each part that was left out."""

    rows: list[Row]
    left_out: list[str]


def read(path: Path) -> Imported:
    """The runs in the file, which may contain several in sequence.

    Raises UsageError if the file cannot be read or holds no run that is valid.
    """
    shown = printable_path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{shown} is larger than 256 MiB; give the output of iperf3 -J")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {shown}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not text; give the output of iperf3 -J") from None
    found = Imported([], [])
    for number, run in enumerate(_joined(_values(text, found.left_out)), 1):
        failure = run.get("error")
        if isinstance(failure, str) and not run.get("end"):
            found.left_out.append(f"run {number}: iperf3 failed: {printable(failure)}")
            continue
        try:
            found.rows.append(_row(run, path.name))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            found.left_out.append(f"run {number}: it lacks the figures that iperf3 -J writes at its end")
    if not found.rows:
        reason = found.left_out[0] if found.left_out else "it is empty"
        raise UsageError(f"{shown}: {reason}; give the output of iperf3 -J")
    return found


def _values(text: str, left_out: list[str]) -> Iterator[Fields]:
    """The JSON objects at the beginning of a line; what stands between them is appended to `left_out`."""
    text = _NOT_A_NUMBER.sub(r"\1null", text)
    decoder = json.JSONDecoder()
    position, end = 0, len(text.rstrip())
    while position < end:
        position = len(text) - len(text[position:].lstrip())
        try:
            value, after = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            value, after = None, text.find("\n{", position) + 1 or end
        if isinstance(value, dict):
            yield value
        else:
            excerpt = printable(" ".join(text[position:after].split()), _EXCERPT)
            left_out.append(f"no run of iperf3: {excerpt}")
        position = after


def _joined(values: Iterable[Fields]) -> Iterator[Fields]:
    """The runs: an object each, or the events of `--json-stream` from one start to the next."""
    run: dict[str, Any] = {}
    for value in values:
        event, data = value.get("event"), value.get("data")
        if event is None:
            yield value
        elif event == "start":
            if run:
                yield _cut_short(run)
            run = {"start": data}
        elif event == "interval":
            run.setdefault("intervals", []).append(data)
        elif event == "error":
            run["error"] = str(data)
        elif event == "end":
            yield {**run, "end": data}
            run = {}
    if run:
        yield _cut_short(run)


def _cut_short(run: Fields) -> Fields:
    """A run without its end, with the sums of its intervals instead."""
    try:
        sums = [each["sum"] for each in run["intervals"]]
        total = {name: sum(_figure(each, name) for each in sums) for name in ("seconds", "bytes")}
        resent = [_optional(each, "retransmits") for each in sums]
    except (KeyError, TypeError, ValueError):
        return run
    known = [count for count in resent if count is not None]
    return {**run, "end": {"sum_sent": {**total, "retransmits": sum(known) if known else None}, _IS_CUT: True}}


def _row(run: Fields, file_name: str) -> Row:
    start, end = run["start"], run["end"]
    test, target = start["test_start"], start.get("connecting_to") or start.get("accepted_connection") or {}
    protocol = str(test["protocol"]).lower()
    is_udp = protocol == "udp"
    sent, received = end.get("sum_sent") or end["sum"], end.get("sum_received") or {}
    has_receiver = bool(received.get("bytes"))  # before iperf3 3.10, UDP receivers did not report their count
    if not has_receiver:
        received = sent
    seconds, size_bytes = _figure(received, "seconds"), int(_figure(received, "bytes"))
    if seconds <= 0:
        raise ValueError(seconds)
    goodput_bps = 8 * size_bytes / seconds
    if is_udp and not has_receiver:
        goodput_bps *= 1 - _lost(end.get("sum") or {})
    cpu = end.get("cpu_utilization_percent") or {}
    sender, receiver = ("remote_total", "host_total") if test.get("reverse") else ("host_total", "remote_total")
    gigabytes = size_bytes / _GIGABYTE
    return Row(
        path=f"to {target.get('host', 'somewhere')}, {file_name}",
        payload_bytes=size_bytes,
        content=format_size(size_bytes),
        content_bytes=size_bytes,
        transport=_label(protocol, end),
        trials=1,
        verified=0,
        unmarked=0,
        is_control=False,
        goodput_bps=Estimate(goodput_bps, None),
        deviation_bps=None,
        seconds=Estimate(seconds, None),
        ratio=None,
        block_ratios=(),
        pairs=0,
        censored=0,
        margin=0.0,
        reach=None,
        verdict=NO_CLAIM,
        is_negligible=False,
        because=_NOT_PAIRED,
        more_blocks=None,
        resolution=None,
        marks=(UNRELIABLE,) if is_udp else (),
        drift=None,
        link_loss=None,
        asked_loss=None,
        is_loss_off=False,
        regime=None,
        time_split=None,
        why=_why(test, end, is_udp, seconds),
        retransmitted_packets=_optional(sent, "retransmits"),
        resent_per_lost=None,
        wire_bytes_per_payload_byte=None,
        sender_cpu_s_per_gb=_cpu_s_per_gb(cpu, sender, seconds, gigabytes),
        receiver_cpu_s_per_gb=_cpu_s_per_gb(cpu, receiver, seconds, gigabytes),
        sender_peak_memory_bytes=None,
        receiver_peak_memory_bytes=None,
        delay_ms=None,
        competition=None,
    )


def _label(protocol: str, end: Fields) -> str:
    label = f"iperf3-{protocol}"
    congestion_control = end.get("sender_tcp_congestion")
    return f"{label}-{congestion_control}" if protocol == "tcp" and congestion_control else label


def _why(test: Fields, end: Fields, is_udp: bool, seconds: float) -> str:
    streams = int(_figure(test, "num_streams"))
    words = f"iperf3 sent for {format_seconds(seconds)} over {streams} {'stream' if streams == 1 else 'streams'}"
    target_bps = _optional(test, "target_bitrate")
    if target_bps:
        words += f", limited to {format_rate(target_bps)} each"
    if is_udp:
        words += f"; {format_fraction(_lost(end.get('sum') or {}))} of the datagrams were lost"
    if end.get(_IS_CUT):
        words += "; it was cut short, and these are the sums of its intervals"
    return f"{words}."


def _lost(total: Fields) -> float:
    packets, lost = _optional(total, "packets"), _optional(total, "lost_packets")
    return min(lost / packets, 1.0) if packets and lost else 0.0


def _cpu_s_per_gb(cpu: Fields, name: str, seconds: float, gigabytes: float) -> float | None:
    percent = _optional(cpu, name)
    return percent / 100 * seconds / gigabytes if percent is not None and gigabytes > 0 else None


def _figure(fields: Fields, name: str) -> float:
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(value)
    return float(value)


def _optional(fields: Fields, name: str) -> float | None:
    return None if fields.get(name) is None else _figure(fields, name)
