"""The paths that a campaign crosses, as it is asked for them and as its record describes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from toolkit.errors import UsageError
from toolkit.netmodel.ideal import ideal_bytes
from toolkit.netmodel.notation import LinkText, link_spec
from toolkit.netmodel.profiles import profile
from toolkit.netmodel.spec import LAN, LinkSpec, queue_limit_bytes
from toolkit.units import format_duration_ns, format_fraction, format_rate, format_size

LOOPBACK, LAN_KIND, LINK, REMOTE = "loopback", "lan", "link", "remote"
PAYLOAD_SHARE = 1448 / 1500
"""Of an IP packet of 1,500 bytes over TCP with time stamps (RFC 9293, RFC 7323); UDP's is 1,452 at best."""
_NS_PER_S = 10**9


@dataclass(frozen=True, slots=True)
class BenchPath:
    """One path.

    label: its name in tables
    kind:  LOOPBACK, LAN_KIND, LINK or REMOTE
    text:  what was asked for, as options of `nettool link` by name; `link` names a profile
    spec:  the link that it comes to; None where there is none of our own
    """

    label: str
    kind: str
    text: Mapping[str, Any]
    spec: LinkSpec | None

    @property
    def rate_bps(self) -> float | None:
        """Of the bottleneck, in bits of IP packets; None where nothing limits it."""
        return None if self.spec is None else self.spec.forward.mean_rate_bps

    @property
    def rtt_s(self) -> float:
        """Without any queue; 0 where it is not known beforehand."""
        return 0.0 if self.spec is None else self.spec.rtt_ns / _NS_PER_S

    @property
    def loss(self) -> float:
        """Share of packets lost on the way there, bursts included."""
        if self.spec is None:
            return 0.0
        path = self.spec.forward
        bursts = path.burst.mean_loss if path.burst else 0.0
        return 1 - (1 - path.loss) * (1 - path.corrupt) * (1 - bursts)

    @property
    def ideal_bps(self) -> float | None:
        """The payload that the path carries and does not lose, which nothing can beat; None without a limit."""
        if self.spec is None:
            return None
        carried = ideal_bytes(replace(self.spec.forward, changes=()), PAYLOAD_SHARE, 0, _NS_PER_S)
        return None if carried is None else 8 * carried

    def to_json(self) -> dict[str, Any]:
        """The path as its campaign records it."""
        spec = self.spec
        forward = spec.forward if spec is not None else None
        is_link = self.kind == LINK and spec is not None and forward is not None
        return {
            "kind": self.kind,
            "rate_bps": self.rate_bps,
            "rtt_ms": spec.rtt_ns / 1e6 if spec is not None and is_link else None,
            "loss": self.loss if is_link else None,
            "burst": self.text.get("burst"),
            "jitter_ms": forward.jitter_ns / 1e6 if forward is not None and is_link else None,
            "queue": _queue(spec) if spec is not None else None,
            "text": self._as_options(),
            "seed": spec.seed if spec is not None else None,
            "ideal_bps": self.ideal_bps,
            "link": dict(self.text),
        }

    def _as_options(self) -> str:
        if self.kind in (LOOPBACK, REMOTE):
            return self.label
        words = ["nettool link"]
        for name, value in self.text.items():
            option = f"--{name.replace('_', '-')}"
            for one in value if name == "changes" else [value]:
                words.append(option if one is True else f"{'--at' if name == 'changes' else option} {one!s}")
        return " ".join(words)


def _queue(spec: LinkSpec) -> str | None:
    if spec.forward.mean_rate_bps is None:
        return None
    codel = "CoDel, " if spec.forward.queue.codel else ""
    return codel + format_size(queue_limit_bytes(spec.forward, spec.rtt_ns))


def loopback() -> BenchPath:
    """This machine alone."""
    return BenchPath(LOOPBACK, LOOPBACK, {}, None)


def remote(host: str) -> BenchPath:
    """To another machine."""
    return BenchPath(host, REMOTE, {}, None)


def from_text(kind: str, text: Mapping[str, Any], seed: int) -> BenchPath:
    """A lan or a link from what was written. Raises UsageError."""
    known = {f.name for f in fields(LinkText)} - {"trace", "trace_back", "seed"} | {"link"}
    unknown = sorted(set(text) - known)
    if unknown:
        raise UsageError(f"a path has no '{unknown[0]}': take one of {', '.join(sorted(known))}")
    written = {name: value for name, value in text.items() if value not in (None, False, ())}
    base = profile("lan").spec if kind == LAN_KIND else None
    if "link" in written:
        base = profile(str(written["link"])).spec
    options = {name: value for name, value in written.items() if name != "link"}
    if "changes" in options:
        options["changes"] = tuple(options["changes"])
    spec = replace(link_spec(LinkText(**options), base), seed=seed)
    kind = LAN_KIND if spec.kind == LAN else LINK
    return BenchPath(_label(kind, written, spec), kind, written, spec)


def combined(kind: str, lists: Mapping[str, Sequence[str]], rest: Mapping[str, Any], seed: int) -> list[BenchPath]:
    """Every combination of the lists (option -> values), each with what `rest` says. Raises UsageError."""
    given = {name: values for name, values in lists.items() if values}
    paths = [
        from_text(kind, {**rest, **dict(zip(given, values, strict=True))}, seed) for values in product(*given.values())
    ]
    if len({path.label for path in paths}) < len(paths):
        raise UsageError("two paths of this campaign are the same: write each value once")
    return paths


def _label(kind: str, written: Mapping[str, Any], spec: LinkSpec) -> str:
    parts = [str(written["link"])] if "link" in written else []
    forward = spec.forward
    if kind == LAN_KIND:
        parts = [LAN_KIND]
    if forward.mean_rate_bps is not None and ("link" not in written or "rate" in written):
        parts.append(format_rate(forward.mean_rate_bps))
    if kind == LINK and ("link" not in written or "rtt" in written):
        parts.append(format_duration_ns(spec.rtt_ns))
    if kind == LINK and ("link" not in written or "loss" in written):
        parts.append(f"{format_fraction(forward.loss)} loss")
    for name in (f.name for f in fields(LinkText) if f.name in written and f.name not in ("rate", "rtt", "loss")):
        if name == "changes":
            parts.extend(str(change) for change in written["changes"])
        else:
            words = name.replace("_", " ")
            parts.append(words if written[name] is True else f"{words} {written[name]}")
    return ", ".join(parts)
