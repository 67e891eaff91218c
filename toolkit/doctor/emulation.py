"""Which links this user can emulate: tried by making them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from toolkit.doctor.capability import Capability
from toolkit.emulator.accounting import NETEM, TUN
from toolkit.emulator.interfaces import unused_network
from toolkit.emulator.link import Link
from toolkit.errors import NettoolError
from toolkit.netmodel.notation import LinkText, link_spec
from toolkit.netmodel.spec import LAN, LinkSpec

MakeLink = Callable[[LinkSpec, str], AbstractContextManager[object]]

_NAMESPACES: Final = "namespaces"


@dataclass(frozen=True, slots=True)
class _Trial:
    """A link that needs something.

    cost:    what a user lacks who cannot make it
    command: what fixes that; "" if the error of the link says it
    """

    name: str
    spec: LinkSpec
    emulator: str
    cost: str
    command: str = ""


_TRIALS: Final = (
    _Trial(_NAMESPACES, LinkSpec(kind=LAN), TUN, "no emulated link: neither nettool link nor bench link or lan"),
    _Trial("TUN device", link_spec(LinkText(rtt="1ms")), TUN, "no emulated link but a LAN"),
    _Trial(
        "netem",
        link_spec(LinkText(rtt="1ms")),
        NETEM,
        "--emulator netem is refused; nettool's own emulator does not need it",
        "sudo modprobe sch_netem",
    ),
)


def _make(spec: LinkSpec, emulator: str) -> Link:
    return Link(spec, emulator=emulator, network=unused_network())


def examine_emulation(make: MakeLink = _make) -> list[Capability]:
    """Make a link with each emulator; each takes a fraction of a second. Without namespaces, nothing else is tried."""
    found: list[Capability] = []
    for trial in _TRIALS:
        try:
            with make(trial.spec, trial.emulator):
                found.append(Capability(trial.name, "yes"))
        except NettoolError as error:
            what, _, advice = str(error).partition(": ")
            advice = "" if trial.command else advice
            found.append(Capability(trial.name, what, False, trial.cost, trial.command, advice))
            if trial.name == _NAMESPACES:
                break
    return found
