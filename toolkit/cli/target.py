"""The receiver's address as users write it: HOST, HOST:PORT or [IPv6]:PORT, and what they meant by anything else."""

import ipaddress
import os
import socket
from collections.abc import Sequence

from toolkit.channel import Address
from toolkit.errors import UsageError, printable

DEFAULT_PORT = 9000


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
    if _is_port(target) and not os.path.lexists(target) and len(sources) > 1:
        host = printable(sources[-1])
        raise UsageError(f"the port follows its host after a colon: write {host}:{target}, not {host} {target}")
    if os.path.lexists(target) and not _is_host(target):
        raise _file_for_receiver(sources, target, command)
    return sources, parse_target(target)


def _file_for_receiver(sources: Sequence[str], target: str, command: str) -> UsageError:
    shown = printable(target)
    misplaced = [source for source in sources if source != "-" and not os.path.lexists(source)]
    if len(misplaced) == 1:
        return UsageError(f"{shown} is a file: the receiver comes last: {command} {shown} {printable(misplaced[0])}")
    return UsageError(f"{shown} is a file: the receiver comes last, and is missing: {command} FILE... HOST[:PORT]")


def _is_host(text: str) -> bool:
    """Whether a name that is also that of a file is one of a machine."""
    try:
        return bool(socket.getaddrinfo(parse_target(text).host, None))
    except (OSError, UnicodeError, UsageError):
        return False


def parse_target(text: str) -> Address:
    """Parse `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT` or a bare IPv6 address. Raises UsageError."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")) or not _is_ipv6(host):
            raise _invalid(text)
        port = port[1:] if port else str(DEFAULT_PORT)
    elif text.count(":") > 1:
        if not _is_ipv6(text):
            raise _invalid(text)
        port = str(DEFAULT_PORT)
    else:
        host, colon, port = text.partition(":")
        port = port if colon else str(DEFAULT_PORT)
    if not host or not host.isprintable() or any(c.isspace() or c in "/@" for c in host):
        raise _invalid(text)
    if not _is_port(port):
        raise _invalid_port(host, port)
    return Address(host, int(port))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _invalid_port(host: str, port: str) -> UsageError:
    if "/" in port or port.startswith((".", "~")):
        place = printable(f"{host}:{port}", 60)
        return UsageError(f"'{place}' names a path: the receiver chooses where files go, with --dir; write {host}")
    return UsageError(f"invalid port '{printable(port, 40)}': use a number from 1 to 65535, for example {host}:9000")


def _invalid(text: str) -> UsageError:
    if os.path.isfile(text):
        return UsageError(f"'{printable(text)}' is a file: the receiver comes last, as in FILE... HOST:PORT")
    user, at, host = text.rpartition("@")
    if at and user.isalnum() and host and "/" not in host:
        return UsageError(f"'{printable(text)}': there is no user to log in as; write {printable(host)}")
    return UsageError(f"invalid receiver '{printable(text)}': write HOST, HOST:PORT or [IPv6]:PORT")
