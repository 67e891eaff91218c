"""`nettool ping`: how long a probe takes to an echo server and back, and what happens to it on the way."""

import sys
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Annotated

import typer

from toolkit.api.target import parse_target
from toolkit.channel import Address, TransportOptions
from toolkit.cli.command import command, flag, number, option
from toolkit.cli.interrupts import prompt_interrupts
from toolkit.cli.options import CONNECTION, Json, Quiet
from toolkit.cli.output import print_json, print_result, stderr_is_terminal
from toolkit.cli.values import positive_duration_s
from toolkit.conversation.probes import (
    MAX_PROBE_BYTES,
    MIN_PROBE_BYTES,
    DatagramEcho,
    EchoPath,
    SessionEcho,
    StreamEcho,
    measure,
    nothing_there,
)
from toolkit.conversation.round_trips import EchoRoundTrips, quantiles_ns
from toolkit.errors import UnreachableError, UsageError
from toolkit.security.admission import Method
from toolkit.security.rehearsal import rehearse
from toolkit.transports.registry import transport
from toolkit.units import format_fraction

_MIN_INTERVAL_S = 0.002
_COLUMNS = 80
_CLEAR_LINE = "\r\x1b[K"
_NAMES = {"tcp": "TCP", "udp": "reliable UDP", "raw-udp": "UDP"}


@command
def ping(
    host: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="Where 'nettool echo' runs.")],
    tcp: Annotated[bool, flag("--tcp", text="Probe over a TCP connection.", panel=CONNECTION)] = False,
    udp: Annotated[
        bool, flag("--udp", text="Probe over the reliable protocol on UDP (the port after PORT).", panel=CONNECTION)
    ] = False,
    raw_udp: Annotated[
        bool,
        flag("--raw-udp", text="Probe with plain datagrams: a lost one stays lost. The default.", panel=CONNECTION),
    ] = False,
    count: Annotated[int, number("--count", "-c", low=1, high=1_000_000, text="Number of probes.")] = 20,
    interval: Annotated[str, option("--interval", "-i", metavar="TIME", text="Time between two probes.")] = "200ms",
    wait: Annotated[str, option("--wait", metavar="TIME", text="Time to wait after the last probe.")] = "2s",
    size: Annotated[
        int, number("--size", low=MIN_PROBE_BYTES, high=MAX_PROBE_BYTES, metavar="BYTES", text="Bytes of each probe.")
    ] = 56,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the round trip to a machine that runs 'nettool echo'.

    Prints percentiles, the share of probes that were lost, how many overtook others, and the jitter (RFC 3550); after
    Ctrl-C, of the probes until then. TCP and the reliable protocol lose none: there, a lost packet is a late probe.
    With --udp, the round trip of the path comes first: without the time for which the two hosts held the packets.

    \b
    Examples:
      nettool ping 192.0.2.7
      nettool ping --udp --count 100 --interval 20ms 192.0.2.7
      nettool ping --tcp --json '[2001:db8::7]:9000'
    """
    chosen = [name for name, is_chosen in (("tcp", tcp), ("udp", udp), ("raw-udp", raw_udp)) if is_chosen]
    if len(chosen) > 1:
        raise UsageError("use one of --tcp, --udp and --raw-udp at a time")
    name = chosen[0] if chosen else "raw-udp"
    address = parse_target(host)
    interval_s, wait_s = positive_duration_s("--interval", interval), positive_duration_s("--wait", wait)
    if interval_s < _MIN_INTERVAL_S:
        raise UsageError("--interval must be 2ms or more: shorter ones are a load, which 'nettool bench' measures")
    with prompt_interrupts():
        path, trips = _path(name, address, wait_s, size), EchoRoundTrips()
        try:
            measure(path, trips, count, interval_s, wait_s, size, _live_line(count, quiet))
        finally:  # after Ctrl-C and a lost connection, too: what was measured is shown
            if not quiet and stderr_is_terminal():
                sys.stderr.write(_CLEAR_LINE)
            if trips.answered and json:
                print_json("ping", {"transport": name, "peer": str(address), "probe_bytes": size, **trips.fields()})
            elif trips.answered and not quiet:
                print_result("\n".join(summary(_NAMES[name], address, trips)))
            path.close()
    if not trips.answered:
        raise nothing_there(address, _NAMES[name])


def _path(name: str, address: Address, timeout_s: float, probe_bytes: int) -> EchoPath:
    """Connect to the echo server. Raises UnreachableError, UsageError."""
    if name == "tcp":
        return StreamEcho(address, timeout_s, probe_bytes)
    if name == "raw-udp":
        return DatagramEcho(address, timeout_s)
    if address.port == 65535:
        raise UsageError("--udp uses the port after PORT, and there is none after 65535")
    rehearse(Method.NONE)
    options = TransportOptions(connect_timeout_s=max(timeout_s, 1.0))
    try:
        return SessionEcho(transport("udp").connect(Address(address.host, address.port + 1), options))
    except UnreachableError as error:
        raise nothing_there(address, _NAMES[name]) from error


def _live_line(count: int, quiet: bool) -> Callable[[EchoRoundTrips], object]:
    """Return what shows the course of the measurement, on one line of a terminal."""
    if quiet or not stderr_is_terminal():
        return lambda _trips: None

    def show(trips: EchoRoundTrips) -> None:
        last_ms = next(reversed(trips.times_ns.values()), 0) / 1e6
        sys.stderr.write(
            f"{_CLEAR_LINE}{trips.answered} of {trips.sent} answered ({count} in all), last {last_ms:.2f} ms, "
            f"jitter {trips.jitter_ns / 1e6:.2f} ms"
        )
        sys.stderr.flush()

    return show


def _quantiles(times_ns: Sequence[int]) -> str:
    return ", ".join(f"{name} {time_ns / 1e6:.2f}" for name, time_ns in quantiles_ns(times_ns).items())


def summary(over: str, address: Address, trips: EchoRoundTrips) -> list[str]:
    """Return what was measured, in lines of at most 80 columns."""
    messages = " of messages" if trips.path_times_ns else ""
    lost = f"{format_fraction(trips.loss)} lost" if trips.loss else "none lost"
    lines = (
        f"{trips.answered} of {trips.sent} probes to {address} over {over} answered, {lost}",
        *([f"round trip of the path in ms: {_quantiles(trips.path_times_ns)}"] if trips.path_times_ns else []),
        f"round trip{messages} in ms: {_quantiles(list(trips.times_ns.values()))}",
        f"jitter {trips.jitter_ns / 1e6:.2f} ms, reordered {trips.reordered}, duplicates {trips.duplicates}",
    )
    return [part for line in lines for part in wrap(line, _COLUMNS, subsequent_indent="  ")] + trips.histogram()
