"""Queues in multiples of the bandwidth-delay product."""

import pytest

from toolkit.errors import UsageError
from toolkit.netmodel.notation import LinkText
from toolkit.netmodel.spec import QueueSpec
from toolkit.simulator.notation import simulated_link


def queue_of(queue: str) -> QueueSpec:
    """The queue of a path of 1 Gbit/s and 40 ms, whose BDP is 5 MB."""
    return simulated_link(LinkText(rate="1Gbit", rtt="40ms", queue=queue)).forward.queue


@pytest.mark.parametrize(
    ("queue", "expected"),
    [
        ("4bdp", QueueSpec(limit_bytes=20_000_000)),
        ("0.5BDP", QueueSpec(limit_bytes=2_500_000)),
        ("codel, 1bdp", QueueSpec(limit_bytes=5_000_000, codel=True)),
        ("50ms", QueueSpec(limit_ns=50_000_000)),
    ],
)
def test_a_queue_may_be_a_multiple_of_the_bdp(queue: str, expected: QueueSpec) -> None:
    assert queue_of(queue) == expected


@pytest.mark.parametrize("queue", ["12345bdp", "1.2.3bdp", "1e4bdp", "4bdps", "bdp"])
def test_what_is_no_multiple_is_refused_as_it_was_written(queue: str) -> None:
    """A part of it would be a number."""
    with pytest.raises(UsageError, match=f"^'{queue}'"):
        queue_of(queue)
