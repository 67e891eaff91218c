"""What `nettool serve` and `nettool bench remote` say to each other, and what neither believes of the other."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli_process import LIMIT_S, NETTOOL
from toolkit.channel import Address, TransportOptions
from toolkit.compare.endpoint_result import EndpointResult
from toolkit.compare.paths import remote
from toolkit.compare.remote import RemoteTestbed
from toolkit.compare.server import CONTROL_SCHEMA, MeasuringServer, ServerLimits
from toolkit.errors import NettoolError, ProtocolError, RefusedError, TransferError
from toolkit.transfer import SendOptions, send
from toolkit.transports.registry import transport

HELLO = {"schema": CONTROL_SCHEMA, "max_bytes": 1 << 40, "next": 1}


@contextmanager
def serving(*options: str) -> Iterator[Address]:
    process = subprocess.Popen(
        [*NETTOOL, "serve", "--port", "0", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        port = process.stderr.readline().split()[2].rpartition(":")[2]
        yield Address("127.0.0.1", int(port))
        process.terminate()
    finally:
        process.communicate(timeout=LIMIT_S)


def place_at(address: Address) -> RemoteTestbed:
    place = RemoteTestbed(remote(address.host), address, 0.0, 1 << 20)
    place.await_peer()
    return place


def digest_of(content: bytes, address: Address, folder: Path) -> str:
    file = folder / "file"
    file.write_bytes(content)
    channel = transport("tcp").connect(address, TransportOptions())
    try:
        report = send(channel, [str(file)], SendOptions())
        channel.close()
    except NettoolError:
        channel.abort()
        raise
    return report.digest


def test_each_gets_the_result_of_its_own_transfer(tmp_path: Path) -> None:
    with serving() as address:
        earlier = place_at(address)
        same = digest_of(b"same", address, tmp_path)
        one, other = place_at(address), place_at(address)
        small = digest_of(b"small", address, tmp_path)
        large = digest_of(b"larger", address, tmp_path)
        assert other.result(large, LIMIT_S).size_bytes == 6
        assert one.result(small, LIMIT_S).size_bytes == 5
        assert earlier.result(same, LIMIT_S).size_bytes == 4
        with pytest.raises(ProtocolError):  # that transfer was before it said hello, and nothing comes any more
            one.result(same, 0.5)


@contextmanager
def answering(*answers: bytes) -> Iterator[Address]:
    """Somebody else's server, one answer a session."""
    listener = transport("tcp").listen(Address("127.0.0.1", 0), TransportOptions())

    def serve() -> None:
        for answer in answers:
            channel = listener.accept(LIMIT_S)
            assert channel is not None
            channel.receive(timeout_s=LIMIT_S)
            channel.send_message(answer)
            channel.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.address
    finally:
        thread.join(LIMIT_S)
        listener.close()


@pytest.mark.parametrize(
    "told",
    [
        '{"cpu_seconds": NaN}',
        '{"cpu_seconds": 1e999}',
        '{"cpu_seconds": "much"}',
        '{"seconds": [1]}',
        '{"digest": 7}',
        '{"bytes": 1' + "0" * 400 + "}",
    ],
)
def test_nonsense_of_the_other_end_is_not_believed(told: str) -> None:
    answer = f'{{"schema": {CONTROL_SCHEMA}, "result": {told}}}'.encode()
    with answering(json.dumps(HELLO).encode(), answer) as address:
        place = place_at(address)
        with pytest.raises(ProtocolError, match="invalid"):
            place.result("", LIMIT_S)


def test_its_texts_are_fit_to_be_printed() -> None:
    result = {"error": "\x1b[31mred" + "x" * 10_000, "digest": "00", "bytes": 5, "peak_memory_bytes": None}
    answer = json.dumps({"schema": CONTROL_SCHEMA, "result": result}).encode()
    with answering(json.dumps(HELLO).encode(), answer) as address:
        told = place_at(address).result("", LIMIT_S)
    assert told.error is not None
    assert told.error.isprintable()
    assert len(told.error) < 1000
    assert told == EndpointResult(size_bytes=5, digest="00", error=told.error)


@pytest.mark.parametrize(
    ("hello", "kind"),
    [
        ({**HELLO, "max_bytes": 1000}, RefusedError),
        ({**HELLO, "max_bytes": "many"}, ProtocolError),
        ({**HELLO, "next": None}, ProtocolError),
        ({**HELLO, "schema": 1}, RefusedError),
    ],
)
def test_an_end_that_cannot_serve_is_refused_at_once(hello: dict[str, Any], kind: type[NettoolError]) -> None:
    with answering(json.dumps(hello).encode()) as address, pytest.raises(kind):
        place_at(address)


@pytest.mark.parametrize(
    "question",
    [
        b"{",
        b'{"ask": 5}',
        b'{"ask": "result"}',
        b'{"ask": "result", "digest": "", "since": "x"}',
        b'{"ask": "result", "digest": "", "since": 1e999}',
        b"{" * 10_000,
    ],
)
def test_a_peer_that_asks_nonsense_is_not_served_and_the_next_one_is(question: bytes) -> None:
    with serving() as address:
        channel = transport("tcp").connect(address, TransportOptions())
        channel.send_message(question)
        with pytest.raises(TransferError):
            channel.receive(timeout_s=LIMIT_S)
        channel.abort()
        place_at(address)


def serve_here(limits: ServerLimits, tell: Callable[[str, object], None], client: Callable[[Address], None]) -> None:
    """Serve in this process as long as the client takes."""
    end = MeasuringServer({"tcp": transport("tcp")}, Address("127.0.0.1", 0), limits, tell)

    def run() -> None:
        try:
            client(Address("127.0.0.1", end.port))
        finally:
            os.kill(os.getpid(), signal.SIGALRM)  # its time is up

    thread = threading.Thread(target=run)
    thread.start()
    end.run()
    thread.join()


def test_a_defect_that_one_peer_finds_does_not_end_the_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[str] = []
    is_told = threading.Event()

    def tell(line: str, _fields: object) -> None:
        told.append(line)
        is_told.set()

    def broken(*_: object, **__: object) -> None:
        raise KeyError(5)

    def attack(address: Address) -> None:
        with pytest.raises(TransferError):
            digest_of(b"x", address, tmp_path)
        is_told.wait(LIMIT_S)
        place_at(address)
        told.append("and it goes on")

    monkeypatch.setattr("toolkit.compare.server.receive_and_discard", broken)
    serve_here(ServerLimits(1 << 20, 60.0, None, 60.0), tell, attack)
    assert "unexpected KeyError" in told[0]
    assert told[1:] == ["and it goes on"]


@pytest.mark.parametrize(("left_s", "timers_s"), [(60.0, [60.0, 5.0, 0]), (3.0, [60.0, 0])])
def test_after_its_last_transfer_it_ends_soon_and_never_later_than_it_was_to(
    left_s: float, timers_s: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_s: list[float] = []
    monkeypatch.setattr(signal, "setitimer", lambda _kind, seconds: set_s.append(seconds))
    monkeypatch.setattr(signal, "getitimer", lambda _kind: (left_s, 0.0))
    told = threading.Semaphore(0)

    def ask_for_more(address: Address) -> None:
        digest_of(b"x", address, tmp_path)
        for _ in range(2):
            with pytest.raises(NettoolError):
                digest_of(b"x", address, tmp_path)
        for _ in range(3):
            assert told.acquire(timeout=LIMIT_S)

    serve_here(ServerLimits(1 << 20, 60.0, 1, 60.0), lambda _line, _fields: told.release(), ask_for_more)
    assert set_s == timers_s
