"""`nettool doctor`: what this machine can do, what is missing, what that costs, and how to fix it."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from toolkit.api.target import parse_target
from toolkit.cli.command import command
from toolkit.cli.options import Json, Quiet
from toolkit.cli.output import print_json, print_result, result_width
from toolkit.doctor.capability import Capability
from toolkit.doctor.emulation import examine_emulation
from toolkit.doctor.host import examine_host
from toolkit.doctor.path import examine_path

_MAX_WIDTH = 80
_NAME_COLUMNS = 19


@command
def doctor(
    host: Annotated[
        str | None, typer.Argument(metavar="[HOST]", help="Another machine, to measure the path to it.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check what this machine can do: what is missing, what that costs, and how to fix it.

    Nothing is changed. Advice is not a failure: the exit code is 0. HOST need not run nettool; it must answer ICMP echo
    requests, as for ping.

    \b
    Examples:
      nettool doctor
      nettool doctor 192.0.2.7
      nettool doctor --json
    """
    address = None if host is None else parse_target(host)
    columns = result_width(_MAX_WIDTH)
    found: list[Capability] = []
    for examine in (examine_host, examine_emulation, lambda: [] if address is None else examine_path(address)):
        part = examine()
        found += part
        if part and not json and not quiet:
            print_result("\n".join(line for capability in part for line in capability_lines(capability, columns)))
    if json:
        print_json("doctor", {"host": host, "capabilities": [capability.to_json() for capability in found]})
    elif not quiet:
        print_result("\n".join(["", *closing_lines(found)]))


def capability_lines(capability: Capability, columns: int) -> Iterator[str]:
    """Yield lines of at most `columns` characters; only a command may be longer, because it is to be copied."""
    lead = f"{'ok' if capability.is_enough else '--'} {capability.name:{_NAME_COLUMNS}}"
    yield from _wrapped(lead, capability.found, columns, indent=len(lead))
    if capability.cost:
        yield from _wrapped("     cost: ", capability.cost, columns)
    if capability.command:
        yield f"     fix:  {capability.command}"
    if capability.advice:
        yield from _wrapped("     fix:  ", capability.advice, columns)


def closing_lines(found: Sequence[Capability]) -> Iterator[str]:
    """Yield what follows from all of it."""
    lacking = sum(not capability.is_enough for capability in found)
    if not lacking:
        yield "Nothing is missing."
        return
    yield f"{lacking} of {len(found)} could be better. Transfers work nevertheless."
    if any("sysctl" in capability.command for capability in found):
        yield "What sysctl sets lasts until the next start; a file in /etc/sysctl.d keeps it."


def _wrapped(lead: str, text: str, columns: int, indent: int = 11) -> list[str]:
    return textwrap.wrap(
        text,
        columns,
        initial_indent=lead,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
