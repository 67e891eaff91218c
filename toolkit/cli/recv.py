"""`nettool recv`, `tcp-recv` and `udp-recv`: listen, run sessions, print the result of each."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.channel import Address, Channel, TransportOptions
from toolkit.cli.access import AdmissionArguments, Doorkeeper
from toolkit.cli.call_tracing import TraceArguments
from toolkit.cli.command import command
from toolkit.cli.interrupts import prompt_interrupts
from toolkit.cli.options import (
    CONNECTION,
    DEFAULT_MAX_STREAMS,
    LimitArguments,
    MaxStreams,
    Offload,
    OffloadChoice,
    Qlog,
    ReceiveArguments,
    idle_timeout_s,
    positive_duration_s,
)
from toolkit.cli.output import as_nettool_error, print_json, print_status, print_traceback_if_requested
from toolkit.cli.progress import ProgressBars, progress_bars
from toolkit.cli.reachability import listening_lines
from toolkit.cli.results import (
    closing,
    delivered_lines,
    failed_entries,
    failure_lines,
    path_line,
    result_fields,
    resumed_lines,
    socket_buffer_hint,
    summary_line,
    unfinished_lines,
)
from toolkit.cli.returning import ReturningSender, Whereabouts
from toolkit.errors import (
    ExitCode,
    NettoolError,
    PeerAbortedError,
    PeerClosedError,
    RefusedError,
    UsageError,
    printable,
)
from toolkit.security.reconnections import Reconnections
from toolkit.security.rehearsal import rehearse
from toolkit.transfer import SessionLimits, TransferResult, receive
from toolkit.transfer.leftovers import remove_stale_in
from toolkit.transfer.open_files import raise_descriptor_limit
from toolkit.transfer.receiver import ReceiveOptions
from toolkit.transfer.result import DeliveryStatus
from toolkit.transfer.session_server import ConcurrencyLimits, SessionServer, listen_on_one_port
from toolkit.transports.registry import transport
from toolkit.units import format_seconds, parse_duration_ns, parse_size, to_seconds

SHUTDOWN_GRACE_S = 5.0  # how long running sessions may clean up when the receiver is interrupted


class TransportChoice(StrEnum):
    """The values of --transport."""

    TCP = "tcp"
    UDP = "udp"
    BOTH = "both"


@command
def recv(
    arguments: ReceiveArguments,
    access: AdmissionArguments,
    limits: LimitArguments,
    tracing: TraceArguments,
    transport: Annotated[
        TransportChoice, typer.Option(help="Transports to accept.", rich_help_panel=CONNECTION)
    ] = TransportChoice.BOTH,
    max_streams: MaxStreams = DEFAULT_MAX_STREAMS,
    offload: Offload = OffloadChoice.AUTO,
) -> int:
    """Receive files over TCP and UDP, on one port, from several senders at once.

    A file appears under its name only when it is complete and verified. Existing files are kept. Everything is
    encrypted. Off loopback, a sender needs the code that this command prints, or the same key file.

    \b
    Examples:
      nettool recv --dir incoming
      nettool recv --dir incoming --bind 0.0.0.0 --once
      nettool recv --dir incoming --bind 0.0.0.0 --key lab.key --overwrite --json
    """
    names = ("tcp", "udp") if transport is TransportChoice.BOTH else (transport.value,)
    own = TransportOptions(max_streams=max_streams, offload=offload)
    return _receive(names, arguments, access, limits, tracing, own)


@command
def tcp_recv(
    arguments: ReceiveArguments,
    access: AdmissionArguments,
    limits: LimitArguments,
    tracing: TraceArguments,
    max_streams: MaxStreams = DEFAULT_MAX_STREAMS,
) -> int:
    """Receive files over TCP only.

    A file appears under its name only when it is complete and verified. Existing files are kept. Everything is
    encrypted. Off loopback, a sender needs the code that this command prints, or the same key file.

    \b
    Examples:
      nettool tcp-recv --dir incoming
      nettool tcp-recv --dir incoming --bind :: --once
      nettool tcp-recv --once --trace-calls --simple
    """
    return _receive(("tcp",), arguments, access, limits, tracing, TransportOptions(max_streams=max_streams))


@command
def udp_recv(
    arguments: ReceiveArguments,
    access: AdmissionArguments,
    limits: LimitArguments,
    tracing: TraceArguments,
    offload: Offload = OffloadChoice.AUTO,
    qlog: Qlog = None,
) -> int:
    """Receive files over nettool's reliable protocol on UDP only.

    A file appears under its name only when it is complete and verified. Existing files are kept. Everything is
    encrypted. Off loopback, a sender needs the code that this command prints, or the same key file.

    \b
    Examples:
      nettool udp-recv --dir incoming
      nettool udp-recv --dir incoming --bind :: --once
      nettool udp-recv --once --trace-calls --simple
    """
    return _receive(("udp",), arguments, access, limits, tracing, TransportOptions(offload=offload, qlog=qlog))


@dataclass(slots=True)
class _SessionRunner:
    """Receives sessions into `directory` and prints their results. `exit_code` is that of the last session.

    patience_s: how long to wait for a sender that comes back; 0 if the receiver goes on anyway
    """

    options: ReceiveOptions
    directory: Path
    quiet: bool
    verbose: bool
    json: bool
    idle_timeout_s: float
    patience_s: float
    reconnections: Reconnections
    exit_code: int = field(default=ExitCode.OK, init=False)
    _has_hinted: bool = field(default=False, init=False)

    def run(self, server: SessionServer, bars: ProgressBars, transport_name: str, channel: Channel) -> float | None:
        """Receive one session, print its result, and close its channel. Raises TransferError if stdout is full.

        Return for how long to wait for a sender that comes back after a lost connection; None if it does not.
        """
        sender = ReturningSender(channel.statistics, self.reconnections)
        options = replace(self.options, on_begin=sender.on_begin)
        started_cpu_s, started_s = time.process_time(), time.monotonic()
        result = TransferResult("")
        error: NettoolError | None = None
        seconds = cpu_seconds = 0.0
        try:
            with (
                closing(channel, self.idle_timeout_s),
                bars.bar("", f"from {channel.peer} ({transport_name}) ") as progress,
            ):
                try:
                    result = receive(channel, self.directory, options, progress, server.closing)
                finally:
                    seconds, cpu_seconds = time.monotonic() - started_s, time.process_time() - started_cpu_s
                error = _refusal(result)
        except NettoolError as failure:
            result = failure.result if isinstance(failure.result, TransferResult) else result
            error = failure
        except Exception as unexpected:
            print_traceback_if_requested(unexpected)
            error = as_nettool_error(unexpected)
        is_lost = isinstance(error, PeerClosedError) and not isinstance(error, PeerAbortedError)
        whereabouts = sender.end(is_lost=is_lost)
        if error and server.closing.is_set():
            return None
        if whereabouts is not Whereabouts.BACK:
            self.exit_code = error.exit_code if error else ExitCode.OK
        fields = result_fields(transport_name, channel, result, seconds, cpu_seconds)
        self._print_outcome(f"{channel.peer} ({transport_name})", fields, result, error)
        if whereabouts is Whereabouts.BACK:
            return 0.0
        if whereabouts is Whereabouts.GONE or not self.patience_s:
            return None
        if not self.quiet:
            print_status(f"waiting {format_seconds(self.patience_s)} for the sender to reconnect")
        return self.patience_s

    def _print_outcome(
        self, peer: str, fields: dict[str, Any], result: TransferResult, error: NettoolError | None
    ) -> None:
        if error:
            failures = failure_lines(result, is_verbose=self.verbose)
            print_status("\n".join([*failures, f"nettool: {peer}: {error}"]))
        if result.unfinished and not self.quiet:
            print_status("\n".join(unfinished_lines(result)))
        if not self.quiet and (result.files or not error):
            print_status("\n".join(self._success_lines(peer, fields, result)))
        if not self.quiet and not self._has_hinted and (hint := socket_buffer_hint(fields)):
            self._has_hinted = True
            print_status(hint)
        if self.json:
            outcome: dict[str, Any] = {"error": str(error), "exit_code": error.exit_code} if error else {}
            outcome |= {"verified": not error, "failed": failed_entries(result)}
            outcome["unfinished"] = [entry.to_json() for entry in result.unfinished]
            print_json("receive", {**fields, "directory": str(self.directory.resolve()), **outcome})

    def _success_lines(self, peer: str, fields: Mapping[str, Any], result: TransferResult) -> list[str]:
        lines = [f"{time.strftime('%H:%M:%S')} received {summary_line(fields)} from {peer}"]
        lines += resumed_lines(result)
        lines += delivered_lines(result, self.directory, is_verbose=self.verbose)
        return [*lines, path_line(fields)] if self.verbose else lines


def _refusal(result: TransferResult) -> RefusedError | None:
    refused = result.summary(DeliveryStatus.REFUSED)
    return RefusedError(f"refused {refused}") if refused else None


def _receive(
    names: Sequence[str],
    arguments: ReceiveArguments,
    access: AdmissionArguments,
    limits: LimitArguments,
    tracing: TraceArguments,
    own: TransportOptions,
) -> int:
    """The exit code.

    own: what not every command has
    """
    sender_command = "nettool send FILE" if len(names) > 1 else f"nettool {names[0]}-send FILE"
    doorkeeper = Doorkeeper(access, arguments.bind, sender_command, is_once=arguments.once, quiet=arguments.quiet)
    options = replace(
        own,
        offload=OffloadChoice.OFF if tracing.simple else own.offload,
        idle_timeout_s=idle_timeout_s(arguments.idle_timeout),
        admission=doorkeeper.admission,
        plaintext=access.plaintext,
    )
    receive_options = _receive_options(arguments, limits)
    raise_descriptor_limit()
    directory = _directory(arguments, doorkeeper.is_loopback)
    rehearse(doorkeeper.admission.method)
    transports = {name: transport(name) for name in names}
    runner = _SessionRunner(
        receive_options,
        directory,
        arguments.quiet,
        arguments.verbose,
        arguments.json,
        options.idle_timeout_s,
        to_seconds(parse_duration_ns(arguments.retry)) if arguments.once else 0.0,
        doorkeeper.reconnections,
    )
    with (
        prompt_interrupts(),
        progress_bars(arguments.quiet or tracing.trace_calls) as bars,
        tracing.running("recv" if len(names) > 1 else f"{names[0]}-recv") as explain,
    ):
        listeners = listen_on_one_port(transports, Address(arguments.bind, arguments.port), options)
        server = SessionServer(
            listeners,
            lambda name, channel: runner.run(server, bars, name, explain(channel)),
            ConcurrencyLimits(limits.max_sessions, limits.max_sessions_per_host),
            limit=1 if arguments.once else None,
            limit_refusal="the receiver accepts no more sessions; start it without --once",
        )
        try:
            bound = doorkeeper.check_bound([listener.address for listener in listeners.values()])
            if not arguments.quiet:
                print_status("\n".join(listening_lines(bound, names, is_loopback=doorkeeper.is_loopback)))
            doorkeeper.announce(bound, "send files to this machine")
            server.run()
        finally:
            server.close(SHUTDOWN_GRACE_S)
    return runner.exit_code


def _receive_options(arguments: ReceiveArguments, limits: LimitArguments) -> ReceiveOptions:
    """Raises UsageError."""
    return ReceiveOptions(
        overwrite=arguments.overwrite,
        durable=arguments.fsync,
        dotfiles=arguments.dotfiles,
        preserve_modes=arguments.preserve_modes,
        limits=SessionLimits(
            max_bytes=None if limits.max_bytes is None else parse_size(limits.max_bytes),
            max_files=limits.max_files,
            max_seconds=positive_duration_s("--max-time", limits.max_time),
            stall_seconds=positive_duration_s("--stall-timeout", limits.stall_timeout),
        ),
    )


def _make(directory: Path, is_durable: bool) -> None:
    """Make the directory unless it exists. Raises OSError."""
    if directory.is_dir():
        return
    directory.mkdir(exist_ok=True)
    if is_durable:
        parent = os.open(directory.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def _directory(arguments: ReceiveArguments, is_loopback: bool) -> Path:
    """The directory for received files, created if missing. Raises UsageError if files cannot be written there.

    It has no default for senders on other machines: the current directory is too easily the wrong one.
    """
    if arguments.directory is None and not is_loopback:
        raise UsageError(f"--bind {printable(arguments.bind)} lets other machines send: name a directory with --dir")
    directory = arguments.directory or Path()
    shown = printable(str(directory))
    try:
        _make(directory, is_durable=arguments.fsync)
    except OSError as error:
        raise UsageError(f"{shown}: {(error.strerror or '').lower()}; name a directory with --dir") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{shown}: permission denied; name a writable directory with --dir")
    remove_stale_in(directory)
    return directory
