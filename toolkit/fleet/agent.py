"""What runs on the hosts of a fleet, inside dask's workers: the receiving end, and one trial after the other.

Only imported where dask is installed.

A trial holds both its hosts. The driver sends it only when both are free; that alone would be a belief about machines
far away, wrong for example when a worker is taken for dead and still sends. So each trial also takes a *lease* on both
hosts from the scheduler (distributed.Semaphore), in the order of their addresses, so that two trials cannot wait for
each other. While all goes well it is free and costs a round trip to the scheduler. The lease of a worker that dies ends
by itself after half a minute (distributed.scheduler.locks.lease-timeout), when its transfer has ended too.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from distributed import Semaphore, WorkerPlugin, get_worker

from toolkit.channel import Address
from toolkit.comparison.host_info import HostInfo, host_info
from toolkit.comparison.json_codec import encode
from toolkit.comparison.paths import between
from toolkit.comparison.plan import TrialSpec
from toolkit.comparison.remote import RemoteTestbed
from toolkit.comparison.trial import TrialRunner
from toolkit.comparison.workspace import Workspace, workspace
from toolkit.errors import NettoolError, UnreachableError
from toolkit.fleet.receiver import ReceiverProcess
from toolkit.security.credentials import KeyCredential

PLUGIN = "nettool-fleet"
PEER_WAIT_S = 5.0
"""How long a trial waits for the receiving host to answer."""
LEASE_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class FleetJob:
    """What every host of a run gets to know.

    addresses: name -> address of every host
    key:       32 random bytes, made for this run
    sizes, time_s, seed, limit_s: as in `toolkit.comparison.plan.Plan`
    plaintext: whether some transport goes without encryption
    """

    addresses: Mapping[str, str]
    port: int
    key: bytes = field(repr=False)
    sizes: Sequence[int]
    time_s: float | None
    seed: int
    limit_s: float
    plaintext: bool


@dataclass(frozen=True, slots=True)
class HostReport:
    """What a host says of itself. port: where it receives; error: why it does not, or empty."""

    info: HostInfo
    port: int
    error: str


@dataclass(frozen=True, slots=True)
class TrialOrder:
    """One trial: `port` is the receiver's, `position` and `spec` as in `TrialRunner.run`."""

    sender: str
    receiver: str
    port: int
    spec: TrialSpec
    position: int


@dataclass(frozen=True, slots=True)
class Missing:
    """Instead of a trial: a host that was not there, and what was seen."""

    host: str
    reason: str


class FleetAgent(WorkerPlugin):
    """Starts the receiving end on each worker that is a host of the run, also on those that come later or come back."""

    name = PLUGIN

    def __init__(self, job: FleetJob) -> None:
        self.job = job
        self.host = ""
        self.receiver: ReceiverProcess | None = None
        self.error = "its worker is no host of this fleet"
        self.files: Workspace | None = None
        self._open = ExitStack()

    def setup(self, worker: Any) -> None:
        """See WorkerPlugin. A failure is kept for `report`: the worker would end with an exception."""
        self.host, job = str(worker.name), self.job
        address = job.addresses.get(self.host)
        if address is None:
            return
        try:
            self.receiver = ReceiverProcess(address, job.port, job.key, job.limit_s, plaintext=job.plaintext)
            self._open.callback(self.receiver.close)
            sizes = [] if job.time_s is not None else job.sizes
            self.files = self._open.enter_context(workspace(sizes, job.seed, None))
            self.receiver.remove_at_end(self.files.folder)
            self.error = ""
        except (NettoolError, OSError) as error:
            self.error = str(error)

    def teardown(self, worker: Any) -> None:  # noqa: ARG002
        """See WorkerPlugin."""
        self._open.close()

    def report(self) -> HostReport:
        """What this host says of itself."""
        if self.receiver is not None and not self.receiver.is_alive:
            self.error = "its receiver has ended"
        return HostReport(host_info(), self.receiver.port if self.receiver is not None else 0, self.error)

    def measure(self, order: TrialOrder) -> str | Missing:
        """Run a trial from this host; its record as JSON."""
        job, path = self.job, between(order.sender, order.receiver)
        if self.files is None:
            return Missing(order.sender, self.error)
        address = Address(job.addresses[order.receiver], order.port)
        needs_plaintext = not order.spec.setting.is_encrypted
        testbed = RemoteTestbed(
            path, address, PEER_WAIT_S, max(job.sizes), KeyCredential(job.key), needs_plaintext=needs_plaintext
        )
        with _leases(job.addresses[order.sender], job.addresses[order.receiver]) as are_held:
            if not are_held:
                return Missing(order.receiver, "one of the two hosts is still held by another trial")
            runner = TrialRunner(testbed, self.files, limit_s=job.limit_s, time_s=job.time_s, seed=job.seed)
            trial = runner.run(order.spec, order.position, 0)
            if not trial.verified:
                try:
                    testbed.await_peer()
                except UnreachableError as error:  # not the transport has failed: the host, or the way to it, is gone
                    return Missing(order.receiver, str(error))
                except NettoolError:
                    pass
        return json.dumps(encode(trial), allow_nan=False)


def measure(order: TrialOrder) -> str | Missing:
    """The task of a trial, on the sender's worker."""
    return _agent().measure(order)


def report() -> HostReport:
    """The task that asks a host about itself."""
    return _agent().report()


def _agent() -> FleetAgent:
    return cast(FleetAgent, get_worker().plugins[PLUGIN])


@contextmanager
def _leases(*addresses: str) -> Iterator[bool]:
    """Hold the hosts while the block runs; whether they are held, which may take until LEASE_WAIT_S."""
    with ExitStack() as held:
        for address in sorted(addresses):
            lease: Any = cast(Any, Semaphore)(max_leases=1, name=f"nettool-host-{address}")
            if not lease.acquire(timeout=LEASE_WAIT_S):
                yield False
                return
            held.callback(lease.release)
        yield True
