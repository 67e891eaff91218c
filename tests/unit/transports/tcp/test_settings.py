"""What the user's options become at a TCP socket."""

import socket
from pathlib import Path

import pytest

from toolkit.channel import TransportOptions
from toolkit.errors import UsageError
from toolkit.transports.tcp import settings
from toolkit.transports.tcp.settings import check_loaded, configure


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


def test_a_peer_chooses_among_the_congestion_controls_that_are_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For root, the kernel would load a module of the name that it is given."""
    monkeypatch.setattr(settings, "_PROC", tmp_path)
    check_loaded("any")  # the system does not say
    (tmp_path / "tcp_available_congestion_control").write_text("reno cubic\n")
    check_loaded("cubic")
    with pytest.raises(UsageError, match=r"^TCP has no congestion control bbr here: choose from reno, cubic$"):
        check_loaded("bbr")
