"""nettool: file transfer over TCP and over a reliable protocol on UDP, with an honest comparison of the two.

The names below are those for programs; docs/api.md describes them. Each is loaded when it is first used, because
nothing else should make a program wait that needs one of them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.api import events
    from toolkit.api.comparing import compare
    from toolkit.api.receiving import Receiver, receive
    from toolkit.api.sending import send

__version__ = "0.1.0"

_MODULES = {
    "Receiver": "toolkit.api.receiving",
    "compare": "toolkit.api.comparing",
    "events": "toolkit.api.events",
    "receive": "toolkit.api.receiving",
    "send": "toolkit.api.sending",
}

__all__ = ["Receiver", "__version__", "compare", "events", "receive", "send"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_MODULES[name])
    value = globals()[name] = module if _MODULES[name].endswith(f".{name}") else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
