"""The outcome of a session, for programs and for people."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from toolkit.channel import Channel
from toolkit.errors import NettoolError
from toolkit.rudp.flow_control import WANTED_SOCKET_BUFFER_BYTES
from toolkit.transfer import TransferResult
from toolkit.transfer.result import DeliveryStatus
from toolkit.units import format_rate, format_seconds, format_size, rate_of

_FAILURES = (DeliveryStatus.MISMATCHED, DeliveryStatus.FAILED)


@contextmanager
def closing(channel: Channel, patience_s: float | None = None) -> Iterator[None]:
    """Close the channel when the block ends, or abort it if the block raises anything but a NettoolError.

    `patience_s` is how long to wait for a peer that is silent when the session has succeeded; see `Channel.close`.
    """
    try:
        yield
    except NettoolError:
        try:
            channel.close()  # delivers the error message that is still queued for the peer
        except Exception:  # content may be queued too, and the session has closed its sources
            channel.abort()
        raise
    except BaseException:
        channel.abort()
        raise
    channel.close(patience_s)


def result_fields(
    transport_name: str, channel: Channel, result: TransferResult, seconds: float, cpu_seconds: float
) -> dict[str, Any]:
    """Return the fields that `send` and `receive` share (docs/data-format.md)."""
    return {
        "transport": transport_name,
        "peer": str(channel.peer),
        "files": result.files,
        "bytes": result.size_bytes,
        "seconds": seconds,
        "goodput_bps": rate_of(result.size_bytes, seconds),
        "algorithm": result.algorithm,
        "digest": result.digest,
        "unchanged": result.unchanged,
        "cpu_seconds": cpu_seconds,
        **channel.statistics(),
    }


def failed_entries(result: TransferResult) -> list[dict[str, str]]:
    """Return the files that should have arrived and did not, as JSON objects."""
    return [
        {"name": entry.name, "status": entry.status, "reason": entry.reason}
        for entry in result.undelivered
        if entry.status is not DeliveryStatus.SKIPPED
    ]


def undelivered_lines(result: TransferResult, statuses: Iterable[DeliveryStatus]) -> Iterator[str]:
    """Yield a line for each entry with one of these statuses, and one for those that the result does not list."""
    for status in statuses:
        for entry in result.with_status(status):
            yield f"{status} {entry}"
        if more := result.omitted.get(status):
            yield f"{status} {more} more"


def failure_lines(result: TransferResult) -> list[str]:
    """Return a line for each file that failed; none for a single one, which the error names."""
    lines = list(undelivered_lines(result, _FAILURES))
    return lines if len(lines) > 1 else []


def partial_result_fields(error: NettoolError) -> dict[str, Any]:
    """Return what a session had achieved when `error` ended it; an empty dict if the error is not from a session."""
    result = error.result
    if not isinstance(result, TransferResult):
        return {}
    return {"files": result.files, "bytes": result.size_bytes, "failed": failed_entries(result)}


def summary_line(fields: Mapping[str, Any]) -> str:
    """Format the result fields as one line."""
    files = fields["files"]
    line = f"{files} {'file' if files == 1 else 'files'}, {format_size(fields['bytes'])}"
    line += f" in {format_seconds(fields['seconds'])}, {format_rate(fields['goodput_bps'])}"
    line += f", {fields['algorithm']} {fields['digest']}" if fields["digest"] else ""
    line += f", {fields['unchanged']} unchanged" if fields["unchanged"] else ""
    return line + (", not encrypted" if fields.get("encryption") == "none" else "")


def socket_buffer_hint(fields: Mapping[str, Any]) -> str | None:
    """Return what to do about datagrams that found a socket buffer full that the system limits; None without any."""
    if not fields.get("socket_drops") or fields["receive_buffer_bytes"] >= WANTED_SOCKET_BUFFER_BYTES:
        return None
    return (
        f"{fields['socket_drops']} datagrams found the socket's queue full and were sent again: allow a larger one with"
        f" sysctl -w net.core.rmem_max={WANTED_SOCKET_BUFFER_BYTES // 2}"
    )
