"""Congestion controllers by name: those of nettool, and those that other distributions add.

Another distribution names its factory in an entry point of the group "nettool.congestion"
(docs/congestion-control.md). The names of nettool's own cannot be taken over. Nothing is imported before it
is asked for.
"""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Final, cast

from toolkit.errors import UsageError, printable
from toolkit.rudp.congestion.base import ControllerFactory

DEFAULT: Final = "bbr"
ENTRY_POINT_GROUP: Final = "nettool.congestion"

_OWN: Final = {
    "bbr": ("toolkit.rudp.congestion.bbr", "Bbr"),
    "cubic": ("toolkit.rudp.congestion.cubic", "Cubic"),
    "newreno": ("toolkit.rudp.congestion.newreno", "NewReno"),
    "rate": ("toolkit.rudp.congestion.fixed_rate", "FixedRate"),
}
NAMES: Final = tuple(_OWN)
"""The names of nettool's own controllers."""


def controller(name: str) -> ControllerFactory:
    """The factory of the controller called `name`.

    Raises UsageError when there is none, or when another distribution's cannot be loaded.
    """
    if name in _OWN:
        module, attribute = _OWN[name]
        return cast(ControllerFactory, getattr(import_module(module), attribute))
    others = entry_points(group=ENTRY_POINT_GROUP)
    if name not in others.names:
        known = ", ".join(sorted(others.names | set(NAMES)))
        raise UsageError(f"there is no congestion control named {printable(name)!r}: choose one of {known}")
    try:
        return cast(ControllerFactory, others[name].load())
    except (ImportError, AttributeError) as error:
        why = printable(str(error))
        raise UsageError(f"congestion control {name!r} cannot be loaded ({why}): reinstall it") from error
