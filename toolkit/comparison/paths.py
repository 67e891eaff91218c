"""The paths of a campaign: from what the user asks for to a link specification, and to the campaign's record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from toolkit.comparison.records import LinkOption, PathRecord
from toolkit.errors import UsageError
from toolkit.netmodel.ideal import ideal_bytes
from toolkit.netmodel.notation import LinkText, link_spec
from toolkit.netmodel.profiles import profile
from toolkit.netmodel.spec import LAN, LinkSpec, PathSpec, queue_limit_bytes
from toolkit.units import format_duration_ns, format_fraction, format_rate, format_size

LOOPBACK, LAN_KIND, LINK, REMOTE = KINDS = ("loopback", "lan", "link", "remote")
FLEET = "fleet"
"""Name of a campaign whose paths are REMOTE, each between two hosts of a fleet."""
PAYLOAD_SHARE = 1448 / 1500
"""Payload in an IP packet of 1,500 bytes of TCP with timestamps (RFC 9293, RFC 7323); with UDP it is 1,452 at best."""
_NS_PER_S = 10**9


@dataclass(frozen=True, slots=True)
class BenchPath:
    """One path.

    label:   its name in tables
    kind:    LOOPBACK, LAN_KIND, LINK or REMOTE
    options: the path's specification, as options of `nettool link` by name; `link` names a profile
    spec:    the link that the options describe; None for a path that nettool does not create
    sender, receiver: names of hosts of a fleet; None elsewhere
    is_reverse: whether the other machine of a REMOTE path sends, and this one receives
    """

    label: str
    kind: str
    options: Mapping[str, LinkOption]
    spec: LinkSpec | None
    sender: str | None = None
    receiver: str | None = None
    is_reverse: bool = False

    @property
    def rate_bps(self) -> float | None:
        """Rate of the bottleneck, in bits of IP packets; None without a limit."""
        return None if self.spec is None else self.spec.forward.mean_rate_bps

    @property
    def rtt_s(self) -> float:
        """Round trip without any queue; 0 where it is not known beforehand."""
        return 0.0 if self.spec is None else self.spec.rtt_ns / _NS_PER_S

    @property
    def loss(self) -> float:
        """Share of packets lost on the way from the sender to the receiver, bursts included."""
        if self.spec is None:
            return 0.0
        return _loss(self.spec.forward)

    @property
    def round_trip_loss(self) -> float:
        """Share of packets of which either the packet or its answer is lost."""
        return 0.0 if self.spec is None else 1 - (1 - _loss(self.spec.forward)) * (1 - _loss(self.spec.backward))

    @property
    def ideal_bps(self) -> float | None:
        """Payload that the path carries and does not lose, which no transport can exceed; None without a limit."""
        if self.spec is None:
            return None
        carried = ideal_bytes(replace(self.spec.forward, changes=()), PAYLOAD_SHARE, 0, _NS_PER_S)
        return None if carried is None else 8 * carried

    def record(self) -> PathRecord:
        """The path as its campaign records it."""
        if self.spec is None:
            return PathRecord(
                self.kind,
                text=self.label,
                sender=self.sender,
                receiver=self.receiver,
                is_reverse=self.is_reverse,
            )
        burst = self.options.get("burst")
        recorded = PathRecord(
            kind=self.kind,
            rate_bps=self.rate_bps,
            burst=str(burst) if burst is not None else None,
            queue=_queue(self.spec),
            text=self._command(),
            seed=self.spec.seed,
            ideal_bps=self.ideal_bps,
            link=dict(self.options),
        )
        if self.kind != LINK:
            return recorded
        jitter_ms = self.spec.forward.jitter_ns / 1e6
        return replace(recorded, rtt_ms=self.spec.rtt_ns / 1e6, loss=self.loss, jitter_ms=jitter_ms)

    def _command(self) -> str:
        words = ["nettool link"]
        for name, value in self.options.items():
            option = "--at" if name == "changes" else f"--{name.replace('_', '-')}"
            values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            words += [option if each is True else f"{option} {each!s}" for each in values]
        return " ".join(words)


def _loss(path: PathSpec) -> float:
    bursts = path.burst.mean_loss if path.burst else 0.0
    return 1 - (1 - path.loss) * (1 - path.corrupt) * (1 - bursts)


def _queue(spec: LinkSpec) -> str | None:
    if spec.forward.mean_rate_bps is None:
        return None
    codel = "CoDel, " if spec.forward.queue.codel else ""
    return codel + format_size(queue_limit_bytes(spec.forward, spec.rtt_ns))


def loopback() -> BenchPath:
    """The loopback interface of this machine."""
    return BenchPath(LOOPBACK, LOOPBACK, {}, None)


def remote(host: str, *, is_reverse: bool = False) -> BenchPath:
    """The path to another machine, or from there to this one."""
    return BenchPath(f"{host}, reverse" if is_reverse else host, REMOTE, {}, None, is_reverse=is_reverse)


def between(sender: str, receiver: str) -> BenchPath:
    """The path from one host of a fleet to another."""
    return BenchPath(f"{sender} to {receiver}", REMOTE, {}, None, sender, receiver)


def from_options(kind: str, options: Mapping[str, LinkOption], seed: int) -> BenchPath:
    """A LAN or an emulated link from options of `nettool link`. Raises UsageError."""
    known = {f.name for f in fields(LinkText)} - {"trace", "trace_back", "seed"} | {"link"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise UsageError(f"a path has no option '{unknown[0]}': choose from {', '.join(sorted(known))}")
    given = {name: value for name, value in options.items() if value not in (None, False, ())}
    base = profile("lan").spec if kind == LAN_KIND else None
    if "link" in given:
        base = profile(str(given["link"])).spec
    words: dict[str, Any] = {name: value for name, value in given.items() if name != "link"}
    if "changes" in words:
        words["changes"] = tuple(words["changes"])
    spec = replace(link_spec(LinkText(**words), base), seed=seed)
    kind = LAN_KIND if spec.kind == LAN else LINK
    return BenchPath(_label(kind, given, spec), kind, given, spec)


def combined(
    kind: str, lists: Mapping[str, Sequence[LinkOption]], common: Mapping[str, LinkOption], seed: int
) -> list[BenchPath]:
    """Every combination of the lists (option -> values), each with the `common` options. Raises UsageError."""
    given = {name: values for name, values in lists.items() if values}
    paths = [
        from_options(kind, {**common, **dict(zip(given, values, strict=True))}, seed)
        for values in product(*given.values())
    ]
    if len({path.label for path in paths}) < len(paths):
        raise UsageError("two paths of this campaign are the same: write each value once")
    return paths


def _label(kind: str, options: Mapping[str, Any], spec: LinkSpec) -> str:
    parts = [str(options["link"])] if "link" in options else []
    forward = spec.forward
    if kind == LAN_KIND:
        parts = [LAN_KIND]
    if forward.mean_rate_bps is not None and ("link" not in options or "rate" in options):
        parts.append(format_rate(forward.mean_rate_bps))
    if kind == LINK and ("link" not in options or "rtt" in options):
        parts.append(format_duration_ns(spec.rtt_ns))
    if kind == LINK and ("link" not in options or "loss" in options):
        parts.append(f"{format_fraction(forward.loss)} loss")
    for name in (f.name for f in fields(LinkText) if f.name in options and f.name not in ("rate", "rtt", "loss")):
        if name == "changes":
            parts.extend(str(change) for change in options["changes"])
        else:
            words = name.replace("_", " ")
            parts.append(words if options[name] is True else f"{words} {options[name]}")
    return ", ".join(parts)
