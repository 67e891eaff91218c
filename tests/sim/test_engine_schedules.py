"""Random networks in virtual time: everything arrives, exactly once.

A schedule depends only on its seed. To replay a failure, run its chunk with `pytest -k 'exactly and 123'`, or call
`run_schedule(seed)`. More seeds: `NETTOOL_SCHEDULES=5000 pytest` on this file.
"""

import os
import random
from itertools import pairwise

import pytest

from tests.support.engine_pair import MS, SECOND, Hazards, Pair
from tests.support.repetitions import first_then_long
from toolkit.rudp.config import Config
from toolkit.rudp.congestion.base import CONTROLLER_NAMES

SCHEDULES = int(os.environ.get("NETTOOL_SCHEDULES", "100"))
CHUNK = 25
MAX_DATA_BYTES = 300_000


def random_hazards(rng: random.Random) -> Hazards:
    """A path of any delay, rate and quality."""
    starts_ns = sorted(SECOND + rng.randrange(3 * SECOND) for _ in range(rng.choice((0, 0, 1, 2))))
    blackouts = [(start, start + rng.randrange(50 * MS, 2 * SECOND)) for start in starts_ns]
    return Hazards(
        delay_ns=rng.choice((0, 10_000, MS, 5 * MS, 40 * MS, 150 * MS)),
        loss=rng.choice((0.0, 0.001, 0.01, 0.05, 0.15, 0.3)),
        duplicate=rng.choice((0.0, 0.0, 0.01, 0.2)),
        corrupt=rng.choice((0.0, 0.0, 0.01, 0.1)),
        reorder=rng.choice((0.0, 0.0, 0.01, 0.3)),
        reorder_ns=rng.choice((100_000, 3 * MS, 30 * MS)),
        rate_bps=rng.choice((None, None, 5e6, 50e6, 1e9)),
        queue_ns=rng.choice((2 * MS, 20 * MS, 200 * MS)),
        blackout=lambda now_ns: any(start <= now_ns < end for start, end in blackouts),
    )


def random_config(rng: random.Random) -> Config:
    control = rng.choice(CONTROLLER_NAMES)
    return Config(
        congestion_control=control,
        rate_bps=rng.choice((2e6, 50e6)) if control == "rate" else rng.choice((None, None, None, 20e6)),
        receive_window_bytes=rng.choice((1 << 16, 1 << 18, 4 << 20)),
        seed=rng.randrange(1 << 32),
    )


def random_messages(rng: random.Random) -> list[bytes]:
    sizes = [rng.choice((0, 1, 100, 1442, 1443, 5000, 40_000)) for _ in range(rng.choice((0, 1, 5, 20)))]
    return [rng.randbytes(size) for size in sizes]


def run_schedule(seed: int) -> None:
    """One network, with a transfer and messages in each direction, handed over at random times."""
    rng = random.Random(seed)
    pair = Pair(
        seed,
        random_hazards(rng),
        random_hazards(rng),
        data=rng.choice((0, 1, 1000, rng.randrange(60_000), rng.randrange(MAX_DATA_BYTES + 1))),
        back_data=rng.choice((0, 0, rng.randrange(60_000))),
        near_config=random_config(rng),
        far_config=random_config(rng),
        gro=rng.random() < 0.5,
    )
    messages = [random_messages(rng), random_messages(rng)]
    pending = [list(m) for m in messages]
    for end, peer in pair.ends:
        cuts = sorted(rng.randrange(len(end.source.content) + 1) for _ in range(rng.randrange(4)))
        for start, stop in pairwise([0, *cuts, len(end.source.content)]):
            end.connection.offer_data(stop - start)
            pair.pump(end, peer)
    while any(pending):
        for (end, _), queue in zip(pair.ends, pending, strict=True):
            for _ in range(min(len(queue), rng.randrange(1, 6))):
                end.connection.send_message(queue.pop(0))
        pair.run_for(rng.randrange(50 * MS))
    pair.run_until_acked()
    assert pair.far.messages == messages[0], f"seed {seed}"
    assert pair.near.messages == messages[1], f"seed {seed}"
    for end, _ in pair.ends:
        assert end.connection.stats().bytes_in_flight >= 0, f"seed {seed}"


@pytest.mark.parametrize("first", first_then_long(range(0, SCHEDULES, CHUNK)))
def test_every_schedule_delivers_everything_exactly_once(first: int) -> None:
    for seed in range(first, first + CHUNK):
        try:
            run_schedule(seed)
        except Exception as error:
            raise AssertionError(f"schedule {seed} failed: {error}") from error


def test_a_schedule_depends_only_on_its_seed() -> None:
    def transmissions(seed: int) -> list[tuple[int, int]]:
        pair = Pair(seed, Hazards(loss=0.2, reorder=0.1, duplicate=0.1), data=100_000)
        pair.near.offer()
        pair.run_until_acked()
        return [(end.sent_datagrams, end.dropped_datagrams) for end, _ in pair.ends] + [(pair.now_ns, 0)]

    assert transmissions(7) == transmissions(7)
    assert transmissions(7) != transmissions(8)
