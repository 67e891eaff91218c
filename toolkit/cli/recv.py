"""`nettool recv` and its one-transport forms: listen, take sessions, say what came of each."""

import ipaddress
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from toolkit.channel import Address, Channel, TransportOptions
from toolkit.cli.common import emit_json, explained, say, say_where
from toolkit.cli.options import (
    DEFAULT_BIND,
    DEFAULT_IDLE_TIMEOUT,
    RECV_PORT,
    Bind,
    Directory,
    Fsync,
    IdleTimeout,
    Json,
    Offload,
    OffloadChoice,
    Once,
    Overwrite,
    Port,
    Qlog,
    Quiet,
    idle_timeout_s,
    reported,
    spread,
)
from toolkit.cli.progress import Bars, bars
from toolkit.cli.results import closed, describe, failed_entries, result_fields
from toolkit.errors import NettoolError, RefusedError, UsageError, printable
from toolkit.transfer import ReceiveOptions, TransferResult, receive
from toolkit.transfer.result import DeliveryStatus
from toolkit.transfer.server import SessionServer, listen_on_one_port
from toolkit.transports.registry import transport

MAX_SESSIONS = 32  # each may hold a thread, two sockets, and megabytes of windows
GRACE_S = 5.0  # how long sessions have to clear up when the receiver is stopped


class TransportChoice(StrEnum):
    """What --transport takes."""

    TCP = "tcp"
    UDP = "udp"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Receiving:
    """What every receiver may be told."""

    directory: Directory = Path()
    bind: Bind = DEFAULT_BIND
    port: Port = RECV_PORT
    once: Once = False
    overwrite: Overwrite = False
    fsync: Fsync = False
    idle_timeout: IdleTimeout = DEFAULT_IDLE_TIMEOUT
    json: Json = False
    quiet: Quiet = False


@reported
@spread
def recv(
    *,
    transport: Annotated[TransportChoice, typer.Option(help="What to listen for.")] = TransportChoice.BOTH,
    offload: Offload = OffloadChoice.AUTO,
    asked: Receiving,
) -> int:
    """Receive files over TCP and UDP, both on one port, from several senders at once.

    A file appears under its name when it is whole and verified, and not before; one that exists is kept.

    \b
    nettool recv --dir incoming
    nettool recv --dir incoming --bind 0.0.0.0 --port 9001 --overwrite
    nettool recv --dir incoming --once --json
    """
    names = ("tcp", "udp") if transport is TransportChoice.BOTH else (transport.value,)
    return _receive(names, asked, offload)


@reported
@spread
def tcp_recv(asked: Receiving) -> int:
    """Receive files over TCP only.

    \b
    nettool tcp-recv --dir incoming
    nettool tcp-recv --dir incoming --bind :: --once
    """
    return _receive(("tcp",), asked)


@reported
@spread
def udp_recv(*, offload: Offload = OffloadChoice.AUTO, qlog: Qlog = None, asked: Receiving) -> int:
    """Receive files over nettool's reliable protocol on UDP only.

    \b
    nettool udp-recv --dir incoming
    nettool udp-recv --dir incoming --bind :: --once
    """
    return _receive(("udp",), asked, offload, qlog)


@dataclass(slots=True)
class _Job:
    """What to do with a session, and with what it comes to; `exit_code` is that of the last one."""

    asked: Receiving
    exit_code: int = field(default=0, init=False)

    def run(self, server: SessionServer, drawn: Bars, transport_name: str, channel: Channel) -> None:
        """Receive one session, report it, and end its channel. Raises TransferError when stdout is full."""
        cpu_s, started_s = time.process_time(), time.monotonic()
        who = f"{channel.peer} ({transport_name})"
        options = ReceiveOptions(overwrite=self.asked.overwrite, durable=self.asked.fsync)
        report = TransferResult("")
        error: NettoolError | None = None
        seconds = cpu_seconds = 0.0
        try:
            with closed(channel), drawn.bar(str(channel.peer)) as progress:
                try:
                    report = receive(channel, self.asked.directory, options, progress, server.closing)
                finally:
                    seconds, cpu_seconds = time.monotonic() - started_s, time.process_time() - cpu_s
                error = _refusal(report)
        except NettoolError as failure:
            report = failure.result if isinstance(failure.result, TransferResult) else report
            error = failure
        except Exception as unexpected:
            say_where(unexpected)
            error = explained(unexpected)
        fields = result_fields(transport_name, channel, report, seconds, cpu_seconds)
        self.exit_code = error.exit_code if error else 0
        if error and server.closing.is_set():
            return
        if error:
            say(f"nettool: {who}: {error}")
        elif not self.asked.quiet:
            say(f"received {describe(fields)} from {who}")
        if self.asked.json:
            outcome = {"error": str(error), "exit_code": error.exit_code} if error else {}
            emit_json("receive", {**fields, "verified": not error, "failed": failed_entries(report), **outcome})


def _refusal(report: TransferResult) -> RefusedError | None:
    refused = report.summary(DeliveryStatus.REFUSED)
    return RefusedError(f"not taken: {refused}") if refused else None


def _receive(
    names: Sequence[str], asked: Receiving, offload: OffloadChoice = OffloadChoice.AUTO, qlog: str | None = None
) -> int:
    options = TransportOptions(offload=offload, idle_timeout_s=idle_timeout_s(asked.idle_timeout), qlog=qlog)
    _prepare(asked.directory)
    listeners = listen_on_one_port({name: transport(name) for name in names}, Address(asked.bind, asked.port), options)
    bound = Address(asked.bind or "0.0.0.0", next(iter(listeners.values())).address.port)
    job = _Job(asked)
    with bars(asked.quiet) as drawn:
        server = SessionServer(
            listeners,
            lambda name, channel: job.run(server, drawn, name, channel),
            max_sessions=MAX_SESSIONS,
            limit=1 if asked.once else None,
        )
        try:
            if not asked.quiet:
                if not _is_loopback(asked.bind):
                    say(f"warning: everyone who reaches port {bound.port} of this machine can send it files")
                say(f"listening on {bound} ({', '.join(names)})")
            server.run()
        finally:
            server.close(GRACE_S)
    return job.exit_code


def _prepare(directory: Path) -> None:
    """Make the directory if it is missing. Raises UsageError where nothing could be received into it."""
    shown = printable(str(directory))
    try:
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{shown}: {(error.strerror or '').lower()}; give --dir a directory") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{shown}: permission denied; give --dir a directory that you may write to")


def _is_loopback(host: str) -> bool:
    """Whether every address that `host` stands for is of this machine alone."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host or None, None)}
        return bool(host) and all(ipaddress.ip_address(address).is_loopback for address in found)
    except (OSError, ValueError, UnicodeError):
        return False
