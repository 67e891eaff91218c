"""`nettool link`: run any program behind an emulated link, list the named links, or measure a link."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from toolkit.cli.command import command, flag, option
from toolkit.cli.link_options import LinkArguments
from toolkit.cli.options import Json, Quiet
from toolkit.cli.output import print_json, print_result, print_status
from toolkit.emulator.check import LinkCheck
from toolkit.emulator.check import check as measure
from toolkit.emulator.interfaces import DEFAULT_NETWORK
from toolkit.emulator.link import Link, require_program
from toolkit.emulator.run import run_behind
from toolkit.errors import ExitCode, UsageError, printable_path
from toolkit.netmodel.mahimahi import parse_trace
from toolkit.netmodel.notation import LinkText, link_spec
from toolkit.netmodel.profiles import PROFILES, profile
from toolkit.netmodel.spec import LinkSpec, describe_path


@dataclass(frozen=True, slots=True)
class EmulationArguments:
    """What runs at the two ends, and on which emulator."""

    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND...]", help="Program to run at the near end, with its arguments."),
    ] = None
    far: Annotated[
        str | None,
        option("--far", metavar="COMMAND", text="Program to run at the far end, for example a server; starts first."),
    ] = None
    emulator: Annotated[
        str | None,
        option(
            "--emulator",
            metavar="NAME",
            text="Emulator: tun (nettool's own), netem (the kernel's), or switch (queues of the kernel, for a LAN with "
            "a rate). Default: tun, or switch where there is no TUN device.",
        ),
    ] = None
    addresses: Annotated[
        str, option("--addresses", metavar="NETWORK", text="IPv4 network of the two ends, if the default is in use.")
    ] = DEFAULT_NETWORK


@command
def link(
    ends: EmulationArguments,
    list_links: Annotated[bool, flag("--list", text="Print the named links and their sources, then exit.")] = False,
    check: Annotated[bool, flag("--check", text="Measure the link, print whether it is as specified, exit.")] = False,
    *,
    path: LinkArguments,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Run any program behind an emulated link.

    The program reaches the far end under the host name 'far' ('far6' for IPv6). Rate, delay and queue apply in both
    directions; loss, jitter and other impairments apply from near to far unless --both-ways is given. The exit code is
    that of COMMAND. A summary of every packet goes to stderr; with --json it goes to stdout, and COMMAND prints to
    stderr.

    \b
    Examples:
      nettool link --rtt 40ms --loss 1% -- ping -c 10 far
      nettool link --rate 100Mbit --far 'iperf3 -s -1' -- iperf3 -c far
      nettool link --link lte \\
          --far 'nettool recv --dir incoming --bind 0.0.0.0 --open --once' \\
          -- nettool udp-send --open film.mkv far
      nettool link --rate 50Mbit --at '5s blackout 300ms' -- ping -c 10 far
      nettool link --check --rate 1Gbit --rtt 10ms
    """
    if list_links:
        _print_links(json)
        return ExitCode.OK
    base = profile(path.link).spec if path.link is not None else None
    emulated = Link(link_spec(_link_text(path), base), emulator=ends.emulator, network=ends.addresses)
    if check:
        if ends.command or ends.far is not None:
            raise UsageError("--check runs no programs: leave --check or the programs out")
        return _check(emulated, json)
    if not ends.command:
        raise UsageError("no command given: name a program to run, for example: nettool link --rtt 40ms -- ping far")
    require_program(ends.command)
    with emulated:
        _print_notice(emulated)
        code, accounting = run_behind(emulated, ends.command, ends.far, sys.stderr if json else None)
    if json:
        print_json("link", {"command": ends.command, "exit_code": code, **accounting.to_json()})
    elif not quiet:
        for line in accounting.summary():
            print_status(f"link: {line}")
    return code


def _link_text(path: LinkArguments) -> LinkText:
    # `impairments` gives queue, burst, jitter and reorder, which `link` shares with `bench` and `sim`.
    return LinkText(
        rate=path.rate,
        rate_back=path.rate_back,
        rtt=path.rtt,
        delay_back=path.delay_back,
        jitter_reorders=path.jitter_reorders,
        loss=path.loss,
        duplicate=path.duplicate,
        corrupt=path.corrupt,
        trace=_read_trace(path.trace),
        trace_back=_read_trace(path.trace_back),
        changes=tuple(path.at or ()),
        both_ways=path.both_ways,
        mtu=path.mtu,
        seed=path.seed,
        **path.impairments(),
    )


def _print_notice(emulated: Link) -> None:
    if emulated.notice is not None:
        print_status(f"link: {emulated.notice}")


def _check(emulated: Link, json: bool) -> int:
    with emulated:
        _print_notice(emulated)
        result = measure(emulated)
    if json:
        findings = [finding.to_json() for finding in result.findings]
        found = {"is_met": result.is_met, "verdict": result.verdict, "not_judged": result.not_judged}
        print_json("link-check", {**found, "findings": findings})
    else:
        _print_check(result)
    return ExitCode.FAILED if result.is_met is False else ExitCode.OK


def _print_check(result: LinkCheck) -> None:
    shown = {True: "yes", False: "NO", None: "-"}
    rows = [[finding.metric, finding.requested, finding.measured, shown[finding.is_met]] for finding in result.findings]
    print_result(tabulate(rows, ["", "specified", "measured", "met"], disable_numparse=True))
    print_result(f"\n{result.verdict}")


def _print_links(json: bool) -> None:
    if json:
        links = [
            {"name": p.name, "stands_for": p.stands_for, "link": _descriptions(p.spec), "sources": p.sources}
            for p in PROFILES.values()
        ]
        print_json("links", {"links": links})
        return
    for known in PROFILES.values():
        print_result(f"{known.name}: {known.stands_for}")
        for direction, description in _descriptions(known.spec).items():
            print_result(f"    {direction}: {description}")
        for source in known.sources:
            print_result(f"    [{source}]")


def _descriptions(spec: LinkSpec) -> dict[str, str]:
    """Return what the link does, by direction."""
    if spec.is_bare:
        return {"both ways": "a veth pair"}
    forward, backward = (describe_path(path, spec.rtt_ns) for path in (spec.forward, spec.backward))
    if spec.forward == spec.backward:
        return {"both ways": forward}
    return {"near -> far": forward, "far -> near": backward}


def _read_trace(path: Path | None) -> tuple[int, ...] | None:
    if path is None:
        return None
    shown = printable_path(path)
    try:
        return parse_trace(path.read_text("ascii"), str(path))
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not a delivery trace: each line must be a number of milliseconds") from None
    except OSError as error:
        raise UsageError(f"cannot read {shown}: {error.strerror}") from None
