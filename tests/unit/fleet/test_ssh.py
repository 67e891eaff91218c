"""Hosts that cannot take part are found over ssh before any worker starts, each with its reason."""

import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from toolkit import __version__
from toolkit.fleet import deploy
from toolkit.fleet.deploy import ssh_failures
from toolkit.fleet.mesh import FleetHost

ANSWERS = {
    "good": (0, f"{__version__}\n", ""),
    "old": (0, "0.1\n", ""),
    "bare": (1, "", "Traceback\nModuleNotFoundError: No module named 'distributed'\n"),
    "absent": (127, "", ""),
}
CLOSED: list[str] = []


class Connection:
    """Stands for a connection of asyncssh."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def run(self, command: str) -> Any:
        assert command.startswith("/opt/python -c ")
        status, out, err = ANSWERS[self._address]
        return SimpleNamespace(exit_status=status, stdout=out, stderr=err)

    def close(self) -> None:
        CLOSED.append(self._address)


def test_each_host_that_lacks_this_nettool_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(address: str, username: str = "") -> Connection:
        assert username == "ops"
        if address == "down":
            raise ConnectionRefusedError("refused")
        return Connection(address)

    CLOSED.clear()
    errors = {name: type(name, (Exception,), {}) for name in ("Error", "PermissionDenied", "HostKeyNotVerifiable")}
    monkeypatch.setitem(sys.modules, "asyncssh", cast(Any, SimpleNamespace(connect=connect, **errors)))
    monkeypatch.setattr(deploy, "find_spec", lambda _name: True)
    names = [*ANSWERS, "down"]
    found = ssh_failures({name: FleetHost(name, name, f"ops@{name}", "/opt/python") for name in names})
    assert found == {
        "old": f"it has nettool 0.1, and this machine {__version__}: install the same",
        "bare": "/opt/python there has no nettool[fleet] (ModuleNotFoundError: No module named 'distributed'): "
        "install it, or give the host's 'python' in the mesh",
        "absent": "/opt/python there has no nettool[fleet] (no reason given): install it, or give the host's 'python' "
        "in the mesh",
        "down": "ssh to ops@down fails: refused",
    }
    assert set(CLOSED) == set(ANSWERS)
