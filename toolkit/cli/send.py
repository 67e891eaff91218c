"""`nettool send`, `tcp-send` and `udp-send`: send, and print what happens and the result."""

import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from toolkit.api.connecting import AUTO
from toolkit.api.credentials import UnprovenReceiverError
from toolkit.api.events import Event, Reconnecting, SessionBegan, SessionProgress, UdpBlocked
from toolkit.api.results import SessionResult
from toolkit.api.sending import SendRequest
from toolkit.channel import Address, TransportOptions
from toolkit.cli.access import NO_CREDENTIAL, CredentialArguments, Plaintext, warn_of, with_credential
from toolkit.cli.call_tracing import TraceArguments
from toolkit.cli.command import command
from toolkit.cli.interrupts import asking_first, prompt_interrupts
from toolkit.cli.options import (
    STREAM_NAME,
    ForgetPath,
    Offload,
    OffloadChoice,
    Qlog,
    SendArguments,
    Streams,
)
from toolkit.cli.output import print_json, print_sentences, print_status, stderr_is_terminal
from toolkit.cli.progress import ProgressBars, progress_bars
from toolkit.cli.results import (
    delivered_lines,
    failure_lines,
    path_line,
    result_fields,
    resumed_lines,
    summary_line,
    undelivered_lines,
)
from toolkit.cli.target import split_target
from toolkit.cli.tree_options import TreeArguments, check_tree_options, list_files
from toolkit.cli.values import idle_timeout_s, positive_duration_s
from toolkit.cli.watch import Statistics
from toolkit.errors import ExitCode, NettoolError, PeerClosedError, UsageError, printable
from toolkit.security.credentials import Credential
from toolkit.transfer import ProgressCallback, SendOptions
from toolkit.transfer.open_files import raise_descriptor_limit
from toolkit.transfer.result import DeliveryStatus
from toolkit.transfer.scan import STANDARD_INPUT
from toolkit.units import parse_duration_ns, parse_rate, to_seconds


@command
def send(
    arguments: SendArguments,
    tree: TreeArguments,
    access: CredentialArguments,
    tracing: TraceArguments,
    plaintext: Plaintext = False,
    offload: Offload = OffloadChoice.AUTO,
    forget_path: ForgetPath = False,
) -> int:
    """Send files over UDP, or over TCP where UDP does not get through.

    The receiver runs 'nettool recv'. The command exits with code 0 once the receiver has verified every file and stored
    it under its name. Everything is encrypted. Off loopback, this command asks for the code that the receiver shows.

    \b
    Examples:
      nettool send film.mkv notes.txt 192.0.2.7
      nettool send -r photos/ [2001:db8::7]:9001
      nettool send -r --update --exclude '*.tmp' photos/ host.example
      tar c src | nettool send --name src.tar - host.example
    """
    own = TransportOptions(plaintext=plaintext, offload=offload, remembers_paths=not forget_path)
    return _send(AUTO, arguments, tree, access, tracing, own)


@command
def tcp_send(
    arguments: SendArguments,
    tree: TreeArguments,
    access: CredentialArguments,
    tracing: TraceArguments,
    plaintext: Plaintext = False,
    streams: Streams = 1,
) -> int:
    """Send files over TCP to a machine that runs 'nettool recv'.

    The command exits with code 0 once the receiver has verified every file and stored it under its name. Everything is
    encrypted. Off loopback, this command asks for the code that the receiver shows.

    \b
    Examples:
      nettool tcp-send film.mkv notes.txt 192.0.2.7
      nettool tcp-send -r photos/ [2001:db8::7]:9001
      nettool tcp-send -r --update --exclude '*.tmp' photos/ host.example
      nettool tcp-send --cc bbr --streams 4 disk.img host.example
      tar c src | nettool tcp-send --name src.tar - host.example
      nettool tcp-send --trace-calls --simple notes.txt 127.0.0.1
    """
    return _send("tcp", arguments, tree, access, tracing, TransportOptions(plaintext=plaintext, streams=streams))


@command
def udp_send(
    arguments: SendArguments,
    tree: TreeArguments,
    access: CredentialArguments,
    tracing: TraceArguments,
    plaintext: Plaintext = False,
    offload: Offload = OffloadChoice.AUTO,
    qlog: Qlog = None,
    forget_path: ForgetPath = False,
) -> int:
    """Send files over nettool's reliable protocol on UDP.

    The receiver runs 'nettool recv'. The command exits with code 0 once the receiver has verified every file and stored
    it under its name. Everything is encrypted. Off loopback, this command asks for the code that the receiver shows.

    \b
    Examples:
      nettool udp-send film.mkv 192.0.2.7
      nettool udp-send -r photos/ [2001:db8::7]:9001
      nettool udp-send -r --dry-run --exclude build/ project host.example
      nettool udp-send --cc rate --rate 80Mbit disk.img host.example
      tar c src | nettool udp-send --name src.tar - host.example
      nettool udp-send --trace-calls --simple notes.txt 127.0.0.1
    """
    own = TransportOptions(plaintext=plaintext, offload=offload, qlog=qlog, remembers_paths=not forget_path)
    return _send("udp", arguments, tree, access, tracing, own)


def _send(
    transport_name: str,
    arguments: SendArguments,
    tree: TreeArguments,
    access: CredentialArguments,
    tracing: TraceArguments,
    own_options: TransportOptions,
) -> int:
    """The exit code.

    own_options: what not every command has
    """
    command_name = "send" if transport_name == AUTO else f"{transport_name}-send"
    sources, address = split_target(arguments.items, f"nettool {command_name}")
    request = SendRequest(
        sources=sources,
        receiver=address,
        transport=transport_name,
        options=_send_options(arguments, tree),
        connection=_transport_options(arguments, tracing, own_options),
        is_open=access.is_open,
        retry_s=to_seconds(parse_duration_ns(arguments.retry)),
    )
    _check_files(request)  # before asking the user
    tracing.check(sources)
    raise_descriptor_limit()
    if tree.dry_run:
        return list_files(sources, request.options, json=arguments.json, quiet=arguments.quiet)
    credential = access.credential_for(address)

    def run(proof: Credential) -> SessionResult:
        with (
            progress_bars(arguments.quiet or tracing.trace_calls, arguments.watch) as bars,
            _SenderScreen(bars, request, arguments.quiet) as screen,
        ):
            shown = replace(request, on_event=screen, is_detailed=bars.are_shown, through=explain, cancel=screen.cancel)
            with asking_first(screen.ask_to_end):
                return shown.run(proof)

    try:
        with prompt_interrupts(), tracing.running(command_name) as explain:  # one trace of all connections
            result = with_credential(credential, run)
    except UnprovenReceiverError:
        raise UsageError(NO_CREDENTIAL) from None
    except NettoolError as error:
        if isinstance(error.result, SessionResult):
            _print_failures(arguments, error.result)
        raise
    return _print_outcome(arguments, result)


class _SenderScreen:
    """Shows the events of a transfer, the last of its sessions as a progress bar while its block runs.

    cancel: ends the session
    """

    def __init__(self, bars: ProgressBars, request: SendRequest, quiet: bool) -> None:
        self._bars, self._first_name, self._quiet = bars, str(request.sources[0]), quiet
        self._interrupted = _what_goes_on(request)
        self._shown = ExitStack()
        self._is_connected = False
        self._loss: PeerClosedError | None = None
        self._has_told_loss = False
        self.cancel = threading.Event()
        self._on_progress: ProgressCallback | None = None

    def __enter__(self) -> "_SenderScreen":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._shown.close()
        if kind is KeyboardInterrupt and self._is_connected and not self._quiet:
            print_status(self._interrupted)

    def ask_to_end(self) -> bool:
        """Let the session end, if there is one that can tell its peer; return whether there is."""
        self.cancel.set()
        return self._is_connected

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case UdpBlocked(receiver) if not self._quiet:
                print_status(f"UDP does not reach {printable(str(receiver))}: sending over TCP")
            case SessionBegan():
                self._is_connected = True
                if not event.is_proven:
                    warn_of(event.peer)
                self._tell_return(event.peer)
                self._show(self._first_name, event.statistics)
            case SessionProgress(progress=progress) if self._on_progress is not None:
                self._on_progress(progress)
            case Reconnecting(error):
                self._tell_loss(error)
                self._is_connected = False
                self._show("reconnecting")

    def _tell_loss(self, error: PeerClosedError) -> None:
        """Print a loss once: further attempts to reconnect come with the same error, or had no session to lose."""
        if error is not self._loss and self._is_connected and not self._quiet and not stderr_is_terminal():
            print_status(f"{error}; reconnecting")
            self._has_told_loss = True
        self._loss = error

    def _tell_return(self, peer: Address) -> None:
        if self._has_told_loss:
            print_status(f"connected to {peer} again")
            self._has_told_loss = False

    def _show(self, name: str, statistics: Statistics | None = None) -> None:
        self._shown.close()
        self._on_progress = self._shown.enter_context(self._bars.bar(name, statistics=statistics))


def _what_goes_on(request: SendRequest) -> str:
    """Return what a user reads after Ctrl-C."""
    if STANDARD_INPUT in request.sources:
        return "interrupted"
    is_one_file = len(request.sources) == 1 and not request.options.recursive
    if is_one_file or request.options.update:
        return "interrupted: the same command goes on from here"
    return "interrupted: the same command with --update goes on from here"


def _transport_options(arguments: SendArguments, tracing: TraceArguments, own: TransportOptions) -> TransportOptions:
    """Add what all commands have in common. Raises UsageError."""
    return replace(
        own,
        offload=OffloadChoice.OFF if tracing.simple else own.offload,
        congestion_control=arguments.cc,
        rate_bps=parse_rate(arguments.rate) if arguments.rate else None,
        connect_timeout_s=positive_duration_s("--connect-timeout", arguments.connect_timeout),
        idle_timeout_s=idle_timeout_s(arguments.idle_timeout),
    )


def _send_options(arguments: SendArguments, tree: TreeArguments) -> SendOptions:
    """Raises UsageError."""
    check_tree_options(tree, arguments.recursive)
    return SendOptions(
        arguments.digest, arguments.recursive, arguments.name, update=tree.comparison, selection=tree.selection
    )


def _print_failures(arguments: SendArguments, result: SessionResult) -> None:
    """Print what a session that failed has left out, and what it has sent all the same."""
    if not arguments.quiet:
        _print_skipped(result, arguments.verbose)
    for line in failure_lines(result, is_verbose=arguments.verbose):
        print_status(line)
    if result.file_count and not (arguments.json or arguments.quiet):
        print_status(_sent_line(result_fields(result)))


def _sent_line(fields: Mapping[str, Any]) -> str:
    return f"sent {summary_line(fields)}, over {fields['transport'].upper()}"


def _print_outcome(arguments: SendArguments, result: SessionResult) -> int:
    """Print the result of a session that has sent everything; the exit code."""
    fields = result_fields(result)
    if arguments.json:
        skipped = result.with_status(DeliveryStatus.SKIPPED)
        print_json("send", {**fields, "skipped": [entry.name for entry in skipped]})
    elif not arguments.quiet:
        lines = [_sent_line(fields), *resumed_lines(result)]
        lines += delivered_lines(result, is_verbose=arguments.verbose)
        print_sentences("\n".join([*lines, path_line(fields)] if arguments.verbose else lines))
    if not arguments.quiet:
        _print_skipped(result, arguments.verbose)
    return ExitCode.INCOMPLETE if result.has(DeliveryStatus.SKIPPED) else ExitCode.OK


def _check_files(request: SendRequest) -> None:
    """Raises UsageError for sources that cannot be sent, and for a log that would replace a file."""
    reads_stdin = STANDARD_INPUT in request.sources
    if request.options.stream_name != STREAM_NAME and not reads_stdin:
        raise UsageError("--name names standard input, which is not sent: add - to the files, or leave --name out")
    request.check()
    if reads_stdin and sys.stdin is None:
        raise UsageError("- is standard input, which is closed: give it a file or a pipe to read from")


def _print_skipped(result: SessionResult, is_verbose: bool) -> None:
    for line in undelivered_lines(result, (DeliveryStatus.SKIPPED,), is_verbose=is_verbose):
        print_status(line)
