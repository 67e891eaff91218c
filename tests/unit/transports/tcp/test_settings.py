"""What the user's options become at a TCP socket."""

import socket

import pytest

from toolkit.channel import TransportOptions
from toolkit.transports.tcp.settings import configure


@pytest.mark.parametrize("streams", [1, 4])
def test_at_a_limited_rate_a_tenth_of_a_second_waits_in_the_kernel_so_that_a_last_message_is_early(
    streams: int,
) -> None:
    with socket.socket() as sock:
        configure(sock, TransportOptions(rate_bps=80e6, streams=streams))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 1_000_000 // streams


def test_what_may_wait_can_be_given() -> None:
    with socket.socket() as sock:
        configure(sock, TransportOptions(rate_bps=80e6, backlog_bytes=50_000))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 50_000


@pytest.mark.parametrize("options", [TransportOptions(rate_bps=1e15), TransportOptions(backlog_bytes=1 << 40)])
def test_more_than_the_kernel_can_be_told_may_wait_without_limit(options: TransportOptions) -> None:
    with socket.socket() as sock:
        configure(sock, options)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == (1 << 31) - 1


def test_without_a_rate_the_kernel_decides() -> None:
    with socket.socket() as sock, socket.socket() as untouched:
        configure(sock, TransportOptions())
        lowats = [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) for one in (sock, untouched)]
    assert lowats[0] == lowats[1]
