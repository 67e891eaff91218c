"""`nettool tcp-send` and `nettool udp-send`: connect, run a session, say what came of it."""

import time
from dataclasses import dataclass

from toolkit.channel import TransportOptions
from toolkit.cli.common import emit, emit_json, parse_target, say
from toolkit.cli.options import (
    DEFAULT_IDLE_TIMEOUT,
    CongestionControl,
    Digest,
    DigestChoice,
    IdleTimeout,
    Items,
    Json,
    Offload,
    OffloadChoice,
    Qlog,
    Quiet,
    Rate,
    Recursive,
    StreamName,
    Streams,
    idle_timeout_s,
    reported,
    spread,
)
from toolkit.cli.progress import bars
from toolkit.cli.results import closed, describe, result_fields
from toolkit.errors import UsageError
from toolkit.transfer import SendOptions, send
from toolkit.transfer.result import DeliveryStatus
from toolkit.transfer.scan import check_sources
from toolkit.transports.registry import transport
from toolkit.units import parse_rate


@dataclass(frozen=True, slots=True)
class Sending:
    """What every sender may be told."""

    items: Items
    cc: CongestionControl = None
    rate: Rate = None
    streams: Streams = 1
    recursive: Recursive = False
    digest: Digest = DigestChoice.XXH3
    name: StreamName = "stdin"
    idle_timeout: IdleTimeout = DEFAULT_IDLE_TIMEOUT
    json: Json = False
    quiet: Quiet = False


@reported
@spread
def tcp_send(asked: Sending) -> None:
    """Send files over TCP to a nettool that receives.

    Done, with exit code 0, when the receiver has every file verified under its name.

    \b
    nettool tcp-send film.mkv notes.txt 192.0.2.7
    nettool tcp-send -r photos/ [2001:db8::7]:9001
    nettool tcp-send --cc bbr --streams 4 disk.img host.example
    tar c src | nettool tcp-send --name src.tar - host.example
    """
    _send("tcp", asked)


@reported
@spread
def udp_send(*, offload: Offload = OffloadChoice.AUTO, qlog: Qlog = None, asked: Sending) -> None:
    """Send files over nettool's reliable protocol on UDP to a nettool that receives.

    Done, with exit code 0, when the receiver has every file verified under its name.

    \b
    nettool udp-send film.mkv 192.0.2.7
    nettool udp-send -r photos/ [2001:db8::7]:9001
    nettool udp-send --cc rate --rate 80Mbit disk.img host.example
    tar c src | nettool udp-send --name src.tar - host.example
    """
    _send("udp", asked, offload, qlog)


def _send(
    transport_name: str, asked: Sending, offload: OffloadChoice = OffloadChoice.AUTO, qlog: str | None = None
) -> None:
    options = TransportOptions(
        congestion_control=asked.cc,
        rate_bps=parse_rate(asked.rate) if asked.rate else None,
        streams=asked.streams,
        offload=offload,
        idle_timeout_s=idle_timeout_s(asked.idle_timeout),
        qlog=qlog,
    )
    session = SendOptions(asked.digest, asked.recursive, asked.name)
    *sources, target = asked.items
    if not sources:
        raise UsageError(f"say what to send, and to whom: nettool {transport_name}-send FILE... HOST[:PORT]")
    address = parse_target(target)
    check_sources(sources, session.recursive, session.stream_name)  # before anybody is bothered
    chosen = transport(transport_name)
    with bars(asked.quiet) as drawn:
        cpu_s, started_s = time.process_time(), time.monotonic()  # all that takes time to load is loaded by now
        channel = chosen.connect(address, options)
        with closed(channel), drawn.bar(sources[0]) as progress:
            report = send(channel, sources, session, progress)
            seconds, cpu_seconds = time.monotonic() - started_s, time.process_time() - cpu_s
            fields = result_fields(transport_name, channel, report, seconds, cpu_seconds)
    skipped = report.with_status(DeliveryStatus.SKIPPED)
    if asked.json:
        emit_json("send", {**fields, "skipped": [entry.name for entry in skipped]})
    elif not asked.quiet:
        emit(f"sent {describe(fields)}")
    if not asked.quiet:
        for entry in skipped:
            say(f"left out {entry}")
