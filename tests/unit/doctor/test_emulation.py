"""Which links a user can emulate."""

from collections.abc import Iterator
from contextlib import contextmanager

from toolkit.doctor.emulation import examine_emulation
from toolkit.errors import NettoolError
from toolkit.netmodel.spec import LinkSpec


class Machine:
    """Makes links, except where a test says why not."""

    def __init__(self, bare: str = "", tun: str = "", netem: str = "") -> None:
        self.refusals = {"bare": bare, "tun": tun, "netem": netem}
        self.closed: list[str] = []

    @contextmanager
    def make(self, spec: LinkSpec, emulator: str) -> Iterator[None]:
        kind = "bare" if spec.is_bare else emulator
        if refusal := self.refusals[kind]:
            raise NettoolError(refusal)
        yield
        self.closed.append(kind)


def test_every_link_is_tried_and_removed() -> None:
    machine = Machine()
    found = examine_emulation(machine.make)
    assert [(one.name, one.is_enough) for one in found] == [("namespaces", True), ("TUN device", True), ("netem", True)]
    assert machine.closed == ["bare", "tun", "netem"]


def test_what_an_error_advises_is_advice() -> None:
    found = examine_emulation(Machine(tun="no /dev/net/tun on this machine: load it with 'sudo modprobe tun'").make)[1]
    assert (found.found, found.advice) == ("no /dev/net/tun on this machine", "load it with 'sudo modprobe tun'")
    assert found.cost


def test_netem_is_loaded_by_a_command() -> None:
    found = examine_emulation(Machine(netem="this kernel has no netem: use nettool's own emulator").make)[2]
    assert (found.command, found.advice) == ("sudo modprobe sch_netem", "")


def test_without_namespaces_nothing_else_is_tried() -> None:
    found = examine_emulation(Machine(bare="this user cannot make namespaces: run as root").make)
    assert [(one.name, one.advice) for one in found] == [("namespaces", "run as root")]
