"""The emulator with real packets: what crosses a link is what the models and the counters say.

Nothing here fails for a busy machine. A delay is checked from below (no packet is early), a rate from above, and where
the exact figure is the subject, one good attempt is enough: other load can only worsen an attempt. The exact times of
the models are tested in virtual time (tests/unit/netmodel, tests/unit/emulator).
"""

import math
import re
import socket
import struct
import subprocess
import time
from itertools import pairwise

import pytest

from tests.support.links import (
    MS,
    PATIENCE_S,
    datagrams,
    enlarge_receive_buffer,
    eventually,
    idle_accounting,
    iperf,
    needs,
    needs_tun,
    send_at_once,
    send_numbered,
    simple,
)
from toolkit.emulator.check import QUICK_CHECK, check
from toolkit.emulator.icmp import EchoProbe
from toolkit.emulator.link import Link
from toolkit.netmodel.path import BURST, LOSS, QUEUE
from toolkit.netmodel.spec import LAN, BurstLoss, LinkSpec, PathSpec, QueueSpec

pytestmark = [*needs_tun, pytest.mark.usefixtures("warm")]
SO_TIMESTAMPNS = 35


def assert_binomial(hits: int, trials: int, probability: float) -> None:
    """Within the two-sided 99.9% interval. The draws are seeded: a test that passes once passes always."""
    spread = 3.29 * math.sqrt(trials * probability * (1 - probability))
    assert abs(hits - trials * probability) <= spread, f"{hits} of {trials} at {probability}"


@needs("ping")
def test_ping_sees_the_requested_round_trip() -> None:
    """No reply is early; as soon as the machine has a moment, one is on time."""
    with Link(simple(None, 40)) as link:

        def is_on_time() -> bool:
            with link.popen_near(["ping", "-c", "10", "-i", "0.01", "far"], stdout=subprocess.PIPE) as ping:
                output = ping.communicate(timeout=PATIENCE_S)[0].decode()
            times_ms = [float(found) for found in re.findall(r"time=([\d.]+)", output)]
            assert len(times_ms) == 10
            assert min(times_ms) >= 40
            return min(times_ms) <= 40.5

        assert eventually(is_on_time)


def arrival_times_ns(far: socket.socket, packets: int) -> list[int]:
    """The arrival of each of the next datagrams by the clock of the kernel."""
    far.settimeout(PATIENCE_S)
    times = []
    for _ in range(packets):
        seconds, nanoseconds = struct.unpack("=qq", far.recvmsg(2000, 64)[1][0][2])
        times.append(seconds * 10**9 + nanoseconds)
    return times


def test_nothing_is_delivered_early() -> None:
    with Link(simple(1e6, 10)) as link:
        near, far = datagrams(link)
        with near, far:
            far.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sent_ns = time.time_ns()
            for _ in range(10):
                near.send(bytes(1222))  # 1250 bytes of IP take 10 ms
            for n, arrival_ns in enumerate(arrival_times_ns(far, 10), 1):
                assert (arrival_ns - sent_ns) / MS >= 5 + 10 * n


def test_a_queued_burst_leaves_at_the_bottleneck_rate() -> None:
    with Link(simple(1e8, 40)) as link:
        near, far = datagrams(link)
        with near, far:
            far.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

            def is_at_the_rate() -> bool:
                send_at_once(near, 200, 1472)  # 24 ms of the bottleneck, in a queue that holds 40 ms
                times = arrival_times_ns(far, 200)
                later = [at for at in times if at > times[0]]  # the first write only starts the clock
                return len(later) * 1500 * 8e9 / (later[-1] - times[0]) == pytest.approx(1e8, rel=0.02)

            assert eventually(is_at_the_rate)


def test_a_hundredth_of_the_pings_is_lost() -> None:
    requests = 3000
    with Link(simple(None, 2, loss=0.01)) as link:
        with link.socket_near(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
            enlarge_receive_buffer(sock)
            probe = EchoProbe(sock, str(link.addresses.far), 77)
            for _ in range(requests):
                probe.send()
                probe.receive(0)

            def is_complete() -> bool:
                probe.receive(0)
                forward = link.accounting().forward
                is_decided = forward.delivered + sum(forward.dropped.values()) == requests
                return is_decided and probe.replies == forward.delivered

            assert eventually(is_complete)
        accounting = idle_accounting(link)
    lost = requests - len(probe.round_trips_ns)
    assert_binomial(lost, requests, 0.01)
    assert accounting.forward.dropped[LOSS] == lost
    assert accounting.forward.offered == requests
    assert accounting.backward.delivered == requests - lost
    assert min(probe.round_trips_ns) >= 2 * MS


def test_wire_packets_are_lost_one_by_one_and_not_as_super_packets() -> None:
    with Link(simple(None, 2, loss=0.05)) as link:
        arrived = send_numbered(link, 5000)
        accounting = idle_accounting(link)
    lost = sorted(set(range(5000)) - set(arrived))
    assert accounting.forward.host_dropped == 0
    assert accounting.forward.dropped[LOSS] == len(lost)
    assert_binomial(len(lost), 5000, 0.05)
    # If super-packets of 40 were lost whole, nearly every lost packet would have a lost neighbour.
    assert_binomial(sum(b - a == 1 for a, b in pairwise(lost)), len(lost), 0.05)


def test_the_same_seed_loses_the_same_packets() -> None:
    spec = LinkSpec(PathSpec(delay_ns=MS, loss=0.03, duplicate=0.02), PathSpec(delay_ns=MS))
    with Link(spec) as link:
        runs = []
        for seed in (7, 7, 8):
            link.start_clock(seed)
            runs.append(sorted(send_numbered(link, 2000)))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_every_packet_is_accounted_for() -> None:
    path = PathSpec(
        rate_bps=1e7,
        delay_ns=2 * MS,
        jitter_ns=MS,
        loss=0.02,
        burst=BurstLoss.from_share(0.2, 2 * MS),
        duplicate=0.02,
        corrupt=0.02,
        reorder=0.02,
        queue=QueueSpec(limit_bytes=10**6),  # a fifth of the packets: the rest overflows unless it takes seconds
    )
    with Link(LinkSpec(path, path)) as link:
        arrived = send_numbered(link, 5000)
        accounting = idle_accounting(link)
    forward = accounting.forward
    assert forward.imbalance == 0
    assert forward.offered == 5000 - forward.host_dropped
    assert forward.dropped[LOSS]
    assert forward.dropped[BURST]
    assert forward.dropped[QUEUE]
    assert forward.corrupted
    assert forward.duplicates
    # The kernel of the receiver discards corrupted packets and their duplicates by the checksum.
    assert len(set(arrived)) == forward.delivered
    assert forward.delivered <= len(arrived) <= forward.delivered + forward.duplicates
    assert arrived != sorted(arrived)


def copy_over_tcp(link: Link, data: bytes, family: int) -> bytes:
    """`data` as it arrives over one TCP connection from near to far."""
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
            receiver.settimeout(PATIENCE_S)
            sent, received = 0, bytearray()
            while len(received) < len(data):
                try:
                    sent += sender.send(data[sent : sent + (1 << 18)])
                except BlockingIOError:
                    received += receiver.recv(1 << 18)
                if sent == len(data):
                    received += receiver.recv(1 << 18)
            return bytes(received)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def test_tcp_delivers_exactly_through_loss_corruption_and_reordering(family: int) -> None:
    path = PathSpec(
        rate_bps=3e8, delay_ns=MS, loss=0.005, corrupt=0.01, duplicate=0.01, reorder=0.005, reorder_delay_ns=MS
    )
    data = b"".join(struct.pack("!I", n) for n in range(400_000))
    with Link(LinkSpec(path, path)) as link:
        assert copy_over_tcp(link, data, family) == data
        accounting = idle_accounting(link)
        with link.popen_far(["cat", "/proc/net/snmp"], stdout=subprocess.PIPE) as reader:
            names, values = (
                line.split() for line in reader.communicate()[0].decode().splitlines() if line.startswith("Tcp:")
            )
    errors = int(dict(zip(names, values, strict=True))["InCsumErrors"])
    assert accounting.forward.corrupted > 0
    assert accounting.forward.corrupted <= errors <= accounting.forward.corrupted + accounting.forward.duplicates
    assert accounting.forward.imbalance == accounting.backward.imbalance == 0


def test_packets_that_would_wait_too_long_are_marked() -> None:
    path = PathSpec(rate_bps=1e6, delay_ns=MS, queue=QueueSpec(limit_bytes=10**6, ecn_threshold_ns=200 * MS))
    with Link(LinkSpec(path, path)) as link:
        near, far = datagrams(link)
        with near, far:
            near.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 2)  # ECT(0)
            far.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            far.settimeout(PATIENCE_S)
            send_at_once(near, 50, 972, segments=50)  # 8 ms each, all at the same time: the 25th waits for 200 ms
            fields = [far.recvmsg(2000, 64)[1][0][2][0] & 3 for _ in range(50)]
        accounting = idle_accounting(link)
    assert fields == [2] * 25 + [3] * 25
    assert accounting.forward.marked == 25


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
        assert idle_accounting(link).forward.offered == 3


@pytest.mark.long
@needs("iperf3")
def test_loss_slows_cubic_as_theory_says_and_bbr_much_less() -> None:
    """At 1% and 40 ms CUBIC is in its Reno-friendly region (RFC 9438 section 4.3): Mathis, W = sqrt(3 / 2p).

    Theory bounds CUBIC from above on any machine; BBR is compared with CUBIC on the same one.
    """
    theory_bps = math.sqrt(1.5 / 0.01) * 1448 * 8 / 0.040
    with Link(simple(1e8, 40, loss=0.01)) as link:
        cubic = iperf(link, "-t", "3", "-O", "1", "-C", "cubic")
        assert 0 < cubic["end"]["sum_received"]["bits_per_second"] <= theory_bps * 1.5
        try:
            bbr = iperf(link, "-t", "2", "-O", "1", "-C", "bbr")
        except AssertionError as error:
            if "congestion" not in str(error):
                raise
            pytest.skip("this kernel has no bbr")
    rates = [result["end"]["sum_received"]["bits_per_second"] for result in (cubic, bbr)]
    assert rates[1] > 2 * rates[0]
    assert rates[1] <= 1e8 * 1448 / 1500 * 1.05


@needs("iperf3")
def test_a_lan_without_a_rate_is_a_veth_pair() -> None:
    with Link(LinkSpec(kind=LAN)) as link:
        result = iperf(link, "-n", "20M", "-C", "cubic")
        accounting = link.accounting()
    assert accounting.emulator == "veth"
    assert accounting.forward.delivered_bytes >= result["end"]["sum_received"]["bytes"] > 0


def test_a_quick_check_measures_what_the_link_does() -> None:
    with Link(simple(20e6, 10, loss=0.05)) as link:
        result = check(link, QUICK_CHECK)
    findings = {finding.metric: finding for finding in result.findings}
    (forward,) = result.directions
    assert list(findings) == ["RTT, median", "loss, near -> far", "rate, near -> far", "CPU, near -> far"]
    assert findings["loss, near -> far"].is_met
    assert min(result.round_trips_ns) >= 10 * MS
    assert 0 < forward.rate_bps <= 20e6 * 0.95 * 1.1
    assert forward.cpu_share is not None
    assert 0 < forward.cpu_share < 1
