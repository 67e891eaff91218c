"""Traced sockets and files stand in the place of the system's own only while the block runs."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from toolkit.tracing.call import Call, CallTrace
from toolkit.tracing.interpose import interposed
from toolkit.transports.udp import mmsg


def test_everything_is_the_systems_own_before_and_after() -> None:
    before = socket.socket, os.open, os.pwrite, mmsg.recvmmsg
    with interposed(CallTrace(lambda _: None), is_textbook=True):
        assert socket.socket is not before[0]
    assert (socket.socket, os.open, os.pwrite, mmsg.recvmmsg) == before


@pytest.mark.parametrize("is_textbook", [False, True])
def test_failed_calls_are_shown_with_the_name_of_the_error(is_textbook: bool) -> None:
    calls: list[Call] = []
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # does not listen
        with interposed(CallTrace(calls.append), is_textbook), socket.socket() as client:
            assert client.connect_ex(bound.getsockname()) == 111
    assert [(call.name, call.result) for call in calls if call.name == "connect"] == [("connect", "ECONNREFUSED")]


def test_the_end_of_a_socket_tells_whether_it_had_a_connection() -> None:
    calls: list[Call] = []
    with interposed(CallTrace(calls.append)), socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        with socket.socket() as refused:
            refused.connect_ex(listener.getsockname())
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0]:
            pass
    meanings = [call.meaning for call in calls if call.name == "close"]
    connected = "of the connection: both sides have sent their FIN, or send it now"
    assert meanings == [
        "of the socket: it has no connection that could end", connected, connected,
        "of the listener: its port is free again"
    ]  # fmt: skip


def test_a_socket_that_wakes_a_thread_is_not_shown(tmp_path: Path) -> None:
    calls: list[Call] = []
    with interposed(CallTrace(calls.append)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.send(b"x")
            assert theirs.recv(1) == b"x"
        descriptor = os.open(tmp_path / "mine", os.O_CREAT | os.O_RDWR)  # no module of the transfer opens it
        os.write(descriptor, b"x")
        os.close(descriptor)
    assert calls == []


def test_what_waits_for_data_is_counted_and_not_shown() -> None:
    calls: list[Call] = []
    trace = CallTrace(calls.append)
    with interposed(trace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recvfrom(100)
    assert [call.name for call in calls] == ["socket", "close"]
    assert trace.not_shown == {"recvfrom() that found nothing to do yet": 1}


def test_an_error_without_a_number_is_told_in_its_own_words() -> None:
    calls: list[Call] = []
    with interposed(CallTrace(calls.append)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.001)
        with pytest.raises(TimeoutError):
            sock.recv(100)
    assert [(call.result, call.meaning) for call in calls if call.name == "recv"] == [("TimeoutError", "timed out")]


def send_until_it_would_block(sock: socket.socket, file: BinaryIO) -> None:
    while os.sendfile(sock.fileno(), file.fileno(), 0, 1 << 24):
        pass


def test_a_file_that_waits_for_a_socket_is_counted_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 24))
    calls: list[Call] = []
    trace = CallTrace(calls.append)
    ours, theirs = socket.socketpair()
    with ours, theirs, path.open("rb") as file, interposed(trace):
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            send_until_it_would_block(ours, file)
    assert {call.result for call in calls}.isdisjoint({"EAGAIN"})
    assert trace.not_shown == {"sendfile() that found nothing to do yet": 1}


def test_bytes_of_any_other_program_are_not_called_nettools() -> None:
    calls: list[Call] = []
    with socket.create_server(("127.0.0.1", 0)) as server, interposed(CallTrace(calls.append), is_textbook=True):
        with socket.create_connection(server.getsockname()) as client:
            client.send(b"hello")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.sendto(b"hello", server.getsockname())
    assert [call.kind for call in calls if call.size_bytes] == ["stream", "datagram"]


def test_a_socket_that_outlives_the_trace_reports_nothing_more() -> None:
    calls: list[Call] = []
    trace = CallTrace(calls.append)
    with interposed(trace):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    trace.end()
    sock.close()
    assert [call.name for call in calls] == ["socket"]


def test_a_textbooks_calls_read_where_they_were_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    calls: list[Call] = []
    with interposed(CallTrace(calls.append), is_textbook=True):
        followed: dict[str, Any] = {"__name__": "toolkit.transfer.example", "os": os, "path": path}
        descriptor = eval("os.open(path, os.O_RDWR)", followed)
        assert os.read(descriptor, 4) == b"0123"
        assert os.pread(descriptor, 2, 0) == b"01"  # not where `read` has left the file
        copy = os.dup(descriptor)  # it shares the place
        assert os.pread(copy, 2, 2) == b"23"
        assert os.pwrite(descriptor, b"xy", 4) == 2
        assert os.pread(copy, 3, 0) == b"012"
        os.close(copy)
        os.close(descriptor)
    assert path.read_bytes() == b"0123xy6789"
    assert [call.name for call in calls].count("lseek") == 2  # from 4 to 0, and from 6 to 0
    assert calls[0].meaning == "this file is open to write: it was begun before"


def test_what_waits_for_a_peer_stands_behind_what_the_peer_did() -> None:
    calls: list[Call] = []
    with interposed(CallTrace(calls.append)), socket.socket() as listener, ThreadPoolExecutor() as pool:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        accepted = pool.submit(listener.accept)
        with socket.socket() as client:
            client.connect(listener.getsockname())
            with accepted.result()[0] as server:
                echoed = pool.submit(server.recv, 1)
                client.send(b"x")
                assert echoed.result() == b"x"
    by_time = [call.name for call in sorted(calls, key=lambda call: call.time_s)]
    assert by_time.index("connect") < by_time.index("accept")
    assert by_time.index("send") < by_time.index("recv")
