"""nettool: file transfer over TCP and over a reliable protocol on UDP, with an honest comparison of the two.

The names below are those for programs; docs/api.md describes them. Each is loaded when it is first used, because a
program that needs one of them should not wait for all.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit import aio, errors
    from toolkit.api import events
    from toolkit.api.comparing import compare
    from toolkit.api.receiving import Receiver, receive
    from toolkit.api.sending import send
    from toolkit.channel import Address, TransportOptions
    from toolkit.comparison.scenario import Scenario
    from toolkit.transfer import SendOptions, SessionLimits
    from toolkit.transfer.receiver import ReceiveOptions

__version__ = "0.1.0"

__all__ = [
    "Address",
    "ReceiveOptions",
    "Receiver",
    "Scenario",
    "SendOptions",
    "SessionLimits",
    "TransportOptions",
    "__version__",
    "aio",
    "compare",
    "errors",
    "events",
    "receive",
    "send",
]

_PLACES = {
    "Address": "toolkit.channel",
    "ReceiveOptions": "toolkit.transfer.receiver",
    "Receiver": "toolkit.api.receiving",
    "Scenario": "toolkit.comparison.scenario",
    "SendOptions": "toolkit.transfer",
    "SessionLimits": "toolkit.transfer",
    "TransportOptions": "toolkit.channel",
    "aio": "toolkit",
    "compare": "toolkit.api.comparing",
    "errors": "toolkit",
    "events": "toolkit.api",
    "receive": "toolkit.api.receiving",
    "send": "toolkit.api.sending",
}
"""Where each name is."""
_SUBMODULES = ("aio", "errors", "events")


if not TYPE_CHECKING:  # a type checker would take every name for one that exists

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        place = _PLACES[name]
        value = import_module(f"{place}.{name}") if name in _SUBMODULES else getattr(import_module(place), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
