"""Runs a mesh: sends trials to the hosts as they become free, keeps what comes back, and does without who is missing.

Only imported where dask is installed. `schedule.py` decides what comes next, `roster.py` who is there, `agent.py` is
what happens on the hosts; this is the loop between them. It measures nothing itself.
"""

import json
import queue
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from distributed import CancelledError, KilledWorker, Semaphore

from toolkit.comparison.json_codec import decode
from toolkit.comparison.paths import between
from toolkit.comparison.record_file import Record
from toolkit.comparison.records import Outage, Results, Trial
from toolkit.comparison.sampling import elapsed_s
from toolkit.errors import NettoolError, UnreachableError, UsageError, printable
from toolkit.fleet.agent import FleetAgent, FleetJob, Missing, TrialOrder, measure
from toolkit.fleet.dask_client import check_versions
from toolkit.fleet.mesh import Mesh
from toolkit.fleet.roster import Roster
from toolkit.fleet.schedule import Pair, Schedule, Visit, make_visits
from toolkit.security.key_file import KEY_BYTES

_LOOK_S = 0.5
OVERHEAD_S = 90.0
"""What a trial may take beyond its transfer: leases, the receiver's answers, and the start of a process."""
RUN_WAIT_S = 45.0
"""How long to wait for another run on the same scheduler: longer than the lease of one whose process was killed."""


@dataclass(slots=True)
class _Running:
    """A trial that is with a host. `address`: of the sender's worker when it began."""

    visit: Visit
    future: Any
    address: str | None
    started_s: float
    position: int


class FleetRun:
    """One run of a mesh."""

    def __init__(self, client: Any, mesh: Mesh, write: Callable[[Record], None], done: Results | None = None) -> None:
        """client: of dask.distributed; write: gets each record as soon as it is known; done: of an earlier run"""
        self._client, self._mesh, self._write = client, mesh, write
        self._results = done
        trials = list(done.trials) if done is not None else []
        self.schedule = Schedule(_visits(mesh, trials), mesh.retries, mesh.at_once)
        self.roster = Roster(client, mesh.hosts)
        self._position = 1 + max((trial.position for trial in trials), default=-1)
        self._elapsed_s = elapsed_s(trials)
        self._started_s = time.monotonic()
        self._running: dict[Pair, _Running] = {}
        self._arrived: queue.SimpleQueue[Pair] = queue.SimpleQueue()

    def run(self) -> None:
        """Run until all is measured or given up, or the budget is used up.

        Raises UsageError if hosts have another version or cannot serve, or another run has them; UnreachableError
        without two hosts or if the scheduler is lost; TransferError if a record cannot be written. What was written
        remains.
        """
        plan = self._mesh.plan
        job = FleetJob(
            addresses={name: host.address for name, host in self._mesh.hosts.items()},
            port=self._mesh.port,
            key=secrets.token_bytes(KEY_BYTES),
            sizes=list(plan.sizes),
            time_s=plan.time_s,
            seed=plan.seed,
            limit_s=plan.limit_s,
            plaintext=any(not setting.is_encrypted for setting in plan.settings),
        )
        try:
            with self._only_run():
                check_versions(self._client)
                self._run(FleetAgent(job))
        except NettoolError:
            raise
        except (Exception, CancelledError) as error:
            if self._is_connected() and not isinstance(error, OSError | TimeoutError):
                raise
            reason = printable(str(error) or type(error).__name__, 100)
            raise UnreachableError(
                f"the connection to the dask scheduler is lost ({reason}); --resume goes on"
            ) from None

    def _run(self, agent: FleetAgent) -> None:
        try:
            self._client.register_plugin(agent, name=agent.name)
            self._await_hosts()
            if self._results is None:
                self._begin()
            self._started_s = time.monotonic() - self._elapsed_s
            self._loop()
        finally:
            if self._is_connected():
                for each in self._running.values():
                    each.future.cancel()
                with suppress(OSError, TimeoutError):  # of a worker that hangs; what was measured is written
                    self._client.unregister_worker_plugin(agent.name)

    @contextmanager
    def _only_run(self) -> Iterator[None]:
        """Keep other runs from this scheduler, whose agents would replace those of this one. Raises UsageError."""
        lease: Any = cast(Any, Semaphore)(1, "nettool-fleet-run", self._client.scheduler, self._client.loop)
        if not lease.acquire(timeout=RUN_WAIT_S):
            raise UsageError("another 'nettool fleet run' uses this scheduler: wait for its end, or start another one")
        try:
            yield
        finally:
            lease.refresh_callback.stop()
            if self._is_connected():
                with suppress(OSError, TimeoutError):  # then it expires
                    lease.release()

    def _is_connected(self) -> bool:
        return bool(self._client.status == "running")

    def _begin(self) -> None:
        plan = self._mesh.plan
        hosts = {name: each.info for name, each in self.roster.reports().items()}
        self._write(replace(plan.campaign("each host's own memory"), hosts=hosts))

    def _await_hosts(self) -> None:
        """Wait for all hosts, at most for the time of the mesh; two are enough to begin."""
        deadline_s = time.monotonic() + self._mesh.wait_s
        while True:
            self.roster.refresh()
            if self.roster.mismatched:
                name, reason = next(iter(self.roster.mismatched.items()))
                raise UsageError(f"{name} cannot take part: {reason}")
            if len(self.roster.present) == len(self._mesh.hosts):
                return
            if time.monotonic() > deadline_s:
                break
            time.sleep(_LOOK_S)
        if len(self.roster.present) < 2:
            missing = next(name for name in self._mesh.hosts if name not in self.roster.present)
            raise UnreachableError(
                f"fewer than two hosts are there ({missing}: {self.roster.reason(missing)}); docs/fleet.md says how to "
                "start a worker on each"
            )

    def _loop(self) -> None:
        looked_s = 0.0
        while not self.schedule.is_over:
            if time.monotonic() - looked_s > _LOOK_S:
                self.roster.refresh()
                self._look_after_running()
                looked_s = time.monotonic()
            if self._mesh.budget_s is not None and self.now_s() > self._mesh.budget_s:
                self.schedule.visits.clear()
            while (visit := self.schedule.start(self.roster.present)) is not None:
                self._send(visit)
            if not self._running and self._all_missing_for_long():
                self._give_up_missing()
                return
            self._await_result()

    def now_s(self) -> float:
        """How much time the run has taken, without interruptions."""
        return time.monotonic() - self._started_s

    def _send(self, visit: Visit) -> None:
        sender, receiver = visit.pair
        order = TrialOrder(sender, receiver, self.roster.port(receiver), visit.left[0], self._position)
        future = self._client.submit(
            measure,
            order,
            key=f"{sender}-{receiver}-{order.position}-{secrets.token_hex(4)}",
            resources={f"host:{sender}": 1},
            pure=False,
        )
        self._running[visit.pair] = _Running(visit, future, self.roster.address(sender), self.now_s(), order.position)
        self._position += 1
        future.add_done_callback(lambda _future: self._arrived.put(visit.pair))

    def _await_result(self) -> None:
        """Wait until a trial has ended, but not for long: hosts come and go."""
        try:
            pair = self._arrived.get(timeout=_LOOK_S)
        except queue.Empty:
            return
        each = self._running.get(pair)
        if each is None or not each.future.done():
            return
        if each.future.status == "cancelled":  # not by this run, which would have forgotten it
            raise OSError("it has forgotten a trial")
        if each.future.status != "finished":
            error = each.future.exception()
            what = "its worker has ended" if isinstance(error, KilledWorker) else "its worker cannot run a trial"
            self._on_outage(each, pair[0], f"{what}: {printable(str(error))}")
            return
        answer = each.future.result()
        if isinstance(answer, Missing):
            self._on_outage(each, answer.host, answer.reason)
        else:
            self._on_trial(each, answer)

    def _on_trial(self, each: _Running, answer: str) -> None:
        trial = decode(Trial, json.loads(answer))
        self._write(replace(trial, started_s=round(each.started_s, 3), elapsed_s=round(self.now_s(), 3)))
        del self._running[each.visit.pair]
        if not self.schedule.on_trial(each.visit):
            return
        if set(each.visit.pair) <= self.roster.present:
            self._send(each.visit)
        else:
            self._on_outage_of(each.visit, self._absent(each.visit.pair), self.now_s())

    def _look_after_running(self) -> None:
        """Take back the trials whose sender has disappeared, or that take longer than they may."""
        limit_s = self._mesh.plan.limit_s + (self._mesh.plan.time_s or 0.0) + OVERHEAD_S
        for pair, each in list(self._running.items()):
            if each.future.done():
                continue
            sender = pair[0]
            if self.now_s() - each.started_s > limit_s:
                self.roster.distrust(sender)
                self._on_outage(each, sender, f"the trial did not end within {limit_s:.0f} s")
            elif self.roster.address(sender) != each.address:
                reason = "its worker was replaced" if sender in self.roster.present else self.roster.reason(sender)
                self._on_outage(each, sender, f"{reason}, in the middle of a trial")

    def _on_outage(self, each: _Running, host: str, reason: str) -> None:
        each.future.cancel()
        del self._running[each.visit.pair]
        self._on_outage_of(each.visit, (host, reason), each.started_s)

    def _on_outage_of(self, visit: Visit, missing: tuple[str, str], started_s: float) -> None:
        spec = visit.left[0]
        is_final = self.schedule.on_outage(visit)
        self._write_outage(visit, missing, started_s, spec.setting.label, is_final=is_final)

    def _write_outage(
        self, visit: Visit, missing: tuple[str, str], started_s: float, transport: str, *, is_final: bool
    ) -> None:
        host, reason = missing
        self._write(
            Outage(
                path=between(*visit.pair).label,
                block=visit.block,
                transport=transport,
                payload_bytes=visit.left[0].payload_bytes,
                host=host,
                reason=reason,
                attempt=max(1, visit.attempts),
                is_final=is_final,
                started_s=round(started_s, 3),
                elapsed_s=round(self.now_s(), 3),
            )
        )

    def _all_missing_for_long(self) -> bool:
        """Whether each block that is left waits for a host that has been missing for the time of the mesh."""
        gone = {name for name in self._mesh.hosts if self.roster.missing_s(name) > self._mesh.wait_s}
        return all(gone.intersection(visit.pair) for visit in self.schedule.visits)

    def _give_up_missing(self) -> None:
        """Nothing more can run: write for each pair that is not complete which host is missing."""
        for pair in dict.fromkeys(visit.pair for visit in self.schedule.visits):
            visit = next(each for each in self.schedule.visits if each.pair == pair)
            label = visit.left[0].setting.label
            self._write_outage(visit, self._absent(pair), self.now_s(), label, is_final=True)
        self.schedule.visits.clear()

    def _absent(self, pair: Pair) -> tuple[str, str]:
        host = next((each for each in pair if each not in self.roster.present), pair[0])
        return host, self.roster.reason(host)


def _visits(mesh: Mesh, trials: list[Trial]) -> list[Visit]:
    pairs = {between(*pair).label: pair for pair in mesh.pairs}
    done: dict[Pair, set[Any]] = {pair: set() for pair in mesh.pairs}
    for trial in trials:
        if trial.path in pairs:
            done[pairs[trial.path]].add((trial.block, trial.transport, trial.payload_bytes))
    plan = mesh.plan
    return make_visits(mesh.pairs, plan.all_settings, plan.sizes, plan.repeats, plan.seed, done)


def check_resumed(mesh: Mesh, done: Results) -> None:
    """Raise UsageError unless the records are of a run of this mesh, with the same trials."""
    plan, campaign = mesh.plan, done.campaign
    asked = (plan.name, {path.label for path in plan.paths}, {each.label for each in plan.all_settings})
    recorded = (campaign.name, set(campaign.paths), set(campaign.transports))
    if asked != recorded or (list(plan.sizes), plan.time_s, plan.seed, plan.repeats) != (
        list(campaign.sizes),
        campaign.time_s,
        campaign.seed,
        campaign.repeats,
    ):
        raise UsageError("these records are of another mesh, or it has changed since: begin a new file")
