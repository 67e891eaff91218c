"""The testbed of a link: only campaigns over links import this module, and with it pyroute2, which loads slowly."""

import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace

from toolkit.comparison.device import DeviceSettings, device_settings
from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.machine_load import LoadCounters, read_counters
from toolkit.comparison.packet_audit import audit
from toolkit.comparison.packet_counts import PacketAudit
from toolkit.comparison.paths import BenchPath
from toolkit.comparison.ping import NO_PINGS, Pinger
from toolkit.comparison.probe import probe
from toolkit.comparison.records import Probe, Setting
from toolkit.comparison.tcp_metrics import KEPT, NOT_SAVED
from toolkit.comparison.worker_process import WorkerProcess
from toolkit.comparison.worker_protocol import ReceiveJob, SendJob
from toolkit.emulator.interfaces import DEVICE
from toolkit.emulator.link import Link

_DRAIN_LIMIT_S = 3.0
_DRAIN_INTERVAL_S = 0.02


class EmulatedTestbed:
    """The two namespaces of a link on this machine: a LAN or an emulated link."""

    def __init__(self, path: BenchPath) -> None:
        assert path.spec is not None
        self.path = path
        self._link = Link(path.spec)
        self._device: DeviceSettings | None = None
        self._tcp_metrics = ""
        self.host = str(self._link.addresses.far)

    def __enter__(self) -> "EmulatedTestbed":
        self._link.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def probe(self) -> Probe:
        """See `toolkit.comparison.testbed.Testbed`."""
        return probe(self.path, self._link)

    def receiver(self, setting: Setting, job: ReceiveJob) -> WorkerProcess:
        """See `toolkit.comparison.testbed.Testbed`."""
        return WorkerProcess(self._link.popen_far, setting.program, replace(job, bind=self.host))

    def sender(self, setting: Setting, job: Callable[[], SendJob]) -> WorkerProcess:
        """See `toolkit.comparison.testbed.Testbed`."""
        return WorkerProcess(self._link.popen_near, setting.program, job)

    def begin(self, seed: int) -> None:
        """See `toolkit.comparison.testbed.Testbed`."""
        self._link.start_clock(seed)

    def device(self) -> DeviceSettings:
        """See `toolkit.comparison.testbed.Testbed`."""
        if self._device is None:
            with self._link.socket_near(socket.AF_INET, socket.SOCK_DGRAM) as inet:
                self._device = device_settings(DEVICE, *self._link.mtu_and_queue_near(), inet)
        return self._device

    def forget_path(self) -> str:
        """See `toolkit.comparison.testbed.Testbed`. The ends of a link are set to learn nothing."""
        if not self._tcp_metrics:
            setting = ["cat", "/proc/sys/net/ipv4/tcp_no_metrics_save"]
            with self._link.popen_near(setting, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reader:
                answer, _ = reader.communicate()
            self._tcp_metrics = NOT_SAVED if answer.strip() == b"1" else KEPT
        return self._tcp_metrics

    def load_counters(self) -> LoadCounters | None:
        """See `toolkit.comparison.testbed.Testbed`."""
        return read_counters()

    def pinger(self) -> Pinger:
        """See `toolkit.comparison.testbed.Testbed`."""
        return Pinger(self._link.socket_near(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), self.host)

    def account(self, sender: EndpointResult, receiver: EndpointResult, pinger: Pinger | None) -> PacketAudit:
        """See `toolkit.comparison.testbed.Testbed`. Waits until no packet and no ping is in flight."""
        if pinger is not None:
            pinger.stop()
        deadline_s = time.monotonic() + _DRAIN_LIMIT_S
        counts = self._link.accounting()
        while (counts.forward.in_flight or counts.backward.in_flight) and time.monotonic() < deadline_s:
            time.sleep(_DRAIN_INTERVAL_S)
            counts = self._link.accounting()
        return audit(counts, sender, receiver, pinger.collect() if pinger is not None else NO_PINGS)
