"""The outcome of a session, for programs and for people."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from toolkit.api.results import SessionResult
from toolkit.cli.option_names import with_options
from toolkit.errors import NettoolError, printable
from toolkit.rudp.flow_control import WANTED_SOCKET_BUFFER_BYTES
from toolkit.transfer.names import MAX_PATH_BYTES
from toolkit.transfer.result import DeliveryStatus
from toolkit.units import format_rate, format_seconds, format_size

_FAILURES = (DeliveryStatus.REFUSED, DeliveryStatus.MISMATCHED, DeliveryStatus.FAILED)
_SHOWN = 10
"""Entries listed one by one before the others are counted, unless the user asks for more with --verbose."""


def result_fields(result: SessionResult) -> dict[str, Any]:
    """Return the fields that `send` and `receive` share (docs/data-format.md)."""
    return {
        "transport": result.transport,
        "peer": str(result.peer),
        "files": result.file_count,
        "bytes": result.size_bytes,
        "seconds": result.seconds,
        "hole_bytes": result.hole_bytes,
        "resumed_bytes": result.resumed_bytes,
        "goodput_bps": result.goodput_bps,
        "algorithm": result.algorithm,
        "digest": result.digest,
        "names": [file.name for file in result.files],
        "unchanged": result.unchanged,
        "cpu_seconds": result.cpu_seconds,
        **result.statistics,
    }


def failed_entries(result: SessionResult) -> list[dict[str, str]]:
    """Return the files that should have arrived and did not, as JSON objects."""
    return [
        {"name": entry.name, "status": entry.status, "reason": with_options(entry.reason)}
        for entry in result.undelivered
        if entry.status is not DeliveryStatus.SKIPPED
    ]


def undelivered_lines(
    result: SessionResult, statuses: Iterable[DeliveryStatus], *, is_verbose: bool = False
) -> Iterator[str]:
    """Yield a line for each entry with one of these statuses, up to a limit, and one with the number of the others.

    What to do about it, behind the semicolon of a reason, is told once.
    """
    told: set[str] = set()
    for status in statuses:
        entries = result.with_status(status)
        shown = entries if is_verbose else entries[:_SHOWN]
        for entry in shown:
            is_told = entry.reason in told
            told.add(entry.reason)
            yield f"{status} {entry._replace(reason=entry.reason.partition('; ')[0]) if is_told else entry}"
        if more := len(entries) - len(shown) + result.omitted.get(status, 0):
            yield f"{status} {more} more"


def failure_lines(result: SessionResult, *, is_verbose: bool = False) -> list[str]:
    """Return a line for each file that did not arrive; none for a single one, which the error names."""
    lines = list(undelivered_lines(result, _FAILURES, is_verbose=is_verbose))
    return lines if len(lines) > 1 else []


def resumed_lines(result: SessionResult) -> list[str]:
    """Return a line that says how much the receiver had of what was sent; none if that is nothing."""
    if not result.resumed_bytes:
        return []
    return [f"  {format_size(result.resumed_bytes)} of {format_size(result.size_bytes)} were there already"]


def unfinished_lines(result: SessionResult, *, is_verbose: bool = False) -> list[str]:
    """Return lines that say of which files the receiver has kept something: of many, up to a limit, and the number."""
    entries = result.unfinished
    if len(entries) == 1:
        return [f"kept {entries[0]}; send it again to go on"]
    shown = entries if is_verbose else entries[:_SHOWN]
    more = len(entries) - len(shown)
    kept_bytes = sum(entry.arrived_bytes for entry in entries)
    return [
        f"kept {format_size(kept_bytes)} of {len(entries)} unfinished files; send them again to go on",
        *(f"  {entry}" for entry in shown),
        *([f"  and {more} more"] if more else []),
    ]


def delivered_lines(result: SessionResult, *, is_verbose: bool = False) -> list[str]:
    """Return a line for each file that arrived, up to a limit, and one with the number of the others.

    is_verbose: list more of them, each with its size and digest
    """
    shown = result.files if is_verbose else result.files[:_SHOWN]
    lines = []
    for file in shown:
        name = printable(file.name if file.path is None else str(file.path), MAX_PATH_BYTES)
        details = f"  ({format_size(file.size_bytes)}, {result.algorithm} {file.digest})" if is_verbose else ""
        lines.append(f"  {name}{details}")
    if more := result.file_count - len(shown):
        lines.append(f"  and {more} more")
    return lines


def path_line(fields: Mapping[str, Any]) -> str:
    """Return what the path did to a session, for --verbose."""
    sent, again = fields["packets_sent"], fields["packets_retransmitted"]
    line = f"  {fields['transport']}, {fields['congestion_control']}, {fields['encryption']}"
    line += f": RTT {fields['rtt_ms']:.3g} ms (at least {fields['rtt_min_ms']:.3g} ms), {sent} packets sent"
    return f"{line}, {again} of them again" if again else line


def partial_result_fields(error: NettoolError) -> dict[str, Any]:
    """Return what a session had achieved when `error` ended it; an empty dict if the error is not from a session."""
    result = error.result
    if not isinstance(result, SessionResult):
        return {}
    return {"files": result.file_count, "bytes": result.size_bytes, "failed": failed_entries(result)}


def summary_line(fields: Mapping[str, Any]) -> str:
    """Format the result fields as one line."""
    files, unchanged = fields["files"], fields["unchanged"]
    line = f"{files} {'file' if files == 1 else 'files'}"
    line += f", {format_size(fields['bytes'])}" if files or not unchanged else ""
    line += f" ({format_size(fields['hole_bytes'])} of holes)" if fields["hole_bytes"] else ""
    line += f" in {format_seconds(fields['seconds'])}"
    line += f", {format_rate(fields['goodput_bps'])}" if files or not unchanged else ""
    line += f", {unchanged} unchanged" if unchanged else ""
    return line + (", not encrypted" if fields.get("encryption") == "none" else "")


def socket_buffer_hint(fields: Mapping[str, Any]) -> str | None:
    """Return what to do about datagrams that found a socket buffer full that the system limits; None without any."""
    if not fields.get("socket_drops") or fields["receive_buffer_bytes"] >= WANTED_SOCKET_BUFFER_BYTES:
        return None
    return (
        f"{fields['socket_drops']} datagrams found the socket's queue full and were sent again: allow a larger one with"
        f" sysctl -w net.core.rmem_max={WANTED_SOCKET_BUFFER_BYTES // 2}"
    )
