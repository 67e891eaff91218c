"""`nettool recv`, `tcp-recv` and `udp-recv`: listen, run sessions, print the result of each."""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from toolkit.api.destinations import Into
from toolkit.api.events import Event, Listening, SessionBegan, SessionEnded, SessionProgress
from toolkit.api.receiving import Receiver
from toolkit.api.results import SessionResult
from toolkit.channel import TransportOptions
from toolkit.cli.access import AdmissionArguments, Doorkeeper
from toolkit.cli.call_tracing import TraceArguments
from toolkit.cli.command import command
from toolkit.cli.help import is_typed
from toolkit.cli.interrupts import prompt_interrupts
from toolkit.cli.option_names import with_options
from toolkit.cli.options import (
    CONNECTION,
    DEFAULT_MAX_STREAMS,
    DEFAULT_RECEIVER_RETRY,
    LimitArguments,
    MaxStreams,
    Offload,
    OffloadChoice,
    Qlog,
    ReceiveArguments,
)
from toolkit.cli.output import as_nettool_error, print_json, print_status, print_traceback_if_requested
from toolkit.cli.progress import ProgressBars, progress_bars
from toolkit.cli.reachability import listening_lines
from toolkit.cli.results import (
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
from toolkit.cli.values import idle_timeout_s, positive_duration_s, positive_size_bytes
from toolkit.errors import ExitCode, NettoolError, RefusedError, UsageError, printable
from toolkit.transfer import ProgressCallback, SessionLimits
from toolkit.transfer.attributes import parse_preserve
from toolkit.transfer.open_files import raise_descriptor_limit
from toolkit.transfer.receiver import ReceiveOptions
from toolkit.transfer.result import DeliveryStatus
from toolkit.transfer.session_server import ConcurrencyLimits
from toolkit.units import format_seconds, parse_duration_ns, to_seconds


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
      nettool recv --stdout --bind 0.0.0.0 | tar x
    """
    if transport is TransportChoice.TCP and offload is not OffloadChoice.AUTO and is_typed("offload"):
        raise UsageError("--offload is for UDP, which --transport tcp excludes: leave one of them out")
    if transport is TransportChoice.UDP and max_streams != DEFAULT_MAX_STREAMS and is_typed("max_streams"):
        raise UsageError("--max-streams is for TCP, which --transport udp excludes: leave one of them out")
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


class _ReceiverScreen:
    """Shows the events of a receiver: sessions as bars while they run, and the result of each.

    exit_code: that of the last session
    """

    def __init__(self, arguments: ReceiveArguments, into: Into, doorkeeper: Doorkeeper, bars: ProgressBars) -> None:
        self.exit_code: int = ExitCode.OK
        self._arguments, self._into, self._doorkeeper, self._bars = arguments, into, doorkeeper, bars
        self._shown: dict[int, ExitStack] = {}
        self._callbacks: dict[int, ProgressCallback | None] = {}
        self._has_hinted = False

    def __call__(self, event: Event) -> None:
        """Show an event. Raises TransferError if stdout is full."""
        match event:
            case Listening():
                self._show_address(event)
            case SessionBegan(session, transport_name, peer):
                self._shown[session] = ExitStack()
                bar = self._bars.bar("", f"from {peer} ({transport_name}) ", event.statistics)
                self._callbacks[session] = self._shown[session].enter_context(bar)
            case SessionProgress(session, progress):
                if (show := self._callbacks[session]) is not None:
                    show(progress)
            case SessionEnded():
                self._shown.pop(event.session).close()
                del self._callbacks[event.session]
                self._show_end(event)

    def _show_address(self, event: Listening) -> None:
        if not self._arguments.quiet:
            is_loopback = self._doorkeeper.rule.is_loopback
            lines = listening_lines(
                event.address,
                event.transports,
                is_loopback=is_loopback,
                needs_directory=not self._arguments.to_stdout and self._arguments.directory is None,
            )
            print_status("\n".join(lines))
        self._doorkeeper.announce(event.address, "send files to this machine")

    def _show_end(self, event: SessionEnded) -> None:
        result, error = event.result, _refusal(event.result)
        if event.error is not None:
            if not isinstance(event.error, NettoolError):
                print_traceback_if_requested(event.error)
            error = as_nettool_error(event.error)
        if not event.is_continued:
            self.exit_code = error.exit_code if error else ExitCode.OK
        self._print_outcome(result, error, is_continued=event.is_continued)
        if event.retry_s and not self._arguments.quiet:
            print_status(f"waiting {format_seconds(event.retry_s)} for the sender to reconnect")

    def _print_outcome(self, result: SessionResult, error: NettoolError | None, *, is_continued: bool) -> None:
        arguments, fields = self._arguments, result_fields(result)
        peer = f"{result.peer} ({result.transport})"
        if error:
            failures = failure_lines(result, is_verbose=arguments.verbose)
            print_status("\n".join([*failures, f"nettool: {peer}: {error}"]))
        if result.unfinished and not is_continued and not arguments.quiet:
            print_status("\n".join(unfinished_lines(result, is_verbose=arguments.verbose)))
        if not arguments.quiet and (result.file_count or not error):
            lines = [f"{time.strftime('%H:%M:%S')} received {summary_line(fields)} from {peer}"]
            lines += resumed_lines(result)
            lines += delivered_lines(result, is_verbose=arguments.verbose)
            print_status("\n".join([*lines, path_line(fields)] if arguments.verbose else lines))
        if not arguments.quiet and not self._has_hinted and (hint := socket_buffer_hint(fields)):
            self._has_hinted = True
            print_status(hint)
        if arguments.json:
            outcome: dict[str, Any] = {"error": with_options(str(error)), "exit_code": error.exit_code} if error else {}
            outcome |= {"verified": not error, "failed": failed_entries(result)}
            outcome["unfinished"] = [entry.to_json() for entry in result.unfinished]
            directory = str(self._into.resolve()) if isinstance(self._into, Path) else None
            print_json("receive", {**fields, "directory": directory, **outcome})


def _refusal(result: SessionResult) -> NettoolError | None:
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
    is_once = arguments.once or arguments.to_stdout
    if not is_once and arguments.retry is not None and is_typed("retry"):
        raise UsageError(
            "--retry is how long --once waits: add --once, or leave --retry out: a sender may always return"
        )
    doorkeeper = Doorkeeper(access, arguments.bind, sender_command, is_once=is_once, quiet=arguments.quiet)
    into = _standard_output(arguments) if arguments.to_stdout else _directory(arguments, doorkeeper.rule.is_loopback)
    raise_descriptor_limit()
    with (
        prompt_interrupts(),
        progress_bars(arguments.quiet or tracing.trace_calls, arguments.watch) as bars,
        tracing.running("recv" if len(names) > 1 else f"{names[0]}-recv") as explain,
    ):
        screen = _ReceiverScreen(arguments, into, doorkeeper, bars)
        receiver = Receiver(
            into,
            bind=arguments.bind,
            port=arguments.port,
            transports=names,
            rule=doorkeeper.rule,
            sessions=1 if is_once else None,
            options=_receive_options(arguments, limits),
            retry_s=to_seconds(parse_duration_ns(arguments.retry or DEFAULT_RECEIVER_RETRY)),
            connection=replace(
                own,
                offload=OffloadChoice.OFF if tracing.simple else own.offload,
                idle_timeout_s=idle_timeout_s(arguments.idle_timeout),
                plaintext=access.plaintext,
            ),
            concurrency=ConcurrencyLimits(limits.max_sessions, limits.max_sessions_per_host),
            on_event=screen,
            is_detailed=bars.are_shown,
            through=explain,
        )
        with receiver:
            receiver.wait()
    return screen.exit_code


def _receive_options(arguments: ReceiveArguments, limits: LimitArguments) -> ReceiveOptions:
    """Raises UsageError."""
    return ReceiveOptions(
        overwrite=arguments.overwrite,
        durable=arguments.fsync,
        dotfiles=arguments.dotfiles,
        preserve_modes=arguments.preserve_modes,
        preserve=parse_preserve(arguments.preserve),
        limits=SessionLimits(
            max_bytes=None if limits.max_bytes is None else positive_size_bytes("--max-bytes", limits.max_bytes),
            max_files=limits.max_files,
            max_seconds=positive_duration_s("--max-time", limits.max_time),
            stall_seconds=positive_duration_s("--stall-timeout", limits.stall_timeout),
        ),
    )


def _directory(arguments: ReceiveArguments, is_loopback: bool) -> Path:
    """The directory for received files. Raises UsageError if there is none.

    It has no default for senders on other machines: the current directory is too easily the wrong one.
    """
    if arguments.directory is None and not is_loopback:
        raise UsageError(f"--bind {printable(arguments.bind)} lets other machines send: name a directory with --dir")
    return arguments.directory or Path()


def _standard_output(arguments: ReceiveArguments) -> BinaryIO:
    """Where --stdout writes. Raises UsageError for options that make no sense with it."""
    excluded = {
        "directory": "--dir",
        "overwrite": "--overwrite",
        "preserve_modes": "--preserve-modes",
        "preserve": "--preserve",
        "fsync": "--fsync",
    }
    given = [option for name, option in excluded.items() if getattr(arguments, name) and is_typed(name)]
    if arguments.json:  # as a default, too: the object would stand behind the file
        given.append("--json")
    if given:
        raise UsageError(f"--stdout writes the file to standard output: leave {given[0]} out")
    if sys.stdout is None:
        raise UsageError("--stdout needs a standard output, which is closed: give it a file or a pipe to write to")
    return sys.stdout.buffer
