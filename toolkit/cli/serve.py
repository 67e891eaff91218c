"""`nettool serve`: the other end of `nettool bench remote`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from toolkit.channel import Address
from toolkit.cli.common import emit_json, say
from toolkit.cli.options import DEFAULT_BIND, RECV_PORT, Bind, Json, Port, Quiet, reported
from toolkit.compare.server import Limits, MeasuringEnd
from toolkit.errors import UsageError
from toolkit.transports.registry import transport
from toolkit.units import parse_duration_ns, parse_size, to_seconds


@reported
def serve(
    bind: Bind = DEFAULT_BIND,
    port: Port = RECV_PORT,
    max_bytes: Annotated[str, typer.Option("--max-bytes", metavar="SIZE", help="Of one transfer.")] = "16GiB",
    max_time: Annotated[str, typer.Option("--max-time", metavar="TIME", help="Of one transfer.")] = "10min",
    transfers: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after so many.")] = None,
    lifetime: Annotated[str, typer.Option("--for", metavar="TIME", help="End after this time.")] = "8h",
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Be the other end of `nettool bench remote`: take what comes, verify it, and keep nothing.

    Writes no files. Transfers are bounded in size and time, and it ends by itself after --for.

    \b
    nettool serve --bind 0.0.0.0
    nettool serve --bind 192.0.2.7 --port 9001 --for 1h --max-bytes 1GiB
    """
    limits = Limits(
        bytes_per_transfer=parse_size(max_bytes),
        seconds_per_transfer=to_seconds(parse_duration_ns(max_time)),
        transfers=transfers,
        seconds=to_seconds(parse_duration_ns(lifetime)),
    )
    if limits.seconds <= 0 or limits.seconds_per_transfer <= 0:
        raise UsageError("a time to serve is longer than nothing: write it like 1h")
    transports = {name: transport(name) for name in ("tcp", "udp")}

    def tell(line: str, fields: Mapping[str, Any]) -> None:
        if not quiet:
            say(line)
        if json:
            emit_json("served", fields)

    end = MeasuringEnd(transports, Address(bind, port), limits, tell)
    try:
        if not quiet:
            say(f"listening on {Address(bind or '0.0.0.0', end.port)} (tcp, udp), to measure; nothing is kept")
        end.run()
    finally:
        end.close()
    return 0
