"""A client whose peer is silent, or answers and then leaves it at that."""

import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.background import PATIENCE_S, Background
from toolkit.channel import Address, TransportOptions
from toolkit.errors import IncompleteHandshakeError, UnreachableError
from toolkit.transports.udp.connect import UdpTransport


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(PATIENCE_S)
        yield made


def connect(peer: socket.socket, options: TransportOptions) -> None:
    UdpTransport().connect(Address("127.0.0.1", peer.getsockname()[1]), options)


def test_silence_ends_an_attempt_before_its_time_is_up(peer: socket.socket) -> None:
    started_s = time.monotonic()
    with pytest.raises(UnreachableError, match="does not answer over UDP") as caught:
        connect(peer, TransportOptions(connect_timeout_s=2 * PATIENCE_S, silence_timeout_s=0.05))
    assert not isinstance(caught.value, IncompleteHandshakeError)
    assert time.monotonic() - started_s < PATIENCE_S


def test_a_peer_that_answers_and_goes_no_further_is_no_silent_one(peer: socket.socket) -> None:
    def answer() -> None:
        _, sender = peer.recvfrom(1 << 16)
        peer.sendto(b"something", sender)

    answering = Background(answer)
    with pytest.raises(IncompleteHandshakeError, match="answers over UDP, but no connection came about"):
        connect(peer, TransportOptions(connect_timeout_s=0.5))
    answering.outcome()


def test_a_peer_that_answers_and_ends_is_no_silent_one(peer: socket.socket) -> None:
    def answer_and_end() -> None:
        _, sender = peer.recvfrom(1 << 16)
        peer.sendto(b"something", sender)
        peer.close()

    answering = Background(answer_and_end)
    with pytest.raises(IncompleteHandshakeError):
        connect(peer, TransportOptions(connect_timeout_s=PATIENCE_S))
    answering.outcome()
