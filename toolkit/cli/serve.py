"""`nettool serve`: the remote peer of `nettool bench remote`."""

import secrets
from contextlib import closing
from typing import Annotated

from toolkit.api.target import DEFAULT_PORT
from toolkit.channel import Address
from toolkit.cli.access import AdmissionArguments, Doorkeeper
from toolkit.cli.command import command, number, option
from toolkit.cli.interrupts import prompt_interrupts
from toolkit.cli.options import DEFAULT_BIND, Bind, Json, Port, Quiet
from toolkit.cli.output import print_json, print_status
from toolkit.cli.values import positive_duration_s, positive_size_bytes
from toolkit.comparison.server import MeasuringServer, ServedSession, ServerAccess, ServerLimits
from toolkit.security.key_file import KEY_BYTES
from toolkit.security.rehearsal import rehearse
from toolkit.transfer.open_files import raise_descriptor_limit
from toolkit.transports.registry import transport

_LIMITS = "Limits"


@command
@prompt_interrupts()
def serve(
    *,
    access: AdmissionArguments,
    bind: Bind = DEFAULT_BIND,
    port: Port = DEFAULT_PORT,
    max_bytes: Annotated[
        str, option("--max-bytes", metavar="SIZE", text="Largest transfer to accept, for example 1GiB.", panel=_LIMITS)
    ] = "16GiB",
    max_time: Annotated[
        str, option("--max-time", metavar="TIME", text="Longest transfer to accept, for example 5min.", panel=_LIMITS)
    ] = "10min",
    transfers: Annotated[
        int | None,
        number(
            "--transfers", low=1, text="Number of transfers after which to exit.", default="no limit", panel=_LIMITS
        ),
    ] = None,
    lifetime: Annotated[
        str, option("--for", metavar="TIME", text="Time after which to exit, for example 1h.", panel=_LIMITS)
    ] = "8h",
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Serve as the remote peer of 'nettool bench remote'.

    Receives and verifies transfers, or sends content that it makes up, and reads and writes no files. Size and duration
    of each transfer are limited, and the command exits by itself after the time that --for gives. Off loopback,
    'nettool bench remote' needs the code that this command prints, or the same key file; a code admits one campaign.

    \b
    Examples:
      nettool serve --bind 0.0.0.0
      nettool serve --bind 192.0.2.7 --key lab.key --for 1h --max-bytes 1GiB
    """
    limits = ServerLimits(
        bytes_per_transfer=positive_size_bytes("--max-bytes", max_bytes),
        seconds_per_transfer=positive_duration_s("--max-time", max_time),
        transfers=transfers,
        seconds=positive_duration_s("--for", lifetime),
    )
    raise_descriptor_limit()
    transports = {name: transport(name) for name in ("tcp", "udp")}

    def report_session(line: str, session: ServedSession) -> None:
        if not quiet:
            print_status(line)
        if json:
            print_json("served", session.to_json())

    key = secrets.token_bytes(KEY_BYTES)
    doorkeeper = Doorkeeper(access, bind, "nettool bench remote", quiet=quiet, session_key=key)
    rehearse(doorkeeper.rule.admission.method)
    rules = ServerAccess(doorkeeper.rule.admission, key, access.plaintext)
    with closing(MeasuringServer(transports, Address(bind, port), limits, report_session, rules)) as server:
        bound = doorkeeper.rule.check_bound(server.addresses)
        if not quiet:
            print_status(f"listening on {bound} (tcp, udp); received data is discarded")
        doorkeeper.announce(bound, "make this machine send and receive data")
        server.run()
    return 0
