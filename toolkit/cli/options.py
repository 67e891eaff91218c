"""Options that several commands have, spelled and explained once."""

from collections.abc import Callable
from functools import wraps
from typing import Annotated, ParamSpec, TypeVar

import typer

from toolkit.cli.common import emit_json
from toolkit.errors import NettoolError

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
CongestionControl = Annotated[
    str | None,
    typer.Option("--cc", metavar="NAME", help="Congestion control, like cubic or bbr.", show_default=False),
]
Offload = Annotated[
    str,
    typer.Option(
        metavar="auto|off", help="UDP batches of packets: auto uses what the kernel has, off goes one by one."
    ),
]
IdleTimeout = Annotated[
    str, typer.Option(metavar="TIME", help="Silence after which the other end is given up, like 30s.")
]

DEFAULT_OFFLOAD = "auto"
DEFAULT_IDLE_TIMEOUT = "30s"

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def reported(command: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """With --json a command that fails prints an object too: what stderr says, and the exit code."""

    @wraps(command)
    def run(*args: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        try:
            return command(*args, **options)
        except NettoolError as error:
            if options.get("json"):
                emit_json("error", {"error": str(error), "exit_code": error.exit_code})
            raise

    return run
