"""`nettool trace`: send a file from this machine to itself, and show the system calls of both ends side by side."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.access import CODE_VARIABLE
from toolkit.cli.command import command, flag, option
from toolkit.cli.config_file import CONFIG_VARIABLE
from toolkit.cli.interrupts import prompt_interrupts
from toolkit.cli.options import Json, Quiet
from toolkit.cli.output import print_json, print_result, print_status, result_width
from toolkit.comparison.json_codec import encode
from toolkit.errors import TransferError, UsageError, printable
from toolkit.output_files import check_output
from toolkit.report.call_timeline import EndTrace, read_trace, text_of, write_timeline_page
from toolkit.report.html import PAGE_MARK, PAGE_OPTION
from toolkit.transfer.scan import STANDARD_INPUT, check_sources

_NETTOOL = (sys.executable, "-m", "toolkit.cli.main")
_WIDTH = 80
_GRACE_S = 10.0


@command
def trace(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to send.")],
    udp: Annotated[bool, flag("--udp", text="Send over UDP instead of TCP.")] = False,
    fast: Annotated[bool, flag("--fast", text="Show the calls that nettool makes otherwise, in batches.")] = False,
    html: Annotated[
        Path | None, option(PAGE_OPTION, metavar="FILE", text="Write a page with the calls and what they mean.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the system calls of a transfer: sender and receiver side by side.

    A sender and a receiver run as two processes on this machine. The socket and file calls of both are shown in the
    order of time, without setsockopt() and calls that found nothing to do yet. The received copy is removed.

    \b
    Examples:
      nettool trace notes.txt
      nettool trace --udp --html calls.html notes.txt
    """
    if str(file) == STANDARD_INPUT:
        raise UsageError("a trace sends a file, and - is standard input: name one file")
    if file.is_dir():
        raise UsageError(f"{printable(str(file))} is a directory: name one file")
    check_sources([str(file)], False, "")
    if html is not None:
        check_output(html, PAGE_OPTION, PAGE_MARK, inputs=[str(file)])
    transport_name = "udp" if udp else "tcp"
    with prompt_interrupts(), tempfile.TemporaryDirectory(prefix="nettool-trace-") as folder:
        ends = _run(transport_name, file, Path(folder), [] if fast else ["--simple"])
    if html is not None:
        write_timeline_page(ends, f"the calls of a transfer over {transport_name.upper()}", html)
        if not quiet:
            print_status(f"wrote {printable(str(html))}")
    if json:
        print_json("trace", {"transport": transport_name, "ends": [encode(end) for end in ends]})
    elif not quiet:
        print_result(text_of(ends, result_width(_WIDTH)))


def _run(transport_name: str, file: Path, folder: Path, options: Sequence[str]) -> list[EndTrace]:
    """Run both ends; return the calls of the sender and of the receiver. Raises TransferError if one fails."""
    files = [folder / "sender.jsonl", folder / "receiver.jsonl"]
    # The user's defaults and code are for commands that the user runs.
    environment = {**os.environ, CONFIG_VARIABLE: "", CODE_VARIABLE: ""}
    receive = [f"{transport_name}-recv", "--once", "--port", "0", "--dir", str(folder / "received")]
    receiver = subprocess.Popen(
        [*_NETTOOL, *receive, *options, "--trace-file", str(files[1])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with receiver:
        try:
            assert receiver.stderr is not None
            line = receiver.stderr.readline()
            found = re.search(r":(\d+) \(", line)
            if found is None:
                raise TransferError(f"the receiver did not start: {printable(line.strip())}")
            send = [f"{transport_name}-send", "--quiet", *options, "--trace-file", str(files[0])]
            sent = subprocess.run(
                [*_NETTOOL, *send, "--", str(file.absolute()), f"127.0.0.1:{found[1]}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                env=environment,
            )
            if sent.returncode:
                *_, reason = sent.stderr.strip().splitlines() or ["the sender has failed"]
                raise TransferError(reason.removeprefix("nettool: "))
            receiver.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            raise TransferError("the receiver did not end; try again") from None
        finally:
            receiver.kill()
    return [read_trace(path) for path in files]
