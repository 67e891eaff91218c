"""Testbeds without processes and without a path: what their endpoints report is fixed, or drawn from a seed."""

import random
from collections.abc import Callable
from types import TracebackType

from toolkit.comparison.device import DeviceSettings
from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.machine_load import LoadCounters
from toolkit.comparison.packet_counts import PacketAudit
from toolkit.comparison.paths import BenchPath
from toolkit.comparison.records import Setting
from toolkit.comparison.worker_protocol import SendJob
from toolkit.errors import TransferError


class FakeEndpoint:
    """Stands for a worker process: ready at once, with a fixed result, or an error instead."""

    def __init__(self, result: EndpointResult | TransferError, calls: list[str]) -> None:
        """`calls` gets the names of those whose order matters."""
        self._result = result
        self._calls = calls

    def __enter__(self) -> "FakeEndpoint":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return

    def await_port(self) -> int:
        return 9

    def await_ready(self) -> None:
        return

    def go(self) -> None:
        self._calls.append("go")

    def set_deadline(self, _deadline_s: float) -> None:
        self._calls.append("set_deadline")

    def result(self, _limit_s: float, _digest: str = "") -> EndpointResult:
        if isinstance(self._result, TransferError):
            raise self._result
        return self._result


class FakeTestbed:
    """A testbed whose endpoints and audit have a fixed outcome."""

    host = "192.0.2.1"

    def __init__(
        self,
        path: BenchPath,
        sender: EndpointResult | TransferError,
        receiver: EndpointResult | TransferError,
        ledger: PacketAudit | None = None,
    ) -> None:
        self.path = path
        self.loads: list[LoadCounters] = []
        self.jobs: list[SendJob] = []
        self.calls: list[str] = []
        self._sender, self._receiver, self._ledger = sender, receiver, ledger

    def receiver(self, *_: object) -> FakeEndpoint:
        return FakeEndpoint(self._receiver, self.calls)

    def sender(self, _setting: Setting, job: Callable[[], SendJob]) -> FakeEndpoint:
        self.jobs.append(job())
        return FakeEndpoint(self._sender, self.calls)

    def __enter__(self) -> "FakeTestbed":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return

    def probe(self) -> None:
        return

    def begin(self, _seed: int) -> None:
        return

    def device(self) -> DeviceSettings:
        return DeviceSettings("link0", "noqueue", 1500, {"generic-segmentation-offload": True})

    def forget_path(self) -> str:
        return "not-saved"

    def load_counters(self) -> LoadCounters | None:
        return self.loads.pop(0) if self.loads else None

    def pinger(self) -> None:
        return

    def account(self, *_: object) -> PacketAudit | None:
        return self._ledger


class Clock:
    """A monotonic clock that somebody moves; it stands for the module `time`."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s


class NoisyTestbed(FakeTestbed):
    """A testbed whose transfers vary; the same transport varies alike under the same seed. A trial takes a second."""

    def __init__(self, path: BenchPath, noise: float, clock: Clock) -> None:
        """`noise`: standard deviation of the logarithm of a goodput."""
        super().__init__(path, EndpointResult(), EndpointResult())
        self._noise = noise
        self._clock = clock
        self._label = ""

    def sender(self, *arguments: object) -> FakeEndpoint:
        setting = arguments[0]
        assert isinstance(setting, Setting)
        self._label = setting.label
        return _NoisySender(self)

    def begin(self, seed: int) -> None:
        self._clock.now_s += 1.0
        factor = random.Random(f"{self._label} {seed}").lognormvariate(0, self._noise)
        self.result = EndpointResult(seconds=0.1 / factor, is_delivered=True, goodput_bps=1e6 * factor)


class _NoisySender(FakeEndpoint):
    def __init__(self, testbed: NoisyTestbed) -> None:
        super().__init__(EndpointResult(), testbed.calls)
        self._testbed = testbed

    def result(self, _limit_s: float, _digest: str = "") -> EndpointResult:
        return self._testbed.result
