"""`nettool link`: any program behind an emulated link, the links that have names, and the check of one."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from tabulate import tabulate

from toolkit.cli.common import emit, emit_json, say
from toolkit.cli.options import Json, Quiet, option, reported
from toolkit.emulator.check import LinkCheck
from toolkit.emulator.check import check as measure
from toolkit.emulator.interfaces import DEFAULT_NETWORK
from toolkit.emulator.link import EMULATORS, Link, refuse_missing
from toolkit.emulator.run import run_behind
from toolkit.errors import TransferError, UsageError, printable
from toolkit.netmodel.mahimahi import parse_trace
from toolkit.netmodel.notation import LinkText, link_spec
from toolkit.netmodel.profiles import PROFILES, profile
from toolkit.netmodel.spec import LAN, LinkSpec, describe_path


@reported
def link(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND...", help="What runs at the near end.")
    ] = None,
    far: Annotated[
        str | None, option("--far", metavar="COMMAND", text="What runs at the far end, started first.")
    ] = None,
    name: Annotated[
        str | None, option("--link", "--profile", metavar="NAME", text="A link by name, to be changed by the rest.")
    ] = None,
    rate: Annotated[str | None, option("--rate", metavar="RATE", text="Of the bottleneck, like 100Mbit.")] = None,
    rate_back: Annotated[
        str | None, option("--rate-back", metavar="RATE", text="Of the way from far to near, if it differs.")
    ] = None,
    rtt: Annotated[str | None, option("--rtt", metavar="TIME", text="Round trip, half each way, like 40ms.")] = None,
    jitter: Annotated[str | None, option("--jitter", metavar="TIME", text="Mean of a random delay on top.")] = None,
    jitter_reorders: Annotated[
        bool, typer.Option("--jitter-reorders", help="Jitter for each packet on its own, which may overtake.")
    ] = False,
    loss: Annotated[str | None, option("--loss", metavar="SHARE", text="Of all packets, each on its own.")] = None,
    burst: Annotated[
        str | None, option("--burst", metavar="SHARE:TIME[:LOSS]", text="Bad periods: 1%:20ms loses all in them.")
    ] = None,
    duplicate: Annotated[str | None, option("--duplicate", metavar="SHARE", text="Packets that come twice.")] = None,
    corrupt: Annotated[str | None, option("--corrupt", metavar="SHARE", text="Packets with a flipped bit.")] = None,
    reorder: Annotated[str | None, option("--reorder", metavar="SHARE", text="Packets held back by 5 ms.")] = None,
    both_ways: Annotated[
        bool, typer.Option("--both-ways", help="Jitter, loss and other harm from far to near as well.")
    ] = False,
    queue: Annotated[
        str | None,
        option("--queue", metavar="QUEUE", text="500kB, 50ms, codel or codel,ecn. [default: rate x rtt]"),
    ] = None,
    trace: Annotated[Path | None, option("--trace", metavar="FILE", text="A mahimahi trace instead of a rate.")] = None,
    trace_back: Annotated[
        Path | None, option("--trace-back", metavar="FILE", text="The same for the way from far to near.")
    ] = None,
    at: Annotated[
        list[str] | None,
        option("--at", metavar="CHANGE", text="'5s rate 20Mbit', or rtt, loss, blackout; repeatable."),
    ] = None,
    mtu: Annotated[int | None, option("--mtu", metavar="BYTES", text="Of either end. [default: 1500]")] = None,
    seed: Annotated[int | None, option("--seed", metavar="N", text="Of every random draw. [default: 1]")] = None,
    emulator: Annotated[
        str, option("--emulator", metavar="NAME", text=f"{' or '.join(EMULATORS)}: nettool's, or the kernel's.")
    ] = EMULATORS[0],
    addresses: Annotated[
        str, option("--addresses", metavar="NETWORK", text="Of the two ends, where the usual are in use.")
    ] = DEFAULT_NETWORK,
    list_links: Annotated[
        bool, typer.Option("--list", help="Show the links that have names, and their sources.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Measure the link itself, and say if it is as asked.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Run any program behind an emulated link.

    The far end is called `far` (far6 for IPv6), and its address is in $NETTOOL_FAR. What harms packets (loss,
    bursts, jitter...) does so from near to far; --both-ways means either way. The exit code is COMMAND's, and what
    became of every packet is summed up on stderr, or on stdout with --json (COMMAND prints on stderr then).

    \b
    nettool link --rate 100Mbit --rtt 40ms --far 'iperf3 -s -1' -- iperf3 -c far
    nettool link --link lte --far 'nettool recv --dir incoming --bind 0.0.0.0 --once' -- nettool udp-send film.mkv far
    nettool link --rate 50Mbit --rtt 80ms --loss 1% --at '5s blackout 300ms' -- ping -c 10 far
    nettool link --check --rate 1Gbit --rtt 10ms
    """
    if list_links:
        _show_links(json)
        return 0
    text = LinkText(
        rate=rate,
        rate_back=rate_back,
        rtt=rtt,
        jitter=jitter,
        jitter_reorders=jitter_reorders,
        loss=loss,
        burst=burst,
        duplicate=duplicate,
        corrupt=corrupt,
        reorder=reorder,
        queue=queue,
        trace=_read(trace),
        trace_back=_read(trace_back),
        changes=tuple(at or ()),
        both_ways=both_ways,
        mtu=mtu,
        seed=seed,
    )
    spec = link_spec(text, profile(name).spec if name is not None else None)
    asked = Link(spec, emulator=emulator, network=addresses)
    if check:
        return _check(asked, json)
    if not command:
        raise UsageError("say what to run behind the link, like: nettool link --rtt 40ms -- ping -c 5 far")
    refuse_missing(command)
    with asked:
        code, ledger = run_behind(asked, command, far, sys.stderr if json else None)
    if json:
        emit_json("link", {"command": command, "exit_code": code, **ledger.to_json()})
    elif not quiet:
        for line in ledger.summary():
            say(f"link: {line}")
    return code


def _check(asked: Link, json: bool) -> int:
    with asked:
        result = measure(asked)
    if json:
        findings = [finding.to_json() for finding in result.findings]
        emit_json("link-check", {"is_met": result.is_met, "verdict": result.verdict, "findings": findings})
    else:
        _show_check(result)
    return 0 if result.is_met else TransferError.exit_code


def _show_check(result: LinkCheck) -> None:
    shown = {True: "yes", False: "NO", None: "-"}
    rows = [[f.metric, f.requested, f.measured, shown[f.is_met]] for f in result.findings]
    emit(tabulate(rows, ["", "asked", "measured", "as asked"], disable_numparse=True))
    emit(f"\n{result.verdict}")


def _show_links(json: bool) -> None:
    if json:
        links = [
            {"name": p.name, "stands_for": p.stands_for, "link": _described(p.spec), "sources": p.sources}
            for p in PROFILES.values()
        ]
        emit_json("links", {"links": links})
        return
    for known in PROFILES.values():
        emit(f"{known.name}: {known.stands_for}")
        for way, description in _described(known.spec).items():
            emit(f"    {way}: {description}")
        for source in known.sources:
            emit(f"    [{source}]")


def _described(spec: LinkSpec) -> dict[str, str]:
    if spec.kind == LAN:
        return {"both ways": "a veth pair"}
    forward, backward = (describe_path(path, spec.rtt_ns) for path in (spec.forward, spec.backward))
    return (
        {"both ways": forward} if spec.forward == spec.backward else {"near -> far": forward, "far -> near": backward}
    )


def _read(path: Path | None) -> tuple[int, ...] | None:
    if path is None:
        return None
    shown = printable(str(path), 80)
    try:
        return parse_trace(path.read_text("ascii"), str(path))
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is no delivery trace: each line holds a whole number of milliseconds") from None
    except OSError as error:
        raise UsageError(f"{shown} cannot be read: {error.strerror}") from None
