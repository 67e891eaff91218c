"""Which hosts of a fleet are there: their workers, as the scheduler sees them, and what they say of themselves.

A host is present if its worker has been heard of lately and serves. All times of workers are the scheduler's, so no
clocks need agree.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit import __version__
from toolkit.errors import printable
from toolkit.fleet.agent import HostReport, report

SILENT_S = 45.0
"""A worker that the scheduler has not heard of for so long is missing; it reports about every second."""


@dataclass(slots=True)
class _Member:
    address: str
    asked: Any
    report: HostReport | None = None
    reason: str = "it has not answered yet"
    is_refused: bool = False
    is_distrusted: bool = False


class Roster:
    """The hosts of a run by name. `refresh` looks again."""

    def __init__(self, client: Any, names: Iterable[str]) -> None:
        self._client = client
        self._names = list(names)
        self._members: dict[str, _Member] = {}
        self._seen: dict[str, str] = {}
        self._silent_s: dict[str, float] = {}
        self._present_s = dict.fromkeys(self._names, time.monotonic())

    def refresh(self) -> None:
        """Look which workers are there, and ask those that are new. Raises OSError if the scheduler is lost."""
        # Client.scheduler_info reads a cache that a timer of its own may have just replaced by one without workers.
        identity = self._client.sync(self._client.scheduler.identity, n_workers=-1)
        workers: Mapping[str, Any] = identity["workers"]
        newest_s = max((each["last_seen"] for each in workers.values()), default=0.0)
        silent = {address: newest_s - each["last_seen"] for address, each in workers.items()}
        ours = {str(each["name"]): address for address, each in workers.items() if str(each["name"]) in self._names}
        self._seen = {name: address for name, address in ours.items() if silent[address] < SILENT_S}
        self._silent_s = {name: silent[address] for name, address in ours.items() if silent[address] >= SILENT_S}
        for name, address in self._seen.items():
            member = self._members.get(name)
            if member is None or member.address != address:
                asked = self._client.submit(
                    report, workers=[address], allow_other_workers=False, pure=False, key=f"report-{name}-{address}"
                )
                self._members[name] = _Member(address, asked)
            elif member.report is None and not member.is_refused and member.asked.done():
                self._take(name, member, workers[address].get("resources", {}))
        self._present_s |= dict.fromkeys(self.present, time.monotonic())

    def _take(self, name: str, member: _Member, resources: Mapping[str, float]) -> None:
        if not resources.get(f"host:{name}"):
            member.reason = f"its worker lacks a resource: start it with --resources host:{name}=1"
        elif member.asked.status != "finished":
            member.reason = f"its worker cannot run nettool: {printable(str(member.asked.exception()))}"
        else:
            _believe(member, member.asked.result())
        member.is_refused = member.report is None

    @property
    def present(self) -> set[str]:
        """The hosts that can take part in a trial."""
        return {name for name in self._seen if self._is_usable(self._members[name])}

    def missing_s(self, name: str) -> float:
        """How long a host has been missing, at the last look."""
        return 0.0 if name in self.present else time.monotonic() - self._present_s[name]

    def address(self, name: str) -> str | None:
        """The address of the worker of a host that is present."""
        return self._members[name].address if name in self.present else None

    def port(self, name: str) -> int:
        """Where a host receives."""
        answer = self._members[name].report
        assert answer is not None
        return answer.port

    def reports(self) -> dict[str, HostReport]:
        """What each host has said that answered."""
        return {name: each.report for name, each in self._members.items() if each.report is not None}

    def distrust(self, name: str) -> None:
        """Do without a host until another worker stands for it: its present one does not finish what it is given."""
        if name in self._members:
            self._members[name].is_distrusted = True
            self._members[name].reason = "its worker does not finish a trial"

    def reason(self, name: str) -> str:
        """Why a host is missing."""
        member = self._members.get(name)
        if member is None:
            return "it never appeared"
        if name in self._silent_s:
            return f"nothing has been heard of it for {self._silent_s[name]:.0f} s"
        return member.reason if name in self._seen else "its worker has ended"

    @property
    def mismatched(self) -> dict[str, str]:
        """Hosts that answered, and cannot take part: name -> reason."""
        return {name: each.reason for name, each in self._members.items() if each.is_refused and name in self._seen}

    def _is_usable(self, member: _Member) -> bool:
        return member.report is not None and not member.is_distrusted


def _believe(member: _Member, answer: HostReport) -> None:
    if answer.error:
        member.reason = answer.error
    elif answer.info.nettool != __version__:
        member.reason = f"it has nettool {answer.info.nettool}, and this machine {__version__}: install the same"
    else:
        member.report = answer
