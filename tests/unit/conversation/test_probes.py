"""When the reply to a probe has arrived."""

import socket
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.support.background import wait_until
from toolkit.channel import Address
from toolkit.conversation.probes import DatagramEcho, EchoPath, StreamEcho

ASLEEP_S = 0.02


def over_udp() -> tuple[EchoPath, socket.socket]:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    path = DatagramEcho(Address("127.0.0.1", server.getsockname()[1]), 1.0)
    path.send(b"probe")
    server.connect(server.recvfrom(100)[1])
    return path, server


def over_tcp() -> tuple[EchoPath, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        path = StreamEcho(Address("127.0.0.1", listener.getsockname()[1]), 1.0, 5)
        path.send(b"probe")
        server, _ = listener.accept()
    assert server.recv(5, socket.MSG_WAITALL) == b"probe"
    return path, server


@pytest.mark.parametrize("connect", [over_udp, over_tcp])
def test_a_reply_has_arrived_when_the_kernel_has_it(connect: Callable[[], tuple[EchoPath, socket.socket]]) -> None:
    path, server = connect()

    def is_stamped() -> bool:
        before_ns = time.monotonic_ns()
        server.send(b"reply")
        time.sleep(ASLEEP_S)  # as a program that something else keeps from running
        reply = path.receive(1.0)
        assert reply is not None
        assert reply.data == b"reply"
        assert reply.arrived_ns >= before_ns
        return reply.arrived_ns < before_ns + ASLEEP_S * 1e9

    with closing(path), server:
        wait_until(is_stamped, "a time stamp of the kernel, which begins a moment after it was asked to")
