"""Connecting over UDP, and over TCP where UDP does not get through, as `nettool send` does.

Some networks drop all UDP but DNS. A receiver listens for both on one port, so the other transport needs nothing new.
Only silence leads to TCP. Whoever answers over UDP may be guessing the code, and has one guess: that of the handshake.
"""

import time
from dataclasses import replace
from typing import Final

from toolkit.channel import Address, Channel, TransportOptions
from toolkit.errors import IncompleteHandshakeError, UnreachableError
from toolkit.transports import registry
from toolkit.transports.registry import transport

AUTO: Final = "auto"
UDP_SILENCE_S: Final = 5.0
"""How long to wait for a first answer over UDP; one over a satellite takes a second."""


def load(name: str, options: TransportOptions) -> None:
    """Load what `connect` tries first. Raises UsageError."""
    registry.load("udp" if name == AUTO else name, options)


def connect(name: str, address: Address, options: TransportOptions) -> tuple[str, Channel]:
    """Connect over the transport `name`, or over UDP and else TCP if it is AUTO; return which, and the channel.

    Raises what Transport.connect raises.
    """
    if name != AUTO:
        return name, transport(name).connect(address, options)
    started_s = time.monotonic()
    silence_s = min(UDP_SILENCE_S, options.connect_timeout_s / 2)
    try:
        return "udp", transport("udp").connect(address, replace(options, silence_timeout_s=silence_s))
    except IncompleteHandshakeError:
        raise
    except UnreachableError as error:
        silence = str(error)
        left_s = max(silence_s, options.connect_timeout_s - (time.monotonic() - started_s))
    try:
        return "tcp", transport("tcp").connect(address, replace(options, qlog=None, connect_timeout_s=left_s))
    except UnreachableError as error:
        if str(error) == silence:  # a host that has no address, or none that a transport could reach
            raise
        raise UnreachableError(f"{error} (UDP was tried first)") from error
