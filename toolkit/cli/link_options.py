"""The options that describe a network path, for `link`, `bench link`, `bench lan` and `sim`; each is worded here once.

The notation of the values (rates, bursts, queues, changes) is parsed by `toolkit.netmodel.notation`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from toolkit.cli.command import GroupDisplay, flag, option

LIST_FIELDS = ("link", "rate", "rtt", "loss")
DEFAULTS = {"rate": "100Mbit", "rtt": "40ms", "loss": "0%"}
"""What `bench link` and `sim` assume where neither an option nor a named link says it."""

AS_LISTS = GroupDisplay(frozenset(LIST_FIELDS), {**DEFAULTS, "queue": "rate x rtt"})
"""`--link`, `--rate`, `--rtt` and `--loss` accept lists; every combination is a path."""
RATE_AS_LIST = GroupDisplay(frozenset({"rate"}))

Rate = Annotated[
    str | None, option("--rate", metavar="RATE", text="Bottleneck rate, for example 100Mbit.", panel="Path")
]


@dataclass(frozen=True, slots=True)
class LanArguments:
    """What `bench lan` accepts: a LAN has a rate only."""

    rate: Rate = None


def _link_names() -> list[str]:
    from toolkit.netmodel.profiles import PROFILES  # only the tab key needs them here

    return list(PROFILES)


@dataclass(frozen=True, slots=True)
class PathArguments:
    """What describes a path in all these commands."""

    PANEL: ClassVar[str] = "Path"

    link: Annotated[
        str | None,
        option(
            "--link",
            "--profile",
            metavar="NAME",
            text="Named link to start from, for example lte; 'nettool link --list' shows all.",
            offered=_link_names,
        ),
    ] = None
    rate: Rate = None
    rtt: Annotated[
        str | None,
        option("--rtt", metavar="TIME", text="Round-trip propagation delay, half each way, for example 40ms."),
    ] = None
    queue: Annotated[
        str | None,
        option(
            "--queue",
            metavar="QUEUE",
            text="Queue at the bottleneck: a size (500kB), a time (50ms), codel or codel,ecn.",
        ),
    ] = None
    loss: Annotated[
        str | None, option("--loss", metavar="SHARE", text="Random loss of single packets, for example 1%.")
    ] = None
    burst: Annotated[
        str | None,
        option(
            "--burst",
            metavar="SHARE:TIME[:LOSS]",
            text="Bursts of loss: 1%:20ms loses every packet for 1% of the time, 20 ms per burst on average.",
        ),
    ] = None
    jitter: Annotated[
        str | None,
        option("--jitter", metavar="TIME", text="Mean of a random extra delay, for example 2ms; the order is kept."),
    ] = None
    reorder: Annotated[
        str | None,
        option(
            "--reorder",
            metavar="SHARE",
            text="Share of packets held back by 5 ms, so that others overtake them, for example 1%.",
        ),
    ] = None
    at: Annotated[
        list[str] | None,
        option(
            "--at",
            metavar="CHANGE",
            text="Scheduled change of rate, rtt, loss or a blackout, for example '5s rate 20Mbit'. Repeatable.",
        ),
    ] = None

    def impairments(self) -> dict[str, Any]:
        """Return the fields that hold one value in every command, under the names of `netmodel.notation.LinkText`."""
        return {"queue": self.queue, "burst": self.burst, "jitter": self.jitter, "reorder": self.reorder}


@dataclass(frozen=True, slots=True)
class EmulatedPathArguments(PathArguments):
    """What `link` and `bench link` accept: a path whose two directions may differ."""

    both_ways: Annotated[
        bool,
        flag(
            "--both-ways",
            text="Apply loss, jitter and other impairments in both directions, not only from near to far.",
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class LinkArguments(EmulatedPathArguments):
    """What `link` accepts: every property of a `LinkSpec`."""

    rate_back: Annotated[
        str | None,
        option("--rate-back", metavar="RATE", text="Bottleneck rate from far to near, if it differs from --rate."),
    ] = None
    delay_back: Annotated[
        str | None,
        option("--delay-back", metavar="TIME", text="Part of --rtt from far to near, if it is not half of it."),
    ] = None
    jitter_reorders: Annotated[
        bool, flag("--jitter-reorders", text="Draw the jitter for each packet separately, so that packets overtake.")
    ] = False
    duplicate: Annotated[
        str | None, option("--duplicate", metavar="SHARE", text="Share of packets that arrive twice, for example 1%.")
    ] = None
    corrupt: Annotated[
        str | None,
        option("--corrupt", metavar="SHARE", text="Share of packets that arrive with a flipped bit, for example 1%."),
    ] = None
    trace: Annotated[
        Path | None,
        option("--trace", metavar="FILE", text="Delivery trace in mahimahi format that replaces --rate."),
    ] = None
    trace_back: Annotated[
        Path | None,
        option("--trace-back", metavar="FILE", text="Delivery trace for the direction from far to near."),
    ] = None
    mtu: Annotated[int | None, option("--mtu", metavar="BYTES", text="MTU of both interfaces.", default="1500")] = None
    seed: Annotated[int | None, option("--seed", metavar="N", text="Seed of every random draw.", default="1")] = None
