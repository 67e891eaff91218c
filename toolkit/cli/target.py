"""A command line that ends with the receiver, and what its user meant by any other."""

import os
import socket
from collections.abc import Sequence

from toolkit.api.target import is_port, parse_target
from toolkit.channel import Address
from toolkit.errors import UsageError, printable
from toolkit.transfer.scan import STANDARD_INPUT


def split_target(items: Sequence[str], command: str) -> tuple[list[str], Address]:
    """Return the sources and the receiver of a command line that ends with the receiver.

    command: for messages, for example "nettool tcp-send"

    Raises UsageError, which says what the user probably meant.
    """
    *sources, target = items
    shown = printable(target)
    if not sources and os.path.lexists(target):
        raise UsageError(f"the receiver is missing: {command} {shown} HOST[:PORT]")
    if not sources:
        raise UsageError(f"a file is missing: {command} FILE... {shown}")
    if is_port(target) and not os.path.lexists(target) and len(sources) > 1:
        host = printable(sources[-1])
        raise UsageError(f"the port follows its host after a colon: write {host}:{target}, not {host} {target}")
    if target == STANDARD_INPUT:
        raise UsageError(f"- is standard input: the receiver comes last, and is missing: {command} FILE... HOST[:PORT]")
    if os.path.lexists(target) and not _is_host(target):
        raise _file_for_receiver(sources, target, command)
    return sources, parse_target(target)


def _file_for_receiver(sources: Sequence[str], target: str, command: str) -> UsageError:
    shown = printable(target)
    misplaced = [source for source in sources if source != STANDARD_INPUT and not os.path.lexists(source)]
    if len(misplaced) == 1:
        return UsageError(f"{shown} is a file: the receiver comes last: {command} {shown} {printable(misplaced[0])}")
    return UsageError(f"{shown} is a file: the receiver comes last, and is missing: {command} FILE... HOST[:PORT]")


def _is_host(text: str) -> bool:
    """Whether a name that is also that of a file is one of a machine."""
    try:
        return bool(socket.getaddrinfo(parse_target(text).host, None))
    except (OSError, UnicodeError, UsageError):
        return False
