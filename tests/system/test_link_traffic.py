"""The emulator with real packets: what crosses a link is what the models and the accounting say."""

import math
import os
import re
import select
import socket
import statistics
import struct
import subprocess
import time
from itertools import pairwise

import pytest

from tests.support.link_ends import MS, datagrams, iperf, needs, needs_tun, numbered, settled, simple
from toolkit.emulator.link import Link
from toolkit.netmodel.path import BURST, LOSS, QUEUE
from toolkit.netmodel.spec import BurstLoss, LinkSpec, PathSpec, QueueSpec

pytestmark = [*needs_tun, pytest.mark.timing]


def assert_binomial(hits: int, trials: int, probability: float) -> None:
    """Within the two-sided 99.9% interval: a test that runs each day may not fail by chance each season."""
    spread = 3.29 * math.sqrt(trials * probability * (1 - probability))
    assert abs(hits - trials * probability) <= spread, f"{hits} of {trials} at {probability}"


@needs("ping")
def test_ping_sees_the_round_trip_that_was_asked_for() -> None:
    """Never early; right in the median and in the tail, for which a machine that does other work has eight tries."""
    with Link(simple(None, 40)) as link:
        for _ in range(8):
            with link.popen_near(["ping", "-c", "300", "-i", "0.005", "far"], stdout=subprocess.PIPE) as ping:
                os.sched_setscheduler(ping.pid, os.SCHED_RR, os.sched_param(1))
                output = ping.communicate(timeout=30)[0].decode()
            times_ms = sorted(float(found) for found in re.findall(r"time=([\d.]+)", output))
            assert len(times_ms) == 300
            assert times_ms[0] >= 40
            if statistics.median(times_ms) <= 40.3 and times_ms[int(0.99 * len(times_ms))] <= 41.5:
                return
    raise AssertionError((statistics.median(times_ms), times_ms[-4:]))


def echo_losses(link: Link, requests: int) -> int:
    """How many of `requests` echo requests stay without a reply."""
    with link.socket_near(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        replies = 0
        for sequence in range(requests):
            body = struct.pack("!HH", 77, sequence)
            total = 0x0800 + 77 + sequence
            total = (total & 0xFFFF) + (total >> 16)
            probe.sendto(struct.pack("!BBH", 8, 0, 0xFFFF - total) + body, (str(link.addresses.far), 0))
            # A few at a time: a device's ring that overflows would be the host's loss, and not the link's.
            pause_s = 0 if sequence % 50 else 0.005
            while select.select([probe], [], [], pause_s)[0]:
                replies += probe.recv(200)[20] == 0
        while select.select([probe], [], [], 0.3)[0]:
            replies += probe.recv(200)[20] == 0
    return requests - replies


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundredth_of_the_pings_is_lost(seed: int) -> None:
    with Link(simple(None, 2, loss=0.01, seed=seed)) as link:
        lost = echo_losses(link, 10_000)
        accounting = settled(link)
    assert_binomial(lost, 10_000, 0.01)
    assert accounting.forward.dropped[LOSS] == lost
    assert accounting.forward.offered == 10_000
    assert accounting.backward.delivered == 10_000 - lost


def test_single_wire_packets_are_lost_and_not_super_packets() -> None:
    with Link(simple(None, 2, loss=0.05)) as link:
        came = numbered(link, 20_000)
        accounting = settled(link)
    lost = sorted(set(range(20_000)) - set(came))
    assert accounting.forward.host_dropped == 0
    assert accounting.forward.dropped[LOSS] == len(lost)
    assert_binomial(len(lost), 20_000, 0.05)
    # Were super-packets of 40 lost whole, nearly every lost packet would have a lost neighbour.
    assert_binomial(sum(b - a == 1 for a, b in pairwise(lost)), len(lost), 0.05)


def test_the_same_seed_loses_the_same_packets() -> None:
    spec = LinkSpec(PathSpec(delay_ns=MS, loss=0.03, duplicate=0.02), PathSpec(delay_ns=MS))
    with Link(spec) as link:
        runs = []
        for seed in (7, 7, 8):
            link.start_clock(seed)
            runs.append(sorted(numbered(link, 5000)))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_every_packet_is_accounted_for() -> None:
    path = PathSpec(
        rate_bps=2e8,
        delay_ns=2 * MS,
        jitter_ns=MS,
        loss=0.02,
        burst=BurstLoss.from_share(0.2, 2 * MS),
        duplicate=0.02,
        corrupt=0.02,
        reorder=0.02,
        queue=QueueSpec(limit_bytes=100_000),
    )
    with Link(LinkSpec(path, path)) as link:
        came = numbered(link, 20_000)
        accounting = settled(link)
    forward = accounting.forward
    assert forward.imbalance == 0
    assert forward.offered == 20_000 - forward.host_dropped
    assert forward.dropped[LOSS]
    assert forward.dropped[BURST]
    assert forward.dropped[QUEUE]
    assert forward.corrupted
    assert forward.duplicates
    # A damaged packet reaches the receiver's kernel, whose checksum stops it; so does the repetition of one.
    whole = len(set(came))
    assert whole == forward.delivered
    assert forward.delivered <= len(came) <= forward.delivered + forward.duplicates
    assert came != sorted(came)


def copied(link: Link, data: bytes, family: int) -> bytes:
    """`data` over one TCP connection from near to far."""
    address = str(link.addresses.far_ipv6 if family == socket.AF_INET6 else link.addresses.far)
    with (
        link.socket_far(family, socket.SOCK_STREAM) as listener,
        link.socket_near(family, socket.SOCK_STREAM) as sender,
    ):
        listener.bind((address, 0))
        listener.listen()
        sender.connect(listener.getsockname())
        receiver, _ = listener.accept()
        with receiver:
            sender.setblocking(False)
            receiver.settimeout(10)
            sent, got = 0, bytearray()
            while len(got) < len(data):
                try:
                    sent += sender.send(data[sent : sent + (1 << 18)])
                except BlockingIOError:
                    got += receiver.recv(1 << 18)
                if sent == len(data):
                    got += receiver.recv(1 << 18)
            return bytes(got)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def test_tcp_comes_whole_through_loss_damage_and_disorder(family: int) -> None:
    path = PathSpec(
        rate_bps=3e8, delay_ns=MS, loss=0.005, corrupt=0.005, duplicate=0.01, reorder=0.005, reorder_delay_ns=MS
    )
    data = b"".join(struct.pack("!I", n) for n in range(500_000))
    with Link(LinkSpec(path, path)) as link:
        assert copied(link, data, family) == data
        accounting = settled(link)
        with link.popen_far(["cat", "/proc/net/snmp"], stdout=subprocess.PIPE) as reader:
            names, values = (
                line.split() for line in reader.communicate()[0].decode().splitlines() if line.startswith("Tcp:")
            )
    errors = int(dict(zip(names, values, strict=True))["InCsumErrors"])
    assert accounting.forward.corrupted > 0
    assert accounting.forward.corrupted <= errors <= accounting.forward.corrupted + accounting.forward.duplicates
    assert accounting.forward.imbalance == accounting.backward.imbalance == 0


def test_a_full_queue_marks_those_that_can_be_marked() -> None:
    path = PathSpec(rate_bps=1e6, delay_ns=MS, queue=QueueSpec(limit_bytes=10**6, ecn_threshold_ns=200 * MS))
    with Link(LinkSpec(path, path)) as link:
        near, far = datagrams(link)
        with near, far:
            near.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 2)  # ECT(0)
            far.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            far.settimeout(2)
            for _ in range(50):
                near.send(bytes(972))  # 8 ms each: the 25th waits for 200 ms
            fields = [far.recvmsg(2000, 64)[1][0][2][0] & 3 for _ in range(50)]
        accounting = settled(link)
    marked = fields.count(3)
    assert fields == sorted(fields)
    assert 22 <= marked <= 26
    assert accounting.forward.marked == marked


def test_the_mtu_is_that_of_the_link() -> None:
    with Link(LinkSpec(mtu_bytes=1300)) as link:
        near, far = datagrams(link)
        with near, far:
            near.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: do
            near.send(bytes(1272))
            with pytest.raises(OSError, match="too long"):
                near.send(bytes(1273))
            assert len(far.recv(2000)) == 1272


def test_a_fragmented_datagram_is_several_packets() -> None:
    with Link(LinkSpec()) as link:
        near, far = datagrams(link)
        with near, far:
            near.send(bytes(4000))
            assert len(far.recv(5000)) == 4000
        assert settled(link).forward.offered == 3


def test_nothing_is_delivered_early() -> None:
    with Link(simple(1e6, 10)) as link:
        near, far = datagrams(link)
        with near, far:
            far.settimeout(2)
            far.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
            sent_ns = time.time_ns()
            for _ in range(10):
                near.send(bytes(1222))  # 1250 bytes of IP are 10 ms
            for n in range(1, 11):
                seconds, nanoseconds = struct.unpack("=qq", far.recvmsg(2000, 64)[1][0][2])
                wait_ms = (seconds * 10**9 + nanoseconds - sent_ns) / MS
                assert 5 + 10 * n <= wait_ms <= 5 + 10 * n + 50


@needs("iperf3")
def test_tcp_has_the_payload_share_of_the_rate() -> None:
    with Link(simple(1e8, 40)) as link:
        result = iperf(link, "-t", "4", "-O", "1", "-C", "cubic")
    # 1,448 of 1,500 bytes are payload with timestamps; the first second, of slow start, is left out.
    assert result["end"]["sum_received"]["bits_per_second"] == pytest.approx(1e8 * 1448 / 1500, rel=0.02)


@needs("iperf3")
def test_a_gigabit_is_carried() -> None:
    """What an idle machine carries; one that is busy has four tries, and then at least no less than half."""
    carried_bps = 0.0
    for _ in range(4):
        with Link(simple(1e9, 10)) as link:
            result = iperf(link, "-t", "3", "-O", "1", "-C", "cubic")
            accounting = link.accounting()
        carried_bps = max(carried_bps, result["end"]["sum_received"]["bits_per_second"])
        if carried_bps >= 0.93e9 and accounting.cpu_share < 0.9:
            return
    assert carried_bps >= 0.5e9, accounting.to_json()
    pytest.skip(
        f"this machine carries {carried_bps / 1e6:.0f} Mbit/s just now, the emulator at {accounting.cpu_share:.2f}"
    )


@needs("iperf3")
def test_cubic_loses_its_rate_to_loss_as_theory_says() -> None:
    """At 1% and 40 ms CUBIC is in its Reno-friendly region (RFC 9438 section 4.3): Mathis, W = sqrt(3 / 2p)."""
    with Link(simple(1e8, 40, loss=0.01)) as link:
        result = iperf(link, "-t", "8", "-O", "1", "-C", "cubic")
    theory_bps = math.sqrt(1.5 / 0.01) * 1448 * 8 / 0.040
    assert theory_bps / 1.5 <= result["end"]["sum_received"]["bits_per_second"] <= theory_bps * 1.5


@needs("iperf3")
def test_bbr_keeps_its_rate_through_loss() -> None:
    with Link(simple(1e8, 40, loss=0.01)) as link:
        try:
            result = iperf(link, "-t", "4", "-O", "1", "-C", "bbr")
        except AssertionError as error:
            if "congestion" not in str(error):
                raise
            pytest.skip("this kernel has no bbr")
    assert result["end"]["sum_received"]["bits_per_second"] >= 0.8e8


@pytest.mark.parametrize("rate_bps", [None, 2e8], ids=["unlimited", "tbf"])
@needs("iperf3")
def test_a_plain_lan(rate_bps: float | None) -> None:
    path = PathSpec(rate_bps=rate_bps)
    with Link(LinkSpec(path, path, kind="lan")) as link:
        result = iperf(link, "-t", "1", "-C", "cubic")
        accounting = link.accounting()
    measured = result["end"]["sum_received"]["bits_per_second"]
    if rate_bps is None:
        assert measured > 1e9
    else:
        assert measured == pytest.approx(rate_bps * 1448 / 1514, rel=0.05)
    assert accounting.emulator == "veth"
    assert accounting.forward.delivered > 0
