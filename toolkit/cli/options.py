"""Options that several commands have, spelled and explained once, and what becomes of them."""

from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from toolkit.channel import MAX_IDLE_TIMEOUT_S, MIN_IDLE_TIMEOUT_S
from toolkit.cli.common import DEFAULT_PORT, emit_json, explained
from toolkit.errors import UsageError
from toolkit.units import parse_duration_ns, to_seconds


class OffloadChoice(StrEnum):
    """What --offload takes."""

    AUTO = "auto"
    OFF = "off"


class DigestChoice(StrEnum):
    """What --digest takes: `toolkit.transfer.digest.ALGORITHMS`, known here without loading them."""

    XXH3 = "xxh3-128"
    BLAKE3 = "blake3"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Offload = Annotated[
    OffloadChoice, typer.Option(help="UDP in batches: auto uses what the kernel has, off goes packet by packet.")
]
IdleTimeout = Annotated[
    str, typer.Option(metavar="TIME", help="Silence after which the other end is given up, like 30s.")
]
DEFAULT_IDLE_TIMEOUT = "30s"

Items = Annotated[
    list[str],
    typer.Argument(metavar="FILE... HOST[:PORT]", help="What to send (- is standard input), and to whom."),
]
CongestionControl = Annotated[
    str | None, typer.Option("--cc", metavar="NAME", help="Congestion control, like cubic or bbr.")
]
Rate = Annotated[str | None, typer.Option(metavar="RATE", help="Send no faster than this, like 100Mbit or 12MB/s.")]
Streams = Annotated[int, typer.Option(min=1, metavar="N", help="Connections to send over.")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Send directories with all that is in them.")]
Digest = Annotated[DigestChoice, typer.Option(help="How the receiver verifies: fast, or cryptographic.")]
StreamName = Annotated[str, typer.Option(metavar="NAME", help="What to call standard input at the receiver.")]

Directory = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where files go; made where it is missing.")]
Bind = Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen at; 0.0.0.0 or :: for every one.")]
Qlog = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Log the connection as qlog, for qvis; a receiver numbers the later ones."),
]

DEFAULT_BIND = "127.0.0.1"
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="0 takes a free one, and says which.")]
RECV_PORT = DEFAULT_PORT
Once = Annotated[bool, typer.Option("--once", help="End after one session; 0 only if all of it was verified.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
Fsync = Annotated[bool, typer.Option("--fsync", help="Have each file on the disk before it is called done.")]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def option(*names: str, metavar: str, text: str) -> Any:
    """An option that is shown with no default but what `text` says."""
    return typer.Option(*names, metavar=metavar, help=text)


def idle_timeout_s(text: str) -> float:
    """Seconds. Raises UsageError."""
    duration_s = to_seconds(parse_duration_ns(text))
    if duration_s < MIN_IDLE_TIMEOUT_S:
        raise UsageError(f"--idle-timeout {text} is too short: 1s is the least, 30s is usual")
    if duration_s > MAX_IDLE_TIMEOUT_S:
        raise UsageError(f"--idle-timeout {text} is too long: 24h is the most, 30s is usual")
    return duration_s


def spread(command: Callable[..., _Result]) -> Callable[..., _Result]:
    """A command whose parameters that are dataclasses of options are, to typer, one parameter for each field."""
    asked = signature(command).parameters
    groups: dict[str, Any] = {name: one.annotation for name, one in asked.items() if is_dataclass(one.annotation)}
    shown: list[Parameter] = []
    for name, one in asked.items():
        if name not in groups:
            shown.append(one)
            continue
        for field in fields(groups[name]):
            default = Parameter.empty if field.default is MISSING else field.default
            shown.append(Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=field.type))

    @wraps(command)
    def run(**options: Any) -> _Result:
        for name, group in groups.items():
            options[name] = group(**{field.name: options.pop(field.name) for field in fields(group)})
        return command(**options)

    vars(run)["__signature__"] = Signature(shown)
    run.__annotations__ = {one.name: one.annotation for one in shown}
    return run


def reported(command: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """A command that fails raises NettoolError only; with --json it prints an object first, with what stderr will say.

    That goes for a broken pipe, too, which typer would take for a reader of stdout who has gone away.
    """

    @wraps(command)
    def run(*args: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        try:
            return command(*args, **options)
        except Exception as error:
            known = explained(error)
            if options.get("json"):
                from toolkit.cli.results import done_before  # not needed by any help

                emit_json("error", {"error": str(known), "exit_code": known.exit_code, **done_before(known)})
            if known is error:
                raise
            raise known from error

    return run
