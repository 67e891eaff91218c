"""TCP_INFO by its field table: older and newer kernels, and the running one."""

import socket
import sys

import pytest

from toolkit.transports.tcp.tcp_info import congestion_control, parse_tcp_info, tcp_info

NUMBERED = bytes(range(256))


def test_fields_have_the_kernels_offsets() -> None:
    # Offsets counted by hand in linux/tcp.h: 8 bytes, 24 words up to total_retrans, then long words.
    info = parse_tcp_info(NUMBERED)
    little = sys.byteorder == "little"
    for name, offset, size in (
        ("state", 0, 1),
        ("rto", 8, 4),
        ("rtt", 68, 4),
        ("total_retrans", 100, 4),
        ("pacing_rate", 104, 8),
        ("segs_out", 136, 4),
        ("min_rtt", 148, 4),
        ("delivery_rate", 160, 8),
        ("sndbuf_limited", 184, 8),
        ("bytes_retrans", 208, 8),
        ("snd_wnd", 228, 4),
    ):
        assert info[name] == int.from_bytes(NUMBERED[offset : offset + size], "little" if little else "big"), name


def test_an_older_kernel_fills_fewer_fields() -> None:
    info = parse_tcp_info(NUMBERED[:104])  # Linux 3.x
    assert "total_retrans" in info
    assert "pacing_rate" not in info
    assert parse_tcp_info(NUMBERED[:103]) == {name: value for name, value in info.items() if name != "total_retrans"}
    assert parse_tcp_info(b"") == {}


def test_an_rtt_that_was_never_measured_is_absent() -> None:
    filled = bytearray(NUMBERED)
    filled[148:152] = b"\xff" * 4
    assert "min_rtt" not in parse_tcp_info(bytes(filled))


def test_a_newer_kernels_additional_fields_are_ignored() -> None:
    assert parse_tcp_info(NUMBERED) == parse_tcp_info(NUMBERED[:232])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="TCP_INFO has this shape on Linux")
def test_the_running_kernel_describes_a_connection() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            client.sendall(bytes(100_000))
            assert len(accepted.recv(100_000, socket.MSG_WAITALL)) == 100_000
        info = tcp_info(client)
        assert info["bytes_sent"] >= 100_000
        assert info["data_segs_out"] >= 2
        assert 0 < info["min_rtt"] <= info["rtt"]
        with open("/proc/sys/net/ipv4/tcp_available_congestion_control") as listed:
            available = listed.read().split()
        assert congestion_control(client) in available


def test_another_kind_of_socket_has_no_fields() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert tcp_info(sock) == {}
        assert congestion_control(sock) == ""
