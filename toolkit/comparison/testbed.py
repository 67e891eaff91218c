"""Testbeds: where the two endpoints of a trial run, and the path between them. One interface for every kind of path."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from toolkit.comparison.device import DeviceSettings, local_device
from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.machine_load import LoadCounters, read_counters
from toolkit.comparison.packet_counts import PacketAudit
from toolkit.comparison.paths import BenchPath
from toolkit.comparison.ping import Pinger
from toolkit.comparison.records import Probe, Setting
from toolkit.comparison.tcp_metrics import forget
from toolkit.comparison.worker_process import WorkerProcess
from toolkit.comparison.worker_protocol import ReceiveJob, SendJob


class ReceiverHandle(Protocol):
    """The receiving endpoint of one trial; a context manager that ends it."""

    def __enter__(self) -> "ReceiverHandle":
        """Start it."""

    def __exit__(self, *_: object) -> None:
        """End it, unless it has ended."""

    def await_port(self) -> int:
        """The port that it listens on. Raises TransferError."""

    def set_deadline(self, deadline_s: float) -> None:
        """Let the receiver of a timed trial note what has arrived at this time on the monotonic clock."""

    def result(self, limit_s: float, digest: str = "") -> EndpointResult:
        """Its result. A remote receiver finds it by the sender's `digest`. Raises TransferError."""


class Testbed(Protocol):
    """A path with both its endpoints; a context manager that creates and removes it.

    host: address of the receiving endpoint, as the sending one reaches it
    """

    host: str
    path: BenchPath

    def __enter__(self) -> "Testbed":
        """Create it. Raises NettoolError."""

    def __exit__(self, *_: object) -> None:
        """Remove it."""

    def probe(self) -> Probe | None:
        """Measure the path; None if there is nothing to measure."""

    def receiver(self, setting: Setting, job: ReceiveJob) -> ReceiverHandle:
        """Start a receiving endpoint."""

    def sender(self, setting: Setting, job: Callable[[], SendJob]) -> WorkerProcess:
        """Start a sending endpoint; `job` is called when its process has been started."""

    def begin(self, seed: int) -> None:
        """Begin a trial: restart the link with this seed."""

    def device(self) -> DeviceSettings | None:
        """The device through which the sender sends; None where it is not known."""

    def forget_path(self) -> str | None:
        """Let TCP forget what earlier trials taught it about the path; see `TrialConditions.tcp_metrics`."""

    def load_counters(self) -> LoadCounters | None:
        """What this machine has done so far; None where it does not say."""

    def pinger(self) -> Pinger | None:
        """A pinger to measure the delay with; None where pings are not possible, or show nothing."""

    def account(self, sender: EndpointResult, receiver: EndpointResult, pinger: Pinger | None) -> PacketAudit | None:
        """Audit the packets of the trial whose endpoints have ended, and stop the pinger; None without a link."""


class LoopbackTestbed:
    """Both endpoints on this machine, over its loopback interface."""

    host = "127.0.0.1"

    def __init__(self, path: BenchPath) -> None:
        self.path = path

    def __enter__(self) -> "LoopbackTestbed":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def probe(self) -> Probe | None:
        """See Testbed."""
        return None

    def receiver(self, setting: Setting, job: ReceiveJob) -> WorkerProcess:
        """See Testbed."""
        return WorkerProcess(popen, setting.program, replace(job, bind=self.host))

    def sender(self, setting: Setting, job: Callable[[], SendJob]) -> WorkerProcess:
        """See Testbed."""
        return WorkerProcess(popen, setting.program, job)

    def begin(self, _seed: int) -> None:
        """There is no link to restart."""

    def device(self) -> DeviceSettings | None:
        """See Testbed."""
        return local_device("lo")

    def forget_path(self) -> str:
        """See Testbed."""
        return forget(self.host)

    def load_counters(self) -> LoadCounters | None:
        """See Testbed."""
        return read_counters()

    def pinger(self) -> Pinger | None:
        """None: the only queue is the receiver's socket, which a ping does not pass."""
        return None

    def account(self, *_: object) -> None:
        """There is no link to audit."""
        return


def popen(arguments: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process on this machine, in the namespace of this process."""
    return subprocess.Popen(arguments, **options)
