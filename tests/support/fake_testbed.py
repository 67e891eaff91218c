"""A testbed without processes and without a path: its endpoints and its audit have a fixed outcome."""

from types import TracebackType

from toolkit.compare.endpoint_result import EndpointResult
from toolkit.compare.paths import BenchPath
from toolkit.compare.records import PacketAudit
from toolkit.errors import TransferError


class FakeEndpoint:
    """Stands for a worker process: ready at once, with a fixed result, or an error instead."""

    def __init__(self, result: EndpointResult | TransferError) -> None:
        self._result = result

    def __enter__(self) -> "FakeEndpoint":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return

    def await_port(self) -> int:
        return 9

    def await_ready(self) -> None:
        return

    def go(self) -> None:
        return

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
        self._sender, self._receiver, self._ledger = sender, receiver, ledger

    def receiver(self, *_: object) -> FakeEndpoint:
        return FakeEndpoint(self._receiver)

    def sender(self, *_: object) -> FakeEndpoint:
        return FakeEndpoint(self._sender)

    def __enter__(self) -> "FakeTestbed":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return

    def probe(self) -> None:
        return

    def begin(self, _seed: int) -> None:
        return

    def pinger(self) -> None:
        return

    def account(self, *_: object) -> PacketAudit | None:
        return self._ledger
