"""The audit of packets: what balances, what does not, and what the hosts' own drops explain."""

from dataclasses import replace

import pytest

from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.packet_audit import audit, has_host_drops, is_balanced, tolerance
from toolkit.comparison.ping import Pings
from toolkit.emulator.accounting import LinkAccounting, PathAccounting

SENT = 10_000
NOTHING = EndpointResult()


def link(lost: int = 100, queue: int = 50, emulator: str = "tun", host: int = 0, offered: int = SENT) -> LinkAccounting:
    forward = PathAccounting(offered=offered, offered_bytes=1500 * SENT, host_dropped=host)
    forward.dropped |= {"loss": lost, "queue": queue}
    forward.delivered = offered - lost - queue
    backward = PathAccounting(offered=500, delivered=500, offered_bytes=30_000)
    return LinkAccounting(emulator, 1, forward, backward, 10**9)


def udp(sent: int = SENT, received: int = SENT - 150, drops: int = 0) -> tuple[EndpointResult, EndpointResult]:
    sender = EndpointResult(datagrams_sent=sent, datagrams_received=500)
    return sender, EndpointResult(datagrams_sent=500, datagrams_received=received, socket_drops=drops)


def tcp_sender(resent: int, duplicates: int = 0, received: int = 500) -> EndpointResult:
    return EndpointResult(
        packets_sent=SENT,
        packets_retransmitted=resent,
        duplicates_reported=duplicates,
        packets_received=received,
    )


def tcp_receiver(sent: int = 500) -> EndpointResult:
    """The receiver's count of packets is wrong on purpose: the audit must not use it."""
    return EndpointResult(packets_sent=sent, packets_retransmitted=0, duplicates_reported=0, packets_received=17)


def test_pings_show_how_late_the_emulator_is() -> None:
    """The emulator counts from its own reading: what waits to be read is visible from outside only."""
    counted = link()
    counted.forward.echo_delays_ns = dict.fromkeys(range(40), 20_000_000)
    counted.backward.echo_delays_ns = dict.fromkeys(range(1, 40), 20_000_000)
    on_time = Pings(40, 40, 40, dict.fromkeys(range(40), 40_300_000))
    assert audit(counted, *udp(), on_time).ping_late_p95_ms == 0.3
    late = {number: 40_300_000 + (5_000_000 if number % 8 == 0 else 0) for number in range(40)}
    assert audit(counted, *udp(), Pings(40, 40, 40, late)).ping_late_p95_ms == pytest.approx(5.3)
    few = Pings(19, 19, 19, dict.fromkeys(range(1, 20), 45_000_000))
    assert audit(counted, *udp(), few).ping_late_p95_ms is None


def test_counts_that_add_up_balance() -> None:
    audited = audit(link(), *udp())
    assert is_balanced(audited)
    forward = audited.forward
    counts = (forward.balance, forward.lost_by_link, forward.dropped_by_queue, forward.dropped_by_host)
    assert counts == (0, 100, 50, 0)
    assert audited.wire_bytes == 1500 * SENT + 30_000
    assert audited.backward.balance == 0


@pytest.mark.parametrize("missing", [100, -100])
def test_one_per_cent_missing_or_too_many_does_not_balance(missing: int) -> None:
    audited = audit(link(), *udp(received=SENT - 150 - missing))
    assert not is_balanced(audited)
    assert audited.forward.balance == missing


def test_a_few_uncounted_packets_are_tolerated() -> None:
    assert is_balanced(audit(link(), *udp(received=SENT - 150 - int(tolerance(SENT)))))
    assert not is_balanced(audit(link(), *udp(received=SENT - 150 - int(tolerance(SENT)) - 1)))


def test_drops_that_the_hosts_report_explain_missing_packets() -> None:
    after = audit(link(), *udp(received=SENT - 450, drops=10))
    assert is_balanced(after)
    assert after.forward.dropped_by_host == 300
    assert has_host_drops(after)
    before = audit(link(host=4), *udp(sent=SENT + 120))
    assert is_balanced(before)
    assert before.forward.dropped_by_host == 120
    assert not is_balanced(audit(link(), *udp(sent=SENT + 120)))


def test_duplicates_and_pings_are_counted() -> None:
    counted = link(offered=SENT + 40)
    counted.forward.duplicates = 30
    counted.backward.offered = counted.backward.delivered = 540
    audited = audit(counted, *udp(received=SENT - 150 + 30), Pings(40, 40, 40))
    assert (audited.forward.balance, audited.backward.balance) == (0, 0)


def test_pings_may_be_lost_in_either_direction_and_duplicated() -> None:
    sent, arrived, replies = 1000, 960, 925  # 10 requests and some of the replies arrive twice
    counted = link(offered=SENT + sent, lost=100 + 50)
    counted.forward.duplicates = 10
    counted.backward = PathAccounting(offered=500 + arrived, delivered=500 + replies - 4, duplicates=4)
    counted.backward.dropped["loss"] = arrived - replies + 4
    pings = Pings(sent, replies - 14, replies)
    audited = audit(counted, *udp(received=SENT - 150), pings)
    assert (audited.forward.balance, audited.backward.balance) == (0, 0)
    assert audited.forward.lost_pings == sent - arrived
    assert not is_balanced(audit(counted, *udp(received=SENT - 250), pings))


def test_the_sender_of_tcp_counts_the_acknowledgements() -> None:
    counted = link()
    counted.backward = PathAccounting(offered=5000, delivered=4750, duplicates=40)
    counted.backward.dropped["loss"] = 250
    audited = audit(counted, tcp_sender(150, received=4790), tcp_receiver(5000))
    assert (audited.forward.balance, audited.backward.balance) == (0, 0)
    silently_dropped = audit(counted, tcp_sender(150, received=4700), tcp_receiver(5000))
    assert (silently_dropped.backward.balance, is_balanced(silently_dropped)) == (90, False)


@pytest.mark.parametrize(("resent", "reported"), [(150, 100), (160, 110), (150, 95)])
def test_duplicates_made_by_the_link_are_told_from_those_of_tcp(resent: int, reported: int) -> None:
    counted = link()
    counted.forward.duplicates = 100
    sender, receiver = tcp_sender(resent, reported), EndpointResult(packets_sent=500)
    assert audit(counted, sender, receiver).forward.balance == 0
    more_resent = replace(sender, packets_retransmitted=resent + 50)
    assert audit(counted, more_resent, receiver).forward.balance == 50


@pytest.mark.parametrize(("resent", "duplicates", "balance"), [(150, 0, 0), (170, 20, 0), (250, 0, 100)])
def test_retransmissions_of_tcp_show_what_did_not_arrive(resent: int, duplicates: int, balance: int) -> None:
    audited = audit(link(), tcp_sender(resent, duplicates), tcp_receiver())
    assert audited.forward.balance == balance
    assert is_balanced(audited) == (balance == 0)


def test_without_counts_of_the_endpoints_only_the_link_is_audited() -> None:
    audited = audit(link(), NOTHING, NOTHING)
    assert is_balanced(audited)
    assert (audited.forward.sent, audited.forward.received) == (None, None)


def test_a_link_that_contradicts_itself_does_not_balance() -> None:
    counted = link()
    counted.forward.delivered -= 60
    assert not is_balanced(audit(counted, NOTHING, NOTHING))


def test_the_device_before_a_switch_counts_packets() -> None:
    """Each of its drops explains one missing packet; that of a device of TUN may have been a super-packet."""
    for emulator, is_explained in (("tun", True), ("switch", False)):
        audited = audit(link(emulator=emulator, host=10), *udp(sent=SENT + 300))
        assert is_balanced(audited) == is_explained
    audited = audit(link(emulator="switch", host=300), *udp(sent=SENT + 300))
    assert is_balanced(audited)
    assert (audited.emulator, audited.forward.dropped_by_sender) == ("switch", 300)


def test_on_veth_endpoints_are_compared_with_each_other() -> None:
    """It counts super-packets: 300 for all the packets of the endpoints."""
    counted = link(lost=0, queue=0, emulator="veth", offered=300)
    audited = audit(counted, *udp(received=SENT - 200, drops=4))
    assert is_balanced(audited)
    forward = audited.forward
    assert (forward.sent, forward.received, forward.dropped_by_host) == (SENT, SENT - 200, 200)
    assert (forward.offered, forward.delivered, audited.wire_bytes) == (None, None, None)
    assert not is_balanced(audit(counted, *udp(received=SENT - 200)))
