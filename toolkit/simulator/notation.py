"""Paths of simulations as users write them: as in `toolkit.netmodel.notation`, with queues in multiples of the BDP.

`nettool sim` makes them from its options, and a grid of simulations from a file.
"""

import re
from dataclasses import replace

from toolkit.errors import UsageError
from toolkit.netmodel.notation import LinkText, link_spec
from toolkit.netmodel.spec import LinkSpec
from toolkit.simulator.simulator import IP_UDP_BYTES
from toolkit.units import (
    format_duration_ns,
    format_fraction,
    format_rate,
    parse_duration_ns,
    parse_fraction,
    parse_rate,
)

_BDP = re.compile(r"(\d{1,4}(?:\.\d{1,6})?)bdp", re.IGNORECASE)


def simulated_link(text: LinkText, base: LinkSpec | None = None) -> LinkSpec:
    """The link of `text`, whose queue may be a multiple of the bandwidth-delay product, such as 4bdp.

    base: the link that `text` changes; as in `toolkit.netmodel.notation.link_spec`

    Raises UsageError, also if the link has no bottleneck.
    """
    link = link_spec(replace(text, queue=None), base)
    rate_bps = link.forward.mean_rate_bps
    if rate_bps is None:
        raise UsageError(
            "a path without a bottleneck has nothing to simulate: add --rate (in a file: rate), for example 1Gbit"
        )
    if text.queue is None:
        return link
    bdp_bytes = rate_bps * link.rtt_ns / 8e9
    words = (word.strip() for word in text.queue.split(","))
    sizes = (str(int(float(found[1]) * bdp_bytes)) if (found := _BDP.fullmatch(word)) else word for word in words)
    return link_spec(replace(text, queue=",".join(sizes)), base)


def fixed_rate_bps(control: str, link: LinkSpec) -> float | None:
    """The rate for the controller `rate`: that of the bottleneck, as a user who knows the path would set it."""
    rate_bps = link.forward.mean_rate_bps
    return rate_bps * (link.mtu_bytes - IP_UDP_BYTES) / link.mtu_bytes if control == "rate" and rate_bps else None


def formatted(name: str, value: str) -> str:
    """The value of a link's option in one notation, however the user wrote it. Raises UsageError."""
    if name == "rate":
        return format_rate(parse_rate(value))
    if name == "rtt":
        return format_duration_ns(parse_duration_ns(value))
    return format_fraction(parse_fraction(value)) if name == "loss" else value
