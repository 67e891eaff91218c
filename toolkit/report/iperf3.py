"""Runs of iperf3, from the output of `iperf3 -J`, as rows to show beside a campaign.

An iperf3 run sends no file, verifies no digest, and has no partner in a block: it runs for a fixed time. Its row
therefore has figures and never a verdict. Goodput is what the receiver counted if it reported that, because what was
sent may not have arrived. Processor time is `cpu_utilization_percent`, which is in percent of one core, over the
duration of the run.

Read: the iperf3 documentation, "Output" (https://software.es.net/iperf), and `iperf_api.c`, which writes the JSON.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.compare.records import UNRELIABLE
from toolkit.compare.rows import Row
from toolkit.compare.stats import Estimate
from toolkit.compare.verdict import NO_CLAIM
from toolkit.errors import UsageError, printable
from toolkit.units import format_fraction, format_rate, format_seconds, format_size

MAX_FILE_BYTES = 256 << 20
_GIGABYTE = 1e9
_NOT_PAIRED = "imported"

Fields = Mapping[str, Any]


def read(path: Path) -> list[Row]:
    """One row for each run in the file, which may contain several in sequence.

    Raises UsageError if the file cannot be read or is not the output of `iperf3 -J`.
    """
    shown = printable(str(path))
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{shown} is larger than 256 MiB; give the output of iperf3 -J")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {shown}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not text; give the output of iperf3 -J") from None
    rows = []
    try:
        for run in _runs(text):
            if isinstance(run.get("error"), str) and not run.get("end"):
                raise UsageError(f"{shown}: iperf3 failed: {printable(run['error'])}; leave this run out")
            rows.append(_row(run, path.name))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise UsageError(f"{shown}, run {len(rows) + 1}: not the output of iperf3 -J; give its JSON") from None
    if not rows:
        raise UsageError(f"{shown} is empty; give the output of iperf3 -J")
    return rows


def _runs(text: str) -> Iterator[Fields]:
    decoder = json.JSONDecoder()
    position, end = 0, len(text.rstrip())
    while position < end:
        position = len(text) - len(text[position:].lstrip())
        run, position = decoder.raw_decode(text, position)
        if not isinstance(run, dict):
            raise TypeError(run)
        yield run


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
        goodput_bps *= 1 - _lost(end["sum"])
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
        reasons=None,
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
        words += f"; {format_fraction(_lost(end['sum']))} of the datagrams were lost"
    return f"{words}."


def _lost(total: Fields) -> float:
    packets = _figure(total, "packets")
    return min(max(_figure(total, "lost_packets") / packets, 0.0), 1.0) if packets > 0 else 0.0


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
