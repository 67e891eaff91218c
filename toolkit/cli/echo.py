"""`nettool echo`: a server that sends everything back, for `nettool ping` and for learning."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from toolkit.api.admission import is_loopback
from toolkit.api.target import DEFAULT_PORT
from toolkit.channel import Address, Channel, Listener, TransportOptions
from toolkit.cli.call_tracing import TraceArguments
from toolkit.cli.command import command
from toolkit.cli.interrupts import prompt_interrupts
from toolkit.cli.options import DEFAULT_BIND, Bind, Json, OffloadChoice, Port, Quiet
from toolkit.cli.output import print_json, print_status, print_warning
from toolkit.conversation.echo import EchoServer, echo_messages
from toolkit.errors import NettoolError, UsageError
from toolkit.security.admission import Method
from toolkit.security.rehearsal import rehearse
from toolkit.transfer.session import closing
from toolkit.transfer.session_server import SessionServer
from toolkit.transports.registry import transport

_MAX_PORT = 65535
_PORT_ATTEMPTS = 20  # for port 0: the port after the one that the system chooses may be taken
_GRACE_S = 2.0


@command
def echo(
    tracing: TraceArguments,
    bind: Bind = DEFAULT_BIND,
    port: Port = DEFAULT_PORT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Send back whatever arrives, over TCP and UDP, until Ctrl-C.

    On its port, this is the echo protocol (RFC 862): any program can use it, and nothing is encrypted. On the port
    after it, the reliable protocol on UDP does the same. What arrives is neither shown nor kept.

    \b
    Examples:
      nettool echo
      nettool echo --trace-calls --simple
      nettool echo --bind 0.0.0.0 --port 7777
    """
    if port == _MAX_PORT:
        raise UsageError(f"--port {_MAX_PORT} has no port after it: choose a lower one")
    rehearse(Method.NONE)
    options = TransportOptions(offload=OffloadChoice.OFF if tracing.simple else OffloadChoice.AUTO)
    with prompt_interrupts(), tracing.running("echo") as explain, _listening(Address(bind, port), options) as listening:
        plain, listener = listening
        server = SessionServer({"udp": listener}, lambda _name, channel: _echo(explain(channel), server))
        try:
            bound = Address(bind or "0.0.0.0", plain.address.port)
            if json:
                print_json("echo", {"address": bound.host, "port": bound.port, "reliable_port": bound.port + 1})
            if not quiet:
                print_status(f"listening on {bound} (tcp, udp) and on port {bound.port + 1} (reliable udp)")
            if not is_loopback(bind):
                print_warning(f"warning: anyone who can reach port {bound.port} can have this machine send data back")
            server.run()
        finally:
            server.close(_GRACE_S)


def _echo(channel: Channel, server: SessionServer) -> None:
    try:
        with closing(channel):
            echo_messages(channel, server.closing.is_set)
    except NettoolError:  # this client is lost; others may come
        pass


@contextmanager
def _listening(address: Address, options: TransportOptions) -> Iterator[tuple[EchoServer, Listener]]:
    """Run the plain echo in a thread, and yield it and the listener on the port after it. Raises UnreachableError."""
    for attempt in range(_PORT_ATTEMPTS):
        plain = EchoServer(address)
        try:
            listener = transport("udp").listen(Address(address.host, plain.address.port + 1), options)
            break
        except NettoolError:
            plain.close()
            if address.port or attempt == _PORT_ATTEMPTS - 1:
                raise
        except BaseException:
            plain.close()
            raise
    ending = threading.Event()
    thread = threading.Thread(target=plain.run, args=(ending.is_set,), daemon=True)
    thread.start()
    try:
        yield plain, listener
    finally:
        listener.close()
        ending.set()
        thread.join()
        plain.close()
