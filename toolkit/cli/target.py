"""The receiver's address as users write it: HOST, HOST:PORT or [IPv6]:PORT."""

import ipaddress
import os

from toolkit.channel import Address
from toolkit.errors import UsageError, printable

DEFAULT_PORT = 9000


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
    if not host or not host.isprintable() or any(c.isspace() or c == "/" for c in host):
        raise _invalid(text)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise UsageError(f"invalid port '{printable(port, 40)}': use a number from 1 to 65535, for example {host}:9000")
    return Address(host, int(port))


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _invalid(text: str) -> UsageError:
    if os.path.isfile(text):
        return UsageError(f"'{printable(text)}' is a file: the receiver comes last, as in FILE... HOST:PORT")
    return UsageError(f"invalid receiver '{printable(text)}': write HOST, HOST:PORT or [IPv6]:PORT")
