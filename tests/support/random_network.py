"""A random network and its flows, drawn from a seed: all link models combined, and every congestion controller.

The draws favour bad conditions (much loss, long outages, queues of three packets) over common ones, within what a
transfer can survive: an outage is shorter than the idle timeout, and a path carries the minimum datagram.
"""

from dataclasses import replace

import numpy as np

from toolkit.netmodel.spec import BurstLoss, LinkChange, LinkSpec, PathSpec, QueueSpec
from toolkit.rudp.congestion.base import CONTROLLER_NAMES
from toolkit.simulator.simulator import IP_UDP_BYTES, FlowSpec

MS = 1_000_000
SECOND = 1000 * MS
LIMIT_NS = 900 * SECOND


class Dice:
    """Random draws from one seed."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, 500))))

    def chance(self, probability: float) -> bool:
        return self._generator.random() < probability

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._generator.random()

    def log_between(self, low: float, high: float) -> float:
        return low * (high / low) ** self._generator.random()

    def below(self, count: int) -> int:
        return int(self.between(0, count))


def random_queue(dice: Dice) -> QueueSpec:
    kind = dice.below(4)
    if kind == 0:
        return QueueSpec()
    if kind == 1:
        return QueueSpec(limit_bytes=int(dice.log_between(5_000, 1_000_000)))
    threshold_ns = int(dice.log_between(1, 20) * MS) if dice.chance(0.3) else None
    if kind == 2:
        return QueueSpec(limit_ns=int(dice.log_between(5, 500) * MS), ecn_threshold_ns=threshold_ns)
    return QueueSpec(codel=True, ecn=dice.chance(0.5), limit_bytes=int(dice.log_between(50_000, 1_000_000)))


def random_changes(dice: Dice, has_rate: bool) -> tuple[LinkChange, ...]:
    changes = []
    for _ in range(dice.below(4)):
        at_ns = int(dice.between(0, 3) * SECOND)
        kind = dice.below(4)
        if kind == 0 and has_rate:
            changes.append(LinkChange(at_ns, rate_bps=dice.log_between(0.3e6, 300e6)))
        elif kind == 1:
            changes.append(LinkChange(at_ns, delay_ns=int(dice.log_between(1, 150) * MS)))
        elif kind == 2:
            changes.append(LinkChange(at_ns, loss=dice.between(0, 0.2)))
        else:
            changes.append(LinkChange(at_ns, blackout_ns=int(dice.log_between(10, 5000) * MS)))
    return tuple(sorted(changes, key=lambda change: change.at_ns))


def random_path(dice: Dice) -> PathSpec:
    has_rate = dice.chance(0.85)
    path = PathSpec(
        rate_bps=dice.log_between(0.5e6, 1e9) if has_rate else None,
        delay_ns=int(dice.log_between(0.1, 200) * MS),
        queue=random_queue(dice) if has_rate else QueueSpec(),
        changes=random_changes(dice, has_rate),
    )
    if not has_rate and dice.chance(0.5):
        gaps = [1 + dice.below(8) for _ in range(20)]
        path = replace(path, trace_ms=tuple(int(t) for t in np.cumsum(gaps)))
    if dice.chance(0.5):
        path = replace(path, loss=dice.log_between(0.001, 0.2))
    if dice.chance(0.25):
        path = replace(path, burst=BurstLoss.from_share(dice.between(0.01, 0.1), int(dice.log_between(0.5, 100) * MS)))
    if dice.chance(0.25):
        path = replace(path, jitter_ns=int(dice.log_between(0.1, 20) * MS), jitter_reorders=dice.chance(0.5))
    if dice.chance(0.25):
        path = replace(path, reorder=dice.log_between(0.001, 0.2), reorder_delay_ns=int(dice.log_between(0.1, 50) * MS))
    if dice.chance(0.25):
        path = replace(path, duplicate=dice.log_between(0.001, 0.2))
    if dice.chance(0.25):
        path = replace(path, corrupt=dice.log_between(0.001, 0.05))
    return path


def random_network(seed: int) -> tuple[LinkSpec, list[FlowSpec]]:
    """Return the link, and one to three flows of 1 byte to 3 MB."""
    dice = Dice(seed)
    mtu = (1500, 1500, 1280, 9000)[dice.below(4)]
    link = LinkSpec(random_path(dice), random_path(dice), mtu, seed)
    flows = []
    for _ in range((1, 1, 1, 2, 3)[dice.below(5)]):
        control = CONTROLLER_NAMES[dice.below(len(CONTROLLER_NAMES))]
        target_bps = dice.log_between(1e6, 100e6) * (mtu - IP_UDP_BYTES) / mtu
        flows.append(
            FlowSpec(
                congestion_control=control,
                size_bytes=int(dice.log_between(1, 3_000_000)),
                start_ns=int(dice.between(0, 500) * MS),
                extra_delay_ns=int(dice.between(0, 20) * MS) if dice.chance(0.3) else 0,
                rate_bps=target_bps if control == "rate" or dice.chance(0.1) else None,
                validates_address=dice.chance(0.3),
            )
        )
    return link, flows
