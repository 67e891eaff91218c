"""The path to another machine."""

import pytest

from toolkit.channel import Address
from toolkit.doctor.path import judge_path, search_mtu

FAR = Address("192.0.2.7", 9000)
RTT_NS = 40_000_000


class Path:
    """Answers echo requests up to a size, and as many as a test says."""

    def __init__(self, mtu_bytes: int, answers: int = 1000) -> None:
        self.mtu_bytes, self.answers = mtu_bytes, answers
        self.asked: list[int] = []

    def __call__(self, packet_bytes: int, timeout_s: float) -> int | None:
        assert timeout_s > RTT_NS / 1e9
        self.asked.append(packet_bytes)
        if packet_bytes > self.mtu_bytes or not self.answers:
            return None
        self.answers -= 1
        return RTT_NS


@pytest.mark.parametrize("mtu_bytes", [1228, 1280, 1400, 1492, 1500, 9000])
def test_the_search_ends_a_few_bytes_below_the_mtu(mtu_bytes: int) -> None:
    path = Path(mtu_bytes)
    assert 0 <= mtu_bytes - search_mtu(9000, 0.1, path) < 20
    assert len(path.asked) < 50


def test_a_path_as_wide_as_its_interface_lacks_nothing() -> None:
    rtt, mtu = judge_path(FAR, 1500, Path(1500))
    assert (rtt.found, rtt.is_enough) == ("40 ms", True)
    assert (mtu.found, mtu.is_enough) == ("1,500 bytes", True)


def test_a_tunnel_on_the_way_is_found() -> None:
    mtu = judge_path(FAR, 1500, Path(1420))[1]
    assert not mtu.is_enough
    assert mtu.found.endswith("bytes or a few more, of 1,500 at the interface")
    assert mtu.command == "sudo sysctl -w net.ipv4.tcp_mtu_probing=1"


def test_an_interface_too_narrow_for_udp_is_named() -> None:
    mtu = judge_path(FAR, 1000, Path(1000))[1]
    assert (mtu.is_enough, mtu.advice) == (False, "use nettool tcp-send")


def test_a_host_that_answers_no_echo_costs_one_wait() -> None:
    path = Path(1500, answers=0)
    (found,) = judge_path(FAR, 1500, path)
    assert found.found == "192.0.2.7 answers no echo"
    assert "nettool ping 192.0.2.7" in found.advice
    assert len(path.asked) == 1
