"""A LAN with a rate on queues of the kernel, with real packets, for root and for other users, without TUN."""

import os
import re
import socket
import struct
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.support.cli_process import nettool
from tests.support.links import (
    PATIENCE_S,
    becoming_nobody,
    datagrams,
    idle_accounting,
    iperf,
    needs,
    send_at_once,
)
from toolkit.emulator import link_process, tun_device
from toolkit.emulator.accounting import SWITCH, TUN, Bottleneck
from toolkit.emulator.interfaces import DEVICE
from toolkit.emulator.link import Link
from toolkit.emulator.switch import SwitchError
from toolkit.emulator.tun_device import TunError
from toolkit.errors import NettoolError, UsageError
from toolkit.netmodel.path import QUEUE
from toolkit.netmodel.spec import LAN, LinkSpec, PathSpec, QueueSpec

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="not root (a test of root runs a LAN as an ordinary user)"),
    pytest.mark.usefixtures("warm"),
]
SO_TIMESTAMPNS = 35


def lan(rate_bps: float, queue_bytes: int = 150_000) -> LinkSpec:
    path = PathSpec(rate_bps=rate_bps, queue=QueueSpec(limit_bytes=queue_bytes))
    return LinkSpec(path, path, kind=LAN)


def test_super_packets_reach_the_queue_packet_by_packet() -> None:
    with Link(lan(1e9), emulator=SWITCH) as link:
        assert link.bottleneck() == Bottleneck(1e9, 15_000, 150_000)
        near, far = datagrams(link)
        with near, far:
            send_at_once(near, 80, 1000)
            accounting = idle_accounting(link)
    assert accounting.emulator == SWITCH
    forward = accounting.forward
    assert (forward.offered, forward.offered_bytes) == (80, 80 * 1028)
    assert (forward.delivered, forward.delivered_bytes, forward.imbalance) == (80, 80 * 1028, 0)


def test_the_queue_drops_datagrams_and_counts_them() -> None:
    with Link(lan(1e4, queue_bytes=20_560), emulator=SWITCH) as link:  # of 20 packets; it sends a packet per second
        near, far = datagrams(link)
        with near, far:
            send_at_once(near, 100, 1000)
            forward = link.accounting().forward
    assert forward.offered == 100
    assert 75 <= forward.dropped[QUEUE] <= 80  # the bucket passes two packets, and a slow test a few more
    assert (forward.delivered + forward.in_flight, forward.imbalance) == (100 - forward.dropped[QUEUE], 0)


def test_a_small_file_does_not_pass_unshaped() -> None:
    rate_bps, packets = 1e7, 60
    with Link(lan(rate_bps), emulator=SWITCH) as link:
        bottleneck = link.bottleneck()
        assert bottleneck is not None
        near, far = datagrams(link)
        with near, far:
            far.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            far.settimeout(PATIENCE_S)
            sent_ns = time.time_ns()
            send_at_once(near, packets, 1000)
            for _ in range(packets):
                seconds, nanoseconds = struct.unpack("=qq", far.recvmsg(2000, 64)[1][0][2])
    shaped_bytes = packets * 1028 - bottleneck.burst_bytes
    assert seconds * 10**9 + nanoseconds - sent_ns >= shaped_bytes * 8e9 / rate_bps


@needs("iperf3")
def test_tcp_keeps_to_the_rate() -> None:
    with Link(lan(2e8), emulator=SWITCH) as link:
        result = iperf(link, "-n", "20M", "-C", "cubic")
        forward = link.accounting().forward
    assert result["end"]["sum_received"]["bits_per_second"] <= 2e8 * 1448 / 1500 * 1.05
    assert forward.delivered_bytes >= result["end"]["sum_received"]["bytes"] > 0
    assert forward.delivered_bytes / forward.delivered <= 1500


def test_it_carries_ipv6() -> None:
    with Link(lan(1e8), emulator=SWITCH) as link, link.socket_far(socket.AF_INET6, socket.SOCK_DGRAM) as far:
        far.bind((str(link.addresses.far_ipv6), 0))
        far.settimeout(PATIENCE_S)
        with link.socket_near(socket.AF_INET6, socket.SOCK_DGRAM) as near:
            near.sendto(b"hello", far.getsockname())
        assert far.recv(100) == b"hello"


def test_it_carries_no_packets_but_those_of_the_commands() -> None:
    """An end whose IPv6 address joins a multicast group would report that at random times (RFC 3810)."""
    with Link(lan(1e8), emulator=SWITCH) as link:
        time.sleep(0.05)  # the kernel joins groups in the background
        with link.popen_near(["cat", "/proc/net/igmp6"], stdout=PIPE) as process:
            groups = [line.split()[1:3] for line in process.communicate()[0].decode().splitlines()]
        accounting = idle_accounting(link)
    assert [DEVICE, "ff020000000000000000000000000001"] in groups  # of all nodes, which is never reported
    assert [group for device, group in groups if device == DEVICE and "1ff" in group] == []
    assert (accounting.forward.offered, accounting.backward.offered) == (0, 0)


def test_what_it_cannot_carry_is_said() -> None:
    delayed = PathSpec(rate_bps=1e8, delay_ns=1_000_000)
    with pytest.raises(UsageError, match="a LAN with a rate and a plain queue"):
        Link(LinkSpec(delayed, delayed, kind=LAN), emulator=SWITCH)


def test_without_tun_the_kernel_carries_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of a link is a fork of this one."""
    monkeypatch.setattr(tun_device, "TUN_DEVICE", "/dev/net/none")
    with Link(lan(5e7)) as link:
        assert link.accounting().emulator == "switch"
        assert link.notice is not None
        assert re.match("no /dev/net/none on this machine: .*modprobe tun.*queues of the kernel", link.notice)
    with pytest.raises(TunError, match="no /dev/net/none"), Link(lan(5e7), emulator=TUN):
        pass

    def refuse(*_: object) -> None:
        raise SwitchError("this kernel has no bridge")

    monkeypatch.setattr(link_process, "make_switch", refuse)
    with pytest.raises(NettoolError, match=r"modprobe tun.*; this kernel has no bridge"), Link(lan(5e7)):
        pass


@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="this machine has no /dev/net/tun")
def test_with_tun_the_models_carry_it() -> None:
    with Link(lan(5e7)) as link:
        assert (link.accounting().emulator, link.bottleneck(), link.notice) == ("tun", None, None)


def test_an_ordinary_user_needs_no_tun() -> None:
    command = ["link", "--link", "lan", "--rate", "50Mbit", "--json", "--", "ping", "-c", "1", "far"]
    with becoming_nobody(device_mode=None) as become:
        ended = nettool(*command, before=become)
    assert (ended.code, ended.object["emulator"]) == (0, "switch"), ended
    assert ended.stderr.startswith("link: no /dev/net/tun on this machine"), ended
