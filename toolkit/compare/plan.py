"""What a campaign measures, and in which order.

A **cell** is one transport on one path at one size. A **block** holds every transport at every size once, on
one path; its trials run one after the other in an order drawn anew for each block, so that whatever drifts
(heat, other work, the page cache) falls on all alike, and so that the results of a block are pairs
(randomised complete block design). The link draws the same random numbers in every trial of a block. Each
transport runs once before the first block, to warm up; that trial is kept in the record and counts in no
figure.
"""

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import NamedTuple

from toolkit.compare.records import CONTROL_SUFFIX
from toolkit.errors import UsageError, printable
from toolkit.rudp.congestion.base import DEFAULT_CONTROLLER as UDP_DEFAULT
from toolkit.units import parse_rate

WARM_UP = -1
TCP_DEFAULT = "cubic"
"""Named rather than left to the kernel's default, so that two hosts' figures mean the same."""
IPERF3, AIOQUIC = "iperf3", "aioquic"
_LIST = "tcp or udp, with a congestion control like tcp-bbr or udp-cubic, or quic, iperf3-tcp, iperf3-udp"


@dataclass(frozen=True, slots=True)
class Setting:
    """One transport with its settings.

    label:              its name in tables, `tcp-cubic`
    transport:          "tcp", "udp" or "quic"
    congestion_control: its name; None for the program's default
    program:            None for nettool itself, else IPERF3 or AIOQUIC
    rate_bps:           an upper bound on the sending rate, or the target where the control is `rate`; None
                        for none, or for what the path carries
    """

    label: str
    transport: str
    congestion_control: str | None
    program: str | None = None
    rate_bps: float | None = None


class Turn(NamedTuple):
    """One trial to be run; `block` is WARM_UP, or counts from 0."""

    block: int
    setting: Setting
    payload_bytes: int


def parse_transports(text: str, tcp_congestion_control: str = TCP_DEFAULT) -> list[Setting]:
    """`tcp,udp,udp-rate=50Mbit,quic`: see `_LIST`; a rate may follow each. Raises UsageError."""
    settings = [_parse(word.strip(), tcp_congestion_control) for word in text.split(",")]
    if len({setting.label for setting in settings}) < len(settings):
        raise UsageError(f"'{printable(text, 40)}' names a transport twice: once is enough, it is repeated anyway")
    return settings


def _parse(word: str, tcp_congestion_control: str) -> Setting:
    name, equals, rate = word.partition("=")
    rate_bps = parse_rate(rate) if equals else None
    program, is_outside, rest = name.partition("-")
    if name == "quic" or (program == "quic" and rest):
        return Setting(word, "quic", rest or None, AIOQUIC, rate_bps)
    if program == IPERF3 and is_outside:
        transport, _, chosen = rest.partition("-")
        if transport == "tcp":
            return Setting(word, "tcp", chosen or tcp_congestion_control, IPERF3, rate_bps)
        if rest == "udp":
            return Setting(word, "udp", None, IPERF3, rate_bps)
    transport, _, chosen = name.partition("-")
    defaults = {"tcp": tcp_congestion_control, "udp": UDP_DEFAULT}
    if transport not in defaults:
        raise UsageError(f"'{printable(word, 40)}' is no transport: write {_LIST}")
    control = chosen or defaults[transport]
    return Setting(f"{transport}-{control}{equals}{rate}", transport, control, None, rate_bps)


def refuse_missing(settings: Sequence[Setting]) -> None:
    """Raise UsageError where a program that is to run is not installed."""
    programs = {setting.program for setting in settings}
    if IPERF3 in programs and shutil.which(IPERF3) is None:
        raise UsageError("iperf3 is not installed here: 'apt install iperf3' or its like, or leave it out")
    if AIOQUIC in programs and find_spec("aioquic") is None:
        raise UsageError("quic needs aioquic, which is not installed: pip install 'nettool[quic]', or leave it out")


def baseline_of(settings: Sequence[Setting]) -> Setting:
    """What ratios are taken to: nettool's first TCP, or else the first."""
    own = (s for s in settings if s.transport == "tcp" and s.program is None)
    return next(own, settings[0])


def with_control(settings: Sequence[Setting]) -> list[Setting]:
    """The settings and, after them, the A/A control."""
    base = baseline_of(settings)
    return [*settings, replace(base, label=base.label + CONTROL_SUFFIX)]


def schedule(settings: Sequence[Setting], sizes: Sequence[int], repeats: int, seed: int) -> Iterator[Turn]:
    """Every transport once to warm up, at the least size, then `repeats` blocks; the same seed, the same order."""
    generator = random.Random(seed)
    for setting in generator.sample(settings, len(settings)):
        yield Turn(WARM_UP, setting, min(sizes))
    turns = [(setting, size) for setting in settings for size in sizes]
    for block in range(repeats):
        for setting, size in generator.sample(turns, len(turns)):
            yield Turn(block, setting, size)
