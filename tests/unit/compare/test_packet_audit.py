"""The account of packets: what balances, what does not, and what the hosts explain."""

from typing import Any

import pytest

from toolkit.compare.packet_audit import audit, has_host_drops, is_balanced, tolerance
from toolkit.compare.ping import Pings
from toolkit.emulator.accounting import LinkAccounting, PathAccounting

SENT = 10_000


def ledger(
    lost: int = 100, queue: int = 50, emulator: str = "tun", host: int = 0, offered: int = SENT
) -> LinkAccounting:
    forward = PathAccounting(offered=offered, offered_bytes=1500 * SENT, host_dropped=host)
    forward.dropped |= {"loss": lost, "queue": queue}
    forward.delivered = offered - lost - queue
    backward = PathAccounting(offered=500, delivered=500, offered_bytes=30_000)
    return LinkAccounting(emulator, 1, forward, backward, 10**9)


def udp(sent: int = SENT, received: int = SENT - 150, drops: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    sender = {"datagrams_sent": sent, "datagrams_received": 500}
    return sender, {"datagrams_sent": 500, "datagrams_received": received, "socket_drops": drops}


def test_what_adds_up_balances() -> None:
    told = audit(ledger(), *udp())
    assert is_balanced(told)
    assert (told["balance"], told["lost_by_link"], told["dropped_by_queue"], told["dropped_by_host"]) == (0, 100, 50, 0)
    assert told["wire_bytes"] == 1500 * SENT + 30_000
    assert told["backward"]["balance"] == 0


@pytest.mark.parametrize("secret", [100, -100])
def test_one_per_cent_in_secret_does_not(secret: int) -> None:
    told = audit(ledger(), *udp(received=SENT - 150 - secret))
    assert not is_balanced(told)
    assert told["balance"] == secret


def test_a_few_packets_outside_of_every_count_are_allowed() -> None:
    assert is_balanced(audit(ledger(), *udp(received=SENT - 150 - int(tolerance(SENT)))))
    assert not is_balanced(audit(ledger(), *udp(received=SENT - 150 - int(tolerance(SENT)) - 1)))


def test_drops_that_the_hosts_know_of_are_theirs() -> None:
    told = audit(ledger(), *udp(received=SENT - 450, drops=10))
    assert is_balanced(told)
    assert told["dropped_by_host"] == 300
    assert has_host_drops(told)
    before = audit(ledger(host=4), *udp(sent=SENT + 120))
    assert is_balanced(before)
    assert before["dropped_by_host"] == 120
    unknown = audit(ledger(), *udp(sent=SENT + 120))
    assert not is_balanced(unknown)


def test_duplicates_and_pings_are_counted_once_more() -> None:
    of_link = ledger(offered=SENT + 40)
    of_link.forward.duplicates = 30
    of_link.backward.offered = of_link.backward.delivered = 540
    told = audit(of_link, *udp(received=SENT - 150 + 30), Pings(40, 40, 40))
    assert (told["balance"], told["backward"]["balance"]) == (0, 0)


def test_pings_may_be_lost_on_either_way_and_come_twice() -> None:
    sent, arrived, replies = 1000, 960, 925  # of 950 answered ones some came twice, and 10 requests did
    of_link = ledger(offered=SENT + sent, lost=100 + 50)
    of_link.forward.duplicates = 10
    of_link.backward = PathAccounting(offered=500 + arrived, delivered=500 + replies - 4, duplicates=4)
    of_link.backward.dropped["loss"] = arrived - replies + 4
    told = audit(of_link, *udp(received=SENT - 150), Pings(sent, replies - 14, replies))
    assert (told["balance"], told["backward"]["balance"]) == (0, 0)
    cheated = audit(of_link, *udp(received=SENT - 250), Pings(sent, replies - 14, replies))
    assert not is_balanced(cheated)


def test_acknowledgements_are_not_resent_and_the_sender_counts_them() -> None:
    of_link = ledger()
    of_link.backward = PathAccounting(offered=5000, delivered=4750, duplicates=40)
    of_link.backward.dropped["loss"] = 250
    sender = {"packets_sent": SENT, "packets_retransmitted": 150, "duplicates_reported": 0, "packets_received": 4790}
    receiver = {"packets_sent": 5000, "packets_retransmitted": 0, "duplicates_reported": 0, "packets_received": 17}
    told = audit(of_link, sender, receiver)
    assert (told["balance"], told["backward"]["balance"]) == (0, 0)
    cheated = audit(of_link, {**sender, "packets_received": 4700}, receiver)
    assert (cheated["backward"]["balance"], is_balanced(cheated)) == (90, False)


@pytest.mark.parametrize(("resent", "reported"), [(150, 100), (160, 110), (150, 95)])
def test_duplicates_of_the_link_are_told_apart_from_those_of_tcp(resent: int, reported: int) -> None:
    of_link = ledger()
    of_link.forward.duplicates = 100
    sender = {"packets_sent": SENT, "packets_retransmitted": resent, "duplicates_reported": reported}
    told = audit(of_link, {**sender, "packets_received": 500}, {"packets_sent": 500})
    assert told["balance"] == 0
    cheated = audit(of_link, {**sender, "packets_retransmitted": resent + 50}, {"packets_sent": 500})
    assert cheated["balance"] == 50


@pytest.mark.parametrize(("resent", "duplicates", "balance"), [(150, 0, 0), (170, 20, 0), (250, 0, 100)])
def test_tcp_tells_by_what_it_had_to_send_again(resent: int, duplicates: int, balance: int) -> None:
    sender = {"packets_sent": SENT, "packets_retransmitted": resent, "duplicates_reported": duplicates}
    sender["packets_received"] = 500
    receiver = {"packets_sent": 500, "packets_retransmitted": 0, "duplicates_reported": 0, "packets_received": 17}
    told = audit(ledger(), sender, receiver)
    assert told["balance"] == balance
    assert is_balanced(told) == (balance == 0)


def test_a_program_that_tells_nothing_is_held_to_the_link_alone() -> None:
    told = audit(ledger(), {}, {})
    assert is_balanced(told)
    assert (told["sent"], told["received"]) == (None, None)


def test_a_link_that_contradicts_itself_does_not_balance() -> None:
    of_link = ledger()
    of_link.forward.delivered -= 60
    assert not is_balanced(audit(of_link, {}, {}))


def test_super_packets_of_a_veth_are_not_compared_with_packets() -> None:
    told = audit(ledger(lost=0, queue=5, emulator="veth", offered=300), *udp(received=SENT - 200))
    assert is_balanced(told)
    assert not is_balanced(audit(ledger(lost=0, queue=0, emulator="veth"), *udp(received=SENT - 200)))
