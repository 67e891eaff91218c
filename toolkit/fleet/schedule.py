"""Which trial comes next: every host busy, none in two trials, and drift that meets all pairs alike. No clock, no I/O.

A **visit** is one block of one pair: its trials, in random order, run one after the other, so that they are compared
under the same conditions; until they are done, the visit holds both hosts. The visits of a block are laid out in
*rounds*, in each of which a host appears at most once: those of a tournament (the circle method, a one-factorisation of
the complete graph; its table of hosts by rounds is a Latin square), with hosts and rounds shuffled anew for each block.

Rounds are an order, not a barrier: the next visit is the first in that order whose hosts are both free. So a slow pair
delays nobody but its own two hosts, and the order keeps the greedy choice from starving a pair. Nobody runs further
ahead than one block, so that all pairs meet the same hours of the day.
"""

import random
from collections.abc import Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.comparison.plan import TrialSpec
from toolkit.comparison.records import Setting

Pair = tuple[str, str]


@dataclass(slots=True, eq=False)
class Visit:
    """One block of one pair. `left`: trials that are not done; `attempts`: how often a host was missing for it."""

    pair: Pair
    block: int
    left: list[TrialSpec]
    attempts: int = 0


@dataclass(slots=True)
class Schedule:
    """The visits that are left, in order, and which hosts are held.

    retries: how often a visit is tried again when a host was missing, before its pair is given up
    at_once: the most visits at the same time; None for as many as the hosts allow
    """

    visits: list[Visit]
    retries: int
    at_once: int | None = None
    running: dict[Pair, Visit] = field(default_factory=dict)
    given_up: list[Pair] = field(default_factory=list)

    def start(self, present: Container[str]) -> Visit | None:
        """Begin the next visit whose hosts are both free and present; None if there is none now."""
        if not self.visits or (self.at_once is not None and len(self.running) >= self.at_once):
            return None
        possible = [visit for visit in self.visits if all(host in present for host in visit.pair)]
        last = 1 + min((visit.block for visit in (*possible, *self.running.values())), default=0)
        held = self.held
        visit = next((each for each in possible if each.block <= last and not held.intersection(each.pair)), None)
        if visit is not None:
            self.visits.remove(visit)
            self.running[visit.pair] = visit
        return visit

    @property
    def held(self) -> set[str]:
        """The hosts that take part in a visit now."""
        return {host for pair in self.running for host in pair}

    @property
    def is_over(self) -> bool:
        """Whether nothing is left and nothing runs."""
        return not self.visits and not self.running

    def on_trial(self, visit: Visit) -> bool:
        """The first trial of `visit.left` has a result; whether the visit goes on."""
        visit.left.pop(0)
        if not visit.left:
            del self.running[visit.pair]
        return bool(visit.left)

    def on_outage(self, visit: Visit) -> bool:
        """A host was missing for the first trial of `visit.left`; whether the pair is given up with that.

        The visit goes to the end of its block: the other pairs come first.
        """
        del self.running[visit.pair]
        visit.attempts += 1
        if visit.attempts > self.retries:
            self.given_up.append(visit.pair)
            self.visits = [each for each in self.visits if each.pair != visit.pair]
            return True
        after = next((n for n, each in enumerate(self.visits) if each.block > visit.block), len(self.visits))
        self.visits.insert(after, visit)
        return False

    def missing(self, present: Container[str]) -> list[Visit]:
        """The visits that wait for a host that is not there."""
        return [visit for visit in self.visits if not all(host in present for host in visit.pair)]


def make_visits(
    pairs: Sequence[Pair],
    settings: Sequence[Setting],
    sizes: Sequence[int],
    repeats: int,
    seed: int,
    done: Mapping[Pair, Container[Hashable]] | None = None,
) -> list[Visit]:
    """All visits of a run in their order; the same arguments give the same.

    done: of each pair, the trials that have a result, as (block, transport, payload_bytes): they are left out
    """
    visits = []
    cells = [(setting, size) for setting in settings for size in sizes]
    for block in range(repeats):
        generator = random.Random(f"{seed} {block}")
        for pair in in_rounds(pairs, generator):
            order = random.Random(f"{seed} {block} {pair}").sample(cells, len(cells))
            known = (done or {}).get(pair, ())
            left = [TrialSpec(block, *cell) for cell in order if (block, cell[0].label, cell[1]) not in known]
            if left:
                visits.append(Visit(pair, block, left))
    return visits


def in_rounds(pairs: Sequence[Pair], generator: random.Random) -> list[Pair]:
    """The pairs, shuffled, so that those of a round follow each other; no host is in a round twice."""
    hosts = sorted({host for pair in pairs for host in pair})
    generator.shuffle(hosts)
    wanted = set(pairs)
    rounds = []
    for matches in tournament(hosts):
        # Every match has two directions, each in a round of its own; which comes first is drawn for each match.
        ways = [generator.choice(((a, b), (b, a))) for a, b in matches]
        rounds += [ways, [(b, a) for a, b in ways]]
    generator.shuffle(rounds)
    return [pair for each in rounds for pair in each if pair in wanted]


def tournament(hosts: Sequence[str]) -> Iterator[list[Pair]]:
    """The rounds of a tournament: each two hosts meet once, and each host once a round (one rests if they are odd).

    The circle method (E. Lucas, Recreations mathematiques, 1883): one host stays, the others rotate around it.
    """
    circle: list[str | None] = [*hosts, *([None] if len(hosts) % 2 else [])]
    for _ in range(len(circle) - 1):
        half = len(circle) // 2
        facing = zip(circle[:half], reversed(circle[half:]), strict=True)
        yield [(a, b) for a, b in facing if a is not None and b is not None]
        circle.insert(1, circle.pop())
