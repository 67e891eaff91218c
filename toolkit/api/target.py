"""The receiver's address as users write it: HOST, HOST:PORT or [IPv6]:PORT."""

import ipaddress
import os

from toolkit.channel import Address
from toolkit.errors import UsageError, printable

DEFAULT_PORT = 9000
_NO_PATH = ", and the receiver chooses where files go, with `into`"


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
    if not is_port(port):
        raise _invalid_port(host, port)
    return Address(host, int(port))


def is_port(text: str) -> bool:
    """Whether a text is the number of a port that can be connected to."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _invalid_port(host: str, port: str) -> UsageError:
    if "/" in port or port.startswith((".", "~")):
        place = printable(f"{host}:{port}", 60)
        return UsageError(f"'{place}' names a path: the receiver chooses where files go, with `into`; write {host}")
    return UsageError(f"invalid port '{printable(port, 40)}': use a number from 1 to 65535, for example {host}:9000")


def _invalid(text: str) -> UsageError:
    if os.path.isfile(text):
        return UsageError(f"'{printable(text)}' is a file: the receiver comes last, as in FILE... HOST:PORT")
    user, at, place = text.partition("@")
    host, _, path = place.partition(":")
    if at and all(c.isalnum() or c in "._-" for c in user) and host and "/" not in host:
        names_path = path and not is_port(path)
        reason = "there is no user to log in as" + (_NO_PATH if names_path else "")
        return UsageError(f"'{printable(text, 60)}': {reason}; write {printable(host if names_path else place)}")
    return UsageError(f"invalid receiver '{printable(text)}': write HOST, HOST:PORT or [IPv6]:PORT")
