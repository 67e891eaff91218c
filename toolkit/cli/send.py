"""`nettool send`, `tcp-send` and `udp-send`: connect, run a session, print its result."""

import secrets
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from toolkit import transfer
from toolkit.channel import Address, TransportOptions
from toolkit.cli.access import CredentialArguments, Plaintext, check_receiver, with_credential
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
    idle_timeout_s,
    positive_duration_s,
)
from toolkit.cli.output import print_json, print_result, print_status, stderr_is_terminal
from toolkit.cli.progress import progress_bars
from toolkit.cli.reconnecting import with_reconnects
from toolkit.cli.results import (
    closing,
    delivered_lines,
    failure_lines,
    path_line,
    result_fields,
    resumed_lines,
    summary_line,
    undelivered_lines,
)
from toolkit.cli.resume_key import resume_key
from toolkit.cli.target import split_target
from toolkit.cli.tree_options import TreeArguments, check_tree_options, list_files
from toolkit.cli.udp_or_tcp import EITHER, connect
from toolkit.errors import ExitCode, NettoolError, PeerClosedError, UsageError
from toolkit.output_files import check_output
from toolkit.security.admission import Method
from toolkit.security.credentials import Credential, ReconnectionCredential
from toolkit.security.reconnections import RECONNECTION_KEY_BYTES
from toolkit.security.rehearsal import rehearse
from toolkit.transfer import Comparison, SendOptions, TransferResult
from toolkit.transfer.open_files import raise_descriptor_limit
from toolkit.transfer.result import DeliveryStatus
from toolkit.transfer.scan import STANDARD_INPUT, check_sources
from toolkit.units import parse_duration_ns, parse_rate, to_seconds

_Sent = tuple[TransferResult, dict[str, Any]]
"""What a session has sent, and the fields of its JSON object."""


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
    return _send(EITHER, arguments, tree, access, tracing, own)


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
    transport_options = _transport_options(arguments, tracing, own_options)
    command_name = "send" if transport_name == EITHER else f"{transport_name}-send"
    sources, address = split_target(arguments.items, f"nettool {command_name}")
    patience_s = 0.0 if STANDARD_INPUT in sources else to_seconds(parse_duration_ns(arguments.retry))
    send_options = _send_options(arguments, tree, address, comes_back=patience_s > 0)
    _check_files(sources, send_options, own_options.qlog)  # before asking the user
    tracing.check(sources)
    raise_descriptor_limit()
    if tree.dry_run:
        return list_files(sources, send_options, json=arguments.json, quiet=arguments.quiet)
    credential = access.credential_for(address)
    tell = (lambda _: None) if arguments.quiet else print_status

    def session(given: Credential, is_reconnected: bool, on_accepted: Callable[[], None]) -> _Sent:
        proof = _proof(given, send_options, is_reconnected, own_options.plaintext)
        options = _options_of_session(send_options, is_reconnected, on_accepted)
        with progress_bars(arguments.quiet or tracing.trace_calls) as bars:
            # The clock starts here because every module is loaded by now.
            cpu_s, started_s = time.process_time(), time.monotonic()
            used, channel = connect(transport_name, address, replace(transport_options, credential=proof), tell)
            channel, cancel = explain(channel), threading.Event()
            with asking_first(cancel.set), closing(channel), bars.bar(sources[0]) as progress:
                check_receiver(access, proof, channel.peer)
                result = transfer.send(channel, sources, options, progress, cancel)
                seconds, cpu_seconds = time.monotonic() - started_s, time.process_time() - cpu_s
                return result, result_fields(used, channel, result, seconds, cpu_seconds)

    def sessions(proof: Credential) -> _Sent:
        rehearse(proof.method)
        return with_reconnects(partial(session, proof), patience_s, partial(_pause, arguments.quiet))

    try:
        with prompt_interrupts(), tracing.running(command_name) as explain:  # one trace of all connections
            result, fields = with_credential(credential, sessions)
    except NettoolError as error:
        if isinstance(error.result, TransferResult):
            _print_failures(arguments, error.result)
        raise
    return _print_outcome(arguments, result, fields)


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


def _send_options(arguments: SendArguments, tree: TreeArguments, receiver: Address, *, comes_back: bool) -> SendOptions:
    """Raises UsageError."""
    check_tree_options(tree, arguments.recursive)
    return SendOptions(
        arguments.digest,
        arguments.recursive,
        arguments.name,
        update=tree.comparison,
        selection=tree.selection,
        resume_key=resume_key(receiver.host),
        reconnection_key=secrets.token_bytes(RECONNECTION_KEY_BYTES) if comes_back else None,
    )


def _options_of_session(options: SendOptions, is_reconnected: bool, on_accepted: Callable[[], None]) -> SendOptions:
    """The options of a session; one that goes on after a lost connection leaves out what has arrived."""
    options = replace(options, on_accepted=on_accepted)
    if not is_reconnected:
        return options
    return replace(options, is_reconnected=True, update=options.update or Comparison.TIME)


def _proof(given: Credential, options: SendOptions, is_reconnected: bool, plaintext: bool) -> Credential:
    """What to present: the first session uses up a code, so the reconnection key takes its place.

    In plaintext others could have read that key, and the receiver does not keep it.
    """
    key = options.reconnection_key
    if key is None or not is_reconnected or plaintext or given.method is not Method.CODE:
        return given
    return ReconnectionCredential(key)


def _pause(quiet: bool, lost: PeerClosedError, pause_s: float) -> None:
    """Wait before reconnecting, and say so."""
    if not quiet and not stderr_is_terminal():
        print_status(f"{lost}; reconnecting")
    with progress_bars(quiet) as bars, bars.bar("reconnecting"):
        time.sleep(pause_s)


def _print_failures(arguments: SendArguments, result: TransferResult) -> None:
    """Print what a session has left out that failed."""
    if not arguments.quiet:
        _print_skipped(result, arguments.verbose)
    for line in failure_lines(result, is_verbose=arguments.verbose):
        print_status(line)


def _print_outcome(arguments: SendArguments, result: TransferResult, fields: dict[str, Any]) -> int:
    """Print the result of a session that has sent everything; the exit code."""
    if arguments.json:
        skipped = result.with_status(DeliveryStatus.SKIPPED)
        print_json("send", {**fields, "skipped": [entry.name for entry in skipped]})
    elif not arguments.quiet:
        lines = [f"sent {summary_line(fields)}, over {fields['transport'].upper()}", *resumed_lines(result)]
        lines += delivered_lines(result, is_verbose=arguments.verbose)
        print_result("\n".join([*lines, path_line(fields)] if arguments.verbose else lines))
    if not arguments.quiet:
        _print_skipped(result, arguments.verbose)
    return ExitCode.INCOMPLETE if result.has(DeliveryStatus.SKIPPED) else ExitCode.OK


def _check_files(sources: Sequence[str], options: SendOptions, qlog: str | None) -> None:
    """Raises UsageError for sources that cannot be sent, and for a log that would replace a file."""
    if options.stream_name != STREAM_NAME and STANDARD_INPUT not in sources:
        raise UsageError("--name names standard input, which is not sent: add - to the files, or leave --name out")
    check_sources(sources, options.recursive, options.stream_name)
    if STANDARD_INPUT in sources and sys.stdin is None:
        raise UsageError("- is standard input, which is closed: give it a file or a pipe to read from")
    if qlog is not None:
        from toolkit.transports.udp.qlog_files import MARK, OPTION  # imports numpy, which tcp-send does not need

        check_output(Path(qlog), OPTION, MARK, inputs=sources)


def _print_skipped(result: TransferResult, is_verbose: bool) -> None:
    for line in undelivered_lines(result, (DeliveryStatus.SKIPPED,), is_verbose=is_verbose):
        print_status(line)
