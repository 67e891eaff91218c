"""What a session comes to, for programs and for people."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from toolkit.channel import Channel
from toolkit.errors import NettoolError
from toolkit.transfer import TransferResult
from toolkit.transfer.result import DeliveryStatus
from toolkit.units import format_rate, format_seconds, format_size, rate_of


@contextmanager
def closed(channel: Channel) -> Iterator[None]:
    """Close the channel at the end of the block; after anything but an error of the family, at once."""
    try:
        yield
    except NettoolError:
        try:
            channel.close()  # what the peer is to be told still gets there
        except Exception:  # content that was on its way, too, and the session has given up its sources
            channel.abort()
        raise
    except BaseException:
        channel.abort()
        raise
    channel.close()


def result_fields(
    transport_name: str, channel: Channel, report: TransferResult, seconds: float, cpu_seconds: float
) -> dict[str, Any]:
    """The fields that `send` and `receive` share (docs/data-format.md)."""
    return {
        "transport": transport_name,
        "peer": str(channel.peer),
        "files": report.files,
        "bytes": report.size_bytes,
        "seconds": seconds,
        "goodput_bps": rate_of(report.size_bytes, seconds),
        "algorithm": report.algorithm,
        "digest": report.digest,
        "cpu_seconds": cpu_seconds,
        **channel.statistics(),
    }


def failed_entries(report: TransferResult) -> list[dict[str, str]]:
    """What should have arrived and did not."""
    return [
        {"name": entry.name, "status": entry.status, "reason": entry.reason}
        for entry in report.undelivered
        if entry.status is not DeliveryStatus.SKIPPED
    ]


def done_before(error: NettoolError) -> dict[str, Any]:
    """The fields that tell what a session had done before `error` ended it; none where there was no session."""
    if not isinstance(error.result, TransferResult):
        return {}
    report = error.result
    return {"files": report.files, "bytes": report.size_bytes, "failed": failed_entries(report)}


def describe(fields: Mapping[str, Any]) -> str:
    """The same as one line."""
    files = fields["files"]
    line = f"{files} {'file' if files == 1 else 'files'}, {format_size(fields['bytes'])}"
    line += f" in {format_seconds(fields['seconds'])}, {format_rate(fields['goodput_bps'])}"
    return line + (f", {fields['algorithm']} {fields['digest']}" if fields["digest"] else "")
