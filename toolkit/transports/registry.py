"""Transports by name: nettool's own, which are loaded on first use, and those of other Python packages.

Another Python package offers a transport as an entry point of the group "nettool.transports": a class or function that
returns a `Transport` when called without arguments. Users only have to `pip install` the package.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from toolkit.channel import Transport, TransportOptions
from toolkit.errors import UsageError, printable
from toolkit.rudp.congestion.base import DEFAULT_CONTROLLER, controller_factory

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "nettool.transports"

_BUILT_IN = {
    "tcp": ("toolkit.transports.tcp.connect", "TcpTransport"),
    "udp": ("toolkit.transports.udp.connect", "UdpTransport"),
}


def transport(name: str) -> Transport:
    """Return a new transport. Raises UsageError if the name is unknown or the transport cannot be loaded."""
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        made: Transport = getattr(import_module(module), attribute)()
        return made
    found = _third_party().get(name)
    if found is None:
        raise UsageError(f"unknown transport {printable(name)}: choose from {', '.join(transport_names())}")
    try:
        made = found.load()()
    except Exception as error:
        raise UsageError(
            f"the transport {printable(name)} ({printable(found.value)}) cannot be loaded: {printable(str(error))}"
        ) from error
    return made


def load(name: str, options: TransportOptions) -> None:
    """Import what a session over this transport needs, and would import while its time is measured.

    Raises UsageError if the name or the congestion control is unknown, or one of them cannot be loaded.
    """
    transport(name)
    if name == "udp":
        controller_factory(options.congestion_control or DEFAULT_CONTROLLER)


def transport_names() -> list[str]:
    """Return every name that `transport` accepts, nettool's own first."""
    return [*_BUILT_IN, *sorted(set(_third_party()) - set(_BUILT_IN))]


def _third_party() -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points  # costs every start a tenth of its time, and few need it

    return {found.name: found for found in entry_points(group=ENTRY_POINT_GROUP)}
