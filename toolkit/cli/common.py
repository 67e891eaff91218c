"""What every command shares: targets as users write them, and the two streams that it may write to.

Results go to stdout and everything else to stderr, so that `--json` can promise one object and nothing
beside it.
"""

import ipaddress
import json
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from toolkit import __version__
from toolkit.channel import Address
from toolkit.errors import NettoolError, TransferError, UsageError, printable

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
DEFAULT_PORT = 9000
JSON_SCHEMA = 1


def parse_target(text: str) -> Address:
    """`HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT` or a bare IPv6 address. Raises UsageError."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")) or not _is_ipv6(host):
            raise _not_a_target(text)
        port = port[1:] if port else str(DEFAULT_PORT)
    elif text.count(":") > 1:
        if not _is_ipv6(text):
            raise _not_a_target(text)
        port = str(DEFAULT_PORT)
    else:
        host, colon, port = text.partition(":")
        port = port if colon else str(DEFAULT_PORT)
    if not host or not host.isprintable() or any(c.isspace() or c == "/" for c in host):
        raise _not_a_target(text)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise UsageError(f"'{printable(port, 40)}' is not a port: write one from 1 to 65535, like {host}:9000")
    return Address(host, int(port))


def say(line: str) -> None:
    """One line for the user, on stderr, as soon as may be; lost without a word when nobody can read it."""
    if sys.stderr is None:  # closed by whoever started us; print() would turn to stdout
        return
    try:
        sys.stderr.write(line + "\n")  # in one piece: sessions speak from threads of their own
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.stderr = None


def emit(text: str) -> None:
    """A result, on stdout. A reader who has gone away is no error; a full disk is. Raises TransferError."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = None
    except OSError as error:
        sys.stdout = None
        raise TransferError(f"cannot write to standard output: {error.strerror}; free some space") from None


def emit_json(kind: str, fields: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout, with its kind, schema and version (docs/data-format.md)."""
    emit(json.dumps({"schema": JSON_SCHEMA, "kind": kind, "version": __version__, **fields}, allow_nan=False))


def explained(error: Exception) -> NettoolError:
    """`error` as one of the family."""
    if isinstance(error, NettoolError):
        return error
    if isinstance(error, BrokenPipeError):  # not stdout's: `emit` takes those
        return TransferError("a connection or a pipe was closed early; run it again")
    return TransferError(
        f"unexpected {type(error).__name__}: {printable(str(error))} "
        "(set NETTOOL_TRACEBACK=1 and run it again to see where; please report it)"
    )


def say_where(error: Exception) -> None:
    """The whole story of `error`, on stderr, where NETTOOL_TRACEBACK is set."""
    if os.environ.get("NETTOOL_TRACEBACK") and sys.stderr is not None:
        traceback.print_exception(error)


def is_terminal() -> bool:
    """Whether stderr is one, so that a progress bar has a reader."""
    return sys.stderr is not None and sys.stderr.isatty()


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _not_a_target(text: str) -> UsageError:
    if os.path.isfile(text):
        return UsageError(f"'{printable(text)}' is a file: the receiver comes last, like FILE... HOST:PORT")
    return UsageError(f"'{printable(text)}' is not a receiver: write HOST, HOST:PORT or [IPv6]:PORT")
