"""What a campaign measures, and in which order.

A **cell** is one way to move the payload. A **block** holds every cell once; the cells of a block run one
after the other in an order drawn anew for each block, so that whatever drifts (heat, other work, the page
cache) falls on all alike, and so that the results of a block are pairs (randomised complete block design).
Each cell runs once before the first block, to warm up; that trial is kept in the record and counts in no
figure.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

WARM_UP = -1


@dataclass(frozen=True, slots=True)
class Cell:
    """One transport with its settings.

    label:              its name in tables, `tcp-cubic`
    transport:          its name in `toolkit.transports.registry`
    congestion_control: handed to the transport as it is; None for the transport's default
    """

    label: str
    transport: str
    congestion_control: str | None


class Turn(NamedTuple):
    """One trial to be run; `block` is WARM_UP, or counts from 0."""

    block: int
    cell: Cell


def schedule(cells: Sequence[Cell], repeats: int, seed: int) -> Iterator[Turn]:
    """Every cell once to warm up, then `repeats` blocks; the same seed gives the same order."""
    generator = random.Random(seed)
    for block in range(WARM_UP, repeats):
        for cell in generator.sample(cells, len(cells)):
            yield Turn(block, cell)
