"""A fleet's schedule: no host twice, every host busy, pairs alike, and a missing host costs its own pairs only."""

import random
from collections import Counter
from itertools import permutations

import pytest

from toolkit.comparison.plan import parse_transports
from toolkit.fleet.schedule import Pair, Schedule, Visit, in_rounds, make_visits, tournament

SETTINGS = parse_transports("tcp-cubic,udp-bbr")
HOSTS = list("abcdefgh")


def mesh(hosts: list[str] = HOSTS) -> list[Pair]:
    return list(permutations(hosts, 2))


def schedule(pairs: list[Pair], repeats: int = 2, retries: int = 1, at_once: int | None = None) -> Schedule:
    return Schedule(make_visits(pairs, SETTINGS, [0], repeats, seed=7), retries, at_once)


def started(plan: Schedule, present: list[str] = HOSTS) -> list[Visit]:
    found = []
    while (visit := plan.start(present)) is not None:
        found.append(visit)
    return found


def finish(plan: Schedule, visit: Visit) -> None:
    while plan.on_trial(visit):
        pass


@pytest.mark.parametrize("count", range(2, 12))
def test_a_tournament_has_each_two_once_and_no_host_twice_in_a_round(count: int) -> None:
    hosts = [f"h{number}" for number in range(count)]
    rounds = list(tournament(hosts))
    assert len(rounds) == count - 1 + count % 2
    for matches in rounds:
        assert max(Counter(host for match in matches for host in match).values()) == 1
        assert len(matches) == count // 2
    assert len({frozenset(match) for matches in rounds for match in matches}) == count * (count - 1) // 2


def test_rounds_have_every_pair_once_and_their_order_is_drawn() -> None:
    orders = [in_rounds(mesh(), random.Random(seed)) for seed in range(3)]
    assert all(sorted(order) == sorted(mesh()) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    for start in range(0, len(orders[0]), 4):
        assert len({host for pair in orders[0][start : start + 4] for host in pair}) == 8


def test_every_host_is_busy_and_none_is_in_two_visits() -> None:
    plan = schedule(mesh())
    generator = random.Random(1)
    steps = 0
    while not plan.is_over:
        started(plan)
        hosts = [host for pair in plan.running for host in pair]
        assert len(hosts) == len(set(hosts))
        finish(plan, generator.choice(list(plan.running.values())))  # pairs take different times
        steps += 1
    assert steps == 2 * len(mesh())


def test_equal_visits_keep_all_hosts_busy_until_the_end() -> None:
    plan = schedule(mesh(), repeats=1)
    waves = 0
    while not plan.is_over:
        assert len(started(plan)) == 4
        for visit in list(plan.running.values()):
            finish(plan, visit)
        waves += 1
    assert waves == 14  # two directions of seven rounds


def test_blocks_hold_every_transport_once_in_an_order_of_their_own() -> None:
    visits = make_visits(mesh(), SETTINGS, [0], 4, seed=7)
    assert len(visits) == 4 * len(mesh())
    orders = Counter(tuple(spec.setting.label for spec in visit.left) for visit in visits)
    assert set(orders) == {("tcp-cubic", "udp-bbr"), ("udp-bbr", "tcp-cubic")}
    assert min(orders.values()) > len(visits) / 3
    first = [visit.pair for visit in visits if visit.block == 0]
    assert first != [visit.pair for visit in visits if visit.block == 1]


def test_the_same_seed_gives_the_same_order() -> None:
    def order(seed: int) -> list[tuple[Pair, int, list[str]]]:
        visits = make_visits(mesh(), SETTINGS, [0], 2, seed)
        return [(each.pair, each.block, [spec.setting.label for spec in each.left]) for each in visits]

    assert order(3) == order(3) != order(4)


def test_what_is_done_is_left_out() -> None:
    pairs = mesh(["a", "b"])
    done = {("a", "b"): {(0, "tcp-cubic", 0), (0, "udp-bbr", 0), (1, "tcp-cubic", 0)}}
    visits = make_visits(pairs, SETTINGS, [0], 2, 7, done)
    left = {(each.pair, each.block): [spec.setting.label for spec in each.left] for each in visits}
    assert ("a", "b") not in [pair for pair, block in left if block == 0]
    assert left[("a", "b"), 1] == ["udp-bbr"]
    assert len(left[("b", "a"), 0]) == 2


def test_no_pair_runs_more_than_a_block_ahead() -> None:
    plan = schedule(mesh(["a", "b", "c", "d"]), repeats=5)
    slow = started(plan, ["a", "b", "c", "d"])[0]
    blocks = []
    for _ in range(20):
        for visit in [each for each in plan.running.values() if each is not slow]:
            blocks.append(visit.block)
            finish(plan, visit)
        started(plan, ["a", "b", "c", "d"])
    assert max(blocks) <= 1


def test_a_missing_host_holds_up_nobody_else() -> None:
    plan = schedule(mesh(["a", "b", "c"]), repeats=3)
    finished = []
    while (visit := plan.start(["a", "b"])) is not None:
        finished.append((visit.pair, visit.block))
        finish(plan, visit)
    assert len(finished) == 2 * 3
    assert {pair for pair, _ in finished} == {("a", "b"), ("b", "a")}
    assert len(plan.missing(["a", "b"])) == 4 * 3
    assert not plan.is_over


def test_an_outage_puts_the_visit_behind_its_block_and_after_the_retries_gives_the_pair_up() -> None:
    plan = schedule(mesh(["a", "b", "c"]), repeats=2, retries=1)
    present = ["a", "b", "c"]
    first = plan.start(present)
    assert first is not None
    assert plan.on_outage(first) is False
    order = []
    while True:
        visit = plan.start(present)
        assert visit is not None
        if visit is first:
            break
        order.append(visit.block)
        finish(plan, visit)
    assert order == [0] * 5
    assert plan.on_outage(first) is True
    assert plan.given_up == [first.pair]
    while (visit := plan.start(present)) is not None:
        assert visit.pair != first.pair
        finish(plan, visit)
    assert plan.is_over


def test_a_visit_that_loses_a_host_goes_on_where_it_was() -> None:
    plan = schedule(mesh(["a", "b"]))
    visit = plan.start(HOSTS)
    assert visit is not None
    second = visit.left[1]
    assert plan.on_trial(visit)
    plan.on_outage(visit)
    assert visit.left == [second]


def test_at_once_limits_the_visits() -> None:
    assert len(started(schedule(mesh(), at_once=1))) == 1
    assert len(started(schedule(mesh(), at_once=3))) == 3
