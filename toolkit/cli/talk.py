"""`nettool talk`: lines of text between two people, or two programs."""

import re
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing as closed_at_end
from dataclasses import replace
from typing import Annotated

import typer

from toolkit.api.target import DEFAULT_PORT, parse_target
from toolkit.channel import Address, Channel, PeerProgram, TransportOptions
from toolkit.cli.access import AdmissionArguments, CredentialArguments, Doorkeeper, check_receiver, with_credential
from toolkit.cli.call_tracing import Explain, TraceArguments
from toolkit.cli.command import command, flag
from toolkit.cli.interrupts import prompt_interrupts
from toolkit.cli.line_printer import printing_lines
from toolkit.cli.options import CONNECTION, DEFAULT_BIND, Bind, Json, OffloadChoice, Port, Quiet
from toolkit.cli.output import has_reader_gone, print_json, print_result, print_status
from toolkit.cli.reachability import listening_lines
from toolkit.conversation.lines import LineQueue, read_lines
from toolkit.conversation.talk import Conversation, describe_talk
from toolkit.errors import UsageError, printable
from toolkit.security.credentials import Credential
from toolkit.security.rehearsal import rehearse
from toolkit.transfer.session import closing
from toolkit.transfer.session_server import SessionServer, listen_on_one_port
from toolkit.transports.registry import transport

_NOT_HARMLESS = re.compile("[^\t\u00a0\u3000\u200c\u200d]+")
"""All but five characters that Python calls not printable: tab, two spaces, and the joiners of Persian and emoji."""
_MOST_ESCAPED = len("\\U00000000")  # a character
_GRACE_S = 5.0
_LISTENER = PeerProgram("nettool talk --listen", "--bind 0.0.0.0")

Tcp = Annotated[bool, flag("--tcp", text="Talk over TCP; the side that connects does so by default.", panel=CONNECTION)]
Udp = Annotated[bool, flag("--udp", text="Talk over the reliable protocol on UDP.", panel=CONNECTION)]


@command
def talk(
    access: CredentialArguments,
    tracing: TraceArguments,
    host: Annotated[
        str | None, typer.Argument(metavar="HOST[:PORT]", help="Who listens; leave it out with --listen.")
    ] = None,
    listen: Annotated[bool, flag("--listen", "-l", text="Wait for somebody to connect.", panel=CONNECTION)] = False,
    tcp: Tcp = False,
    udp: Udp = False,
    bind: Bind = DEFAULT_BIND,
    port: Port = DEFAULT_PORT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Talk: each line that you type appears at the other side, and theirs here.

    One side listens, over TCP and UDP unless one is named, and the other connects. Off loopback, a code admits the
    other side, as for files. The end of the input (Ctrl-D) ends your half; the conversation ends when both have ended.
    It works in a pipe, too.

    \b
    Examples:
      nettool talk --listen
      nettool talk 127.0.0.1
      nettool talk --udp --trace-calls --simple 127.0.0.1
      seq 10000 | nettool talk --udp 192.0.2.7
    """
    if listen == (host is not None):
        raise UsageError("either connect, with 'nettool talk HOST', or wait, with 'nettool talk --listen'")
    if sys.stdin is None:
        raise UsageError("standard input is closed: give it a file or a pipe to read lines from")
    if host is not None and (bind, port) != (DEFAULT_BIND, DEFAULT_PORT):
        raise UsageError("--bind and --port say where --listen listens: write the other side's port as HOST:PORT")
    names = [name for name, is_chosen in (("tcp", tcp), ("udp", udp)) if is_chosen]
    offload = OffloadChoice.OFF if tracing.simple else OffloadChoice.AUTO
    side = _Side(json, quiet, tracing)
    if host is None:
        admission = AdmissionArguments(key=access.key, is_open=access.is_open)
        if access.code is not None:
            raise UsageError("--listen makes a code by itself where one is needed: leave --code out")
        _listen(side, names or ["tcp", "udp"], admission, Address(bind, port), TransportOptions(offload=offload))
        return
    if len(names) > 1:
        raise UsageError("use either --tcp or --udp: a connection has one transport")
    options = TransportOptions(offload=offload, peer_program=_LISTENER)
    _connect(side, names[0] if names else "tcp", access, parse_target(host), options)


def _connect(
    side: "_Side", name: str, access: CredentialArguments, address: Address, options: TransportOptions
) -> None:
    chosen = transport(name)

    def session(proof: Credential) -> None:
        rehearse(proof.method)
        channel = explain(chosen.connect(address, replace(options, credential=proof)))
        with closing(channel):
            check_receiver(access, proof, channel.peer)
            side.talk(name, channel, is_client=True)

    credential = access.credential_for(address)
    with prompt_interrupts(), side.tracing.running("talk", describe_talk) as explain:
        with_credential(credential, session)


def _listen(
    side: "_Side", names: Sequence[str], access: AdmissionArguments, address: Address, options: TransportOptions
) -> None:
    command_there = "nettool talk" if "tcp" in names else "nettool talk --udp"
    doorkeeper = Doorkeeper(access, address.host, command_there, is_once=True, quiet=side.quiet)
    rehearse(doorkeeper.rule.admission.method)
    transports = {name: transport(name) for name in names}
    with prompt_interrupts(), side.tracing.running("talk", describe_talk) as explain:
        listeners = listen_on_one_port(transports, address, replace(options, admission=doorkeeper.rule.admission))
        server = SessionServer(
            listeners,
            lambda name, channel: _accepted(side, name, channel, explain, server.closing.is_set),
            limit=1,
            limit_refusal="somebody else is talking here already; try again later",
        )
        try:
            bound = doorkeeper.rule.check_bound([listener.address for listener in listeners.values()])
            if not side.quiet:
                is_loopback = doorkeeper.rule.is_loopback
                print_status("\n".join(listening_lines(bound, names, is_loopback=is_loopback, needs_directory=False)))
            doorkeeper.announce(bound, "talk to you")
            server.run()
        finally:
            server.close(_GRACE_S)


def _accepted(side: "_Side", name: str, channel: Channel, explain: Explain, is_cancelled: Callable[[], bool]) -> None:
    explained = explain(channel)
    with closing(explained):
        side.talk(name, explained, is_client=False, is_cancelled=is_cancelled)


class _Side:
    """This side's standard input and output, and what its user wants to see."""

    def __init__(self, json: bool, quiet: bool, tracing: TraceArguments) -> None:
        self.json, self.quiet, self.tracing = json, quiet, tracing

    def talk(
        self, name: str, channel: Channel, is_client: bool, is_cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        """Talk over a channel until both sides have ended, or nobody hears the other one here. Raises NettoolError."""
        if not self.quiet:
            print_status(f"connected to {channel.peer} ({name}); end with Ctrl-D")
        with (
            closed_at_end(LineQueue()) as outgoing,
            printing_lines(self._show, is_cancelled, _forget_stdout) as show,
        ):
            # A daemon: it may wait for its user for ever.
            threading.Thread(target=read_lines, args=(sys.stdin.fileno(), outgoing), daemon=True).start()
            conversation = Conversation(
                channel,
                is_client,
                outgoing,
                show,
                on_peer_end=lambda: self._tell_user("the other side has said everything; Ctrl-D ends your half"),
                is_cancelled=lambda: is_cancelled() or has_reader_gone(),
                on_own_end=lambda: self._tell_user("your half has ended; the other side may go on; Ctrl-C leaves"),
            )
            conversation.run()
        counts = conversation.counts
        if not conversation.is_over:
            if not self.quiet and has_reader_gone():
                print_status("nobody reads standard output any more: this ends the conversation")
        elif self.json:
            outcome = {"transport": name, "peer": str(channel.peer), "sent": counts.sent, "received": counts.received}
            print_json("talk", outcome)
        elif not self.quiet:
            print_status(f"the conversation is over: lines sent {counts.sent:,}, received {counts.received:,}")

    def _tell_user(self, text: str) -> None:
        if not self.quiet and sys.stdin.isatty():
            print_status(text)

    def _show(self, line: str) -> None:
        """Print a line of the peer's. It must not change the terminal: all that is no text is escaped."""
        if self.json:
            print_json("line", {"text": line})
        else:
            mark = "< " if sys.stdout is not None and sys.stdout.isatty() else ""  # beside what the user types
            print_result(
                mark + _NOT_HARMLESS.sub(lambda found: printable(found[0], _MOST_ESCAPED * len(found[0])), line)
            )


def _forget_stdout() -> None:
    """Do not wait at the exit for a reader that takes nothing."""
    sys.stdout = None
