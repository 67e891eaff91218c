"""The questions that `nettool bench remote` asks `nettool serve`, and the answers that neither accepts."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.background import running
from tests.support.cli_process import LIMIT_S, NETTOOL
from toolkit.channel import Address, TransportOptions
from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.paths import remote
from toolkit.comparison.remote import RemoteTestbed
from toolkit.comparison.reverse import ContentOrder, receive_asked
from toolkit.comparison.server import CONTROL_SCHEMA, MeasuringServer, ServerLimits
from toolkit.errors import NettoolError, PeerClosedError, ProtocolError, RefusedError, TransferError
from toolkit.security.admission import Admission, OpenAdmission
from toolkit.security.code_admission import CodeAdmission
from toolkit.security.credentials import Credential
from toolkit.transfer import SendOptions, send
from toolkit.transfer.messages import Alive
from toolkit.transports.registry import transport

HELLO = {"schema": CONTROL_SCHEMA, "max_bytes": 1 << 40, "next": 1}


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    """Where a `nettool serve` of its own process listens."""
    command = [*NETTOOL, "serve", "--port", "0"]
    null = subprocess.DEVNULL
    with running(command, stdin=null, stdout=null, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = process.stderr.readline().split()[2].rpartition(":")[2]
        yield Address("127.0.0.1", int(port))


def connected_testbed(
    address: Address, credential: Credential | None = None, *, needs_plaintext: bool = False
) -> RemoteTestbed:
    testbed = RemoteTestbed(remote(address.host), address, 0.0, 1 << 20, credential, needs_plaintext=needs_plaintext)
    testbed.await_peer()
    return testbed


def digest_of(content: bytes, address: Address, folder: Path) -> str:
    """Send the content; its digest."""
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


def test_each_gets_the_result_of_its_own_transfer(address: Address, tmp_path: Path) -> None:
    earlier = connected_testbed(address)
    same = digest_of(b"same", address, tmp_path)
    one, other = connected_testbed(address), connected_testbed(address)
    small = digest_of(b"small", address, tmp_path)
    large = digest_of(b"larger", address, tmp_path)
    assert other.result(large, LIMIT_S).size_bytes == 6
    assert one.result(small, LIMIT_S).size_bytes == 5
    assert earlier.result(same, LIMIT_S).size_bytes == 4
    with pytest.raises(ProtocolError):  # that transfer ended before this testbed connected, and no other follows
        one.result(same, 0.5)


@contextmanager
def answering(*answers: bytes, admission: Admission | None = None) -> Iterator[Address]:
    """A server that gives one of the answers in each session."""
    options = TransportOptions(admission=admission or OpenAdmission())
    listener = transport("tcp").listen(Address("127.0.0.1", 0), options)

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
    "result",
    [
        '{"cpu_seconds": NaN}',
        '{"cpu_seconds": 1e999}',
        '{"cpu_seconds": "much"}',
        '{"seconds": [1]}',
        '{"digest": 7}',
        '{"unknown": "text"}',
        '{"series": {"t_s": [1]}}',
        '{"bytes": 1' + "0" * 400 + "}",
    ],
)
def test_an_invalid_result_is_refused(result: str) -> None:
    answer = f'{{"schema": {CONTROL_SCHEMA}, "result": {result}}}'.encode()
    with answering(json.dumps(HELLO).encode(), answer) as impostor:
        testbed = connected_testbed(impostor)
        with pytest.raises(ProtocolError, match="invalid"):
            testbed.result("", LIMIT_S)


def test_texts_of_a_result_are_made_printable() -> None:
    result = {"error": "\x1b[31mred" + "x" * 10_000, "digest": "00", "bytes": 5, "peak_memory_bytes": None}
    answer = json.dumps({"schema": CONTROL_SCHEMA, "result": result}).encode()
    with answering(json.dumps(HELLO).encode(), answer) as impostor:
        received = connected_testbed(impostor).result("", LIMIT_S)
    assert received.error is not None
    assert received.error.isprintable()
    assert len(received.error) < 1000
    assert received == EndpointResult(size_bytes=5, digest="00", error=received.error)


@pytest.mark.parametrize(
    ("hello", "kind"),
    [
        ({**HELLO, "max_bytes": 1000}, RefusedError),
        ({**HELLO, "max_bytes": "many"}, ProtocolError),
        ({**HELLO, "max_bytes": -(10**400)}, ProtocolError),
        ({**HELLO, "next": None}, ProtocolError),
        ({**HELLO, "schema": 1}, RefusedError),
    ],
)
def test_a_server_that_cannot_measure_is_refused_at_once(hello: dict[str, Any], kind: type[NettoolError]) -> None:
    with answering(json.dumps(hello).encode()) as impostor, pytest.raises(kind):
        connected_testbed(impostor)


def test_a_server_that_never_answers_a_probe_does_not_hold_up_the_campaign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.comparison.remote._END_LIMIT_S", 0.2)
    listener = transport("udp").listen(Address("127.0.0.1", 0), TransportOptions())

    def stay_alive() -> None:
        channel = listener.accept(LIMIT_S)
        assert channel is not None
        with suppress(PeerClosedError):
            while True:
                channel.receive(timeout_s=0.05)
                channel.send_message(Alive().encode())
        channel.abort()

    thread = threading.Thread(target=stay_alive)
    thread.start()
    testbed = RemoteTestbed(remote("127.0.0.1"), listener.address, 0.0, 0)
    try:
        assert testbed.probe().text == "UDP could not be measured (a transfer was not verified 200 ms after its end)"
    finally:
        thread.join(LIMIT_S)
        listener.close()


def test_a_server_that_allows_no_plaintext_is_refused_before_the_first_trial(address: Address) -> None:
    connected_testbed(address)
    with pytest.raises(RefusedError, match=r"with --plaintext, or leave \+plaintext out of `transports`"):
        connected_testbed(address, needs_plaintext=True)


@pytest.mark.parametrize("answer", [None, 1, "yes"])
def test_an_answer_that_does_not_say_so_allows_no_plaintext(answer: object) -> None:
    hello = json.dumps({**HELLO, "plaintext": answer}).encode()
    with answering(hello) as impostor, pytest.raises(RefusedError, match="does not allow plaintext"):
        connected_testbed(impostor, needs_plaintext=True)


@pytest.mark.parametrize("key", [None, 5, "", "0f" * 31, "0f" * 33, "zz" * 32])
def test_a_server_that_admits_by_code_has_to_give_a_key(key: object) -> None:
    admission = CodeAdmission(lambda *_: None, lambda _: None)
    assert admission.code is not None
    credential = admission.code.credential
    hello = json.dumps({**HELLO, "key": key}).encode()
    with answering(hello, admission=admission) as impostor, pytest.raises(ProtocolError, match="nettool serve"):
        connected_testbed(impostor, credential)


def test_only_those_whom_a_code_has_let_in_get_the_key(address: Address) -> None:
    channel = transport("tcp").connect(address, TransportOptions())
    channel.send_message(b'{"ask": "hello"}')
    answer = channel.receive(timeout_s=LIMIT_S)
    channel.close()
    assert answer is not None
    assert "key" not in json.loads(answer)


@pytest.mark.parametrize(
    "question",
    [
        b"{",
        b'{"ask": 5}',
        b'{"ask": "result"}',
        b'{"ask": "result", "digest": "", "since": "x"}',
        b'{"ask": "result", "digest": "", "since": 1e999}',
        b'{"ask": "send"}',
        b'{"ask": "send", "time_s": 1, "size_bytes": 1}',
        b"{" * 10_000,
    ],
)
def test_an_invalid_question_is_refused_and_the_next_peer_is_served(question: bytes, address: Address) -> None:
    channel = transport("tcp").connect(address, TransportOptions())
    channel.send_message(question)
    with pytest.raises(TransferError):
        channel.receive(timeout_s=LIMIT_S)
    channel.abort()
    connected_testbed(address)


@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_the_result_of_what_was_sent_has_its_samples(name: str, address: Address) -> None:
    testbed = connected_testbed(address)
    order = ContentOrder(0.0, 0.2, None, 1, None, None, None, 1 << 14)
    with closing(transport(name).connect(address, TransportOptions())) as channel:
        received = receive_asked(channel, order)
    sent = testbed.result(received.digest or "", LIMIT_S)
    assert sent.size_bytes == received.size_bytes
    assert sent.error is None
    assert sent.series is not None
    assert sent.series.delivered_bytes[-1] > 0


def test_in_reverse_the_machine_that_sends_forgets_the_path(address: Address) -> None:
    path = remote(address.host, is_reverse=True)
    assert RemoteTestbed(path, address, 0.0, 0).forget_path() in ("not-saved", "flushed", "kept")
    strange = json.dumps({"schema": CONTROL_SCHEMA, "tcp_metrics": "\x1b"}).encode()
    with answering(strange) as impostor, pytest.raises(ProtocolError):
        RemoteTestbed(path, impostor, 0.0, 0).forget_path()


def serve_here(
    limits: ServerLimits, on_session: Callable[[str, object], None], client: Callable[[Address], None]
) -> None:
    """Serve in this process until the client returns."""
    server = MeasuringServer({"tcp": transport("tcp")}, Address("127.0.0.1", 0), limits, on_session)

    def run() -> None:
        try:
            client(Address("127.0.0.1", server.port))
        finally:
            os.kill(os.getpid(), signal.SIGALRM)  # the time limit

    thread = threading.Thread(target=run)
    thread.start()
    server.run()
    thread.join()


def test_a_defect_that_one_peer_triggers_does_not_end_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines: list[str] = []
    is_reported = threading.Event()

    def on_session(line: str, _session: object) -> None:
        lines.append(line)
        is_reported.set()

    def broken(*_: object, **__: object) -> None:
        raise KeyError(5)

    def attack(address: Address) -> None:
        with pytest.raises(TransferError):
            digest_of(b"x", address, tmp_path)
        is_reported.wait(LIMIT_S)
        connected_testbed(address)
        lines.append("the service continues")

    monkeypatch.setattr("toolkit.comparison.server.receive_and_discard", broken)
    serve_here(ServerLimits(1 << 20, 60.0, None, 60.0), on_session, attack)
    assert "unexpected KeyError" in lines[0]
    assert lines[1:] == ["the service continues"]


@pytest.mark.parametrize(("left_s", "timers_s"), [(60.0, [60.0, 5.0, 0]), (3.0, [60.0, 0])])
def test_after_its_last_transfer_it_exits_soon_and_never_after_its_time_limit(
    left_s: float, timers_s: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_s: list[float] = []
    monkeypatch.setattr(signal, "setitimer", lambda _kind, seconds: set_s.append(seconds))
    monkeypatch.setattr(signal, "getitimer", lambda _kind: (left_s, 0.0))
    reported = threading.Semaphore(0)

    def send_too_often(address: Address) -> None:
        digest_of(b"x", address, tmp_path)
        for _ in range(2):
            with pytest.raises(NettoolError):
                digest_of(b"x", address, tmp_path)
        for _ in range(3):
            assert reported.acquire(timeout=LIMIT_S)

    serve_here(ServerLimits(1 << 20, 60.0, 1, 60.0), lambda _line, _session: reported.release(), send_too_often)
    assert set_s == timers_s
