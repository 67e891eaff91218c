"""What a user asks of a campaign, on the command line or in a scenario file, and the plan that it comes to.

A scenario is a TOML file; whatever the command line says goes before it:

    kind = "link"                       # loopback, lan or link
    transports = ["tcp-cubic", "udp-bbr"]
    sizes = ["4MiB"]
    repeats = 6
    seed = 1
    competitor = "tcp-cubic"            # beside each transfer
    control = true                      # the A/A control

    [link]                              # as options of `nettool link`; every combination of the lists is a path
    rate = "100Mbit"
    rtt = ["10ms", "40ms"]
    loss = ["0%", "0.1%", "1%", "5%"]
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from toolkit.channel import Address
from toolkit.compare import paths
from toolkit.compare.campaign import Plan
from toolkit.compare.plan import TCP_DEFAULT, Setting, parse_transports
from toolkit.compare.records import CONTROL_SUFFIX, DEFAULT_LIMIT_S, Campaign
from toolkit.errors import UsageError, printable
from toolkit.units import parse_duration_ns, parse_size, to_seconds

LISTED = ("link", "rate", "rtt", "loss")
"""What may be a list on the command line; in a scenario everything may."""
_SIZES = {paths.LOOPBACK: "256MiB", paths.LAN_KIND: "256MiB", paths.LINK: "4MiB", paths.REMOTE: "64MiB"}
_LINK_DEFAULTS = {"rate": ["100Mbit"], "rtt": ["40ms"], "loss": ["0%"]}
_REPEATS = 6
_LINK_KINDS: Mapping[str, type] = {"both_ways": bool, "jitter_reorders": bool, "mtu": int}
"""Of what is no text in a scenario's [link]."""
_Kind = TypeVar("_Kind")
_SYSCTL = Path("/proc/sys/net/ipv4")


@dataclass(frozen=True, slots=True)
class Asked:
    """None and nothing where nothing was said.

    link:  option of `nettool link` -> its values
    limit: for one transfer, as a duration
    wait:  for a remote `nettool serve`, as a duration
    """

    kind: str
    transports: str | None = None
    tcp_congestion_control: str | None = None
    sizes: Sequence[str] = ()
    repeats: int | None = None
    seed: int | None = None
    folder: Path | None = None
    control: bool | None = None
    probes: bool | None = None
    limit: str | None = None
    competitor: str | None = None
    link: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    address: Address | None = None
    wait: str | None = None

    def over(self, scenario: "Asked") -> "Asked":
        """This, and from the scenario what this does not say. Raises UsageError where it is of another kind."""
        if scenario.kind != self.kind:
            raise UsageError(f"that scenario is for 'nettool bench {scenario.kind}'")
        said = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) not in (None, (), {})}
        return replace(scenario, **{**said, "link": {**scenario.link, **self.link}})

    def plan(self) -> Plan:
        """Raises UsageError for what makes no sense."""
        seed = 1 if self.seed is None else self.seed
        return Plan(
            name=self.kind,
            settings=parse_transports(
                self.transports or "tcp,udp", self.tcp_congestion_control or _tcp_default(self.kind)
            ),
            paths=self._paths(seed),
            sizes=[parse_size(size) for size in self.sizes or [_SIZES[self.kind]]],
            repeats=_REPEATS if self.repeats is None else self.repeats,
            seed=seed,
            folder=self.folder,
            is_controlled=self.control is not False,
            is_probed=self.probes is not False,
            limit_s=DEFAULT_LIMIT_S if self.limit is None else to_seconds(parse_duration_ns(self.limit)),
            competitor=_competitor(self.competitor),
            remote_address=self.address,
            remote_wait_s=0.0 if self.wait is None else to_seconds(parse_duration_ns(self.wait)),
        )

    def _paths(self, seed: int) -> list[paths.BenchPath]:
        if self.kind == paths.LOOPBACK:
            return [paths.loopback()]
        if self.kind == paths.REMOTE:
            return [paths.remote(str(self.address))]
        given = {name: list(values) for name, values in self.link.items() if values}
        if self.kind == paths.LINK and "link" not in given and "trace" not in given:
            given = {**{n: v for n, v in _LINK_DEFAULTS.items() if n not in given}, **given}
        order = [*(name for name in LISTED if name in given), *(name for name in given if name not in LISTED)]
        changes = {"changes": tuple(given["changes"])} if "changes" in given else {}
        lists = {name: given[name] for name in order if name != "changes"}
        return paths.combined(self.kind, lists, changes, seed)


def _tcp_default(kind: str) -> str:
    """TCP_DEFAULT, or where only root may choose it, the kernel's own default. In its own namespaces one is root."""
    if kind in (paths.LAN_KIND, paths.LINK) or os.geteuid() == 0:
        return TCP_DEFAULT
    with suppress(OSError):
        if TCP_DEFAULT not in (_SYSCTL / "tcp_allowed_congestion_control").read_text().split():
            return (_SYSCTL / "tcp_congestion_control").read_text().strip()
    return TCP_DEFAULT


def _competitor(text: str | None) -> Setting | None:
    if text is None:
        return None
    settings = parse_transports(text)
    if len(settings) > 1 or settings[0].program is not None:
        raise UsageError("--competitor is one of nettool's own transports, like tcp-cubic")
    return settings[0]


def read_scenario(path: Path) -> Asked:
    """Raises UsageError where the file is none."""
    shown = printable(str(path), 80)
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {shown}: {(error.strerror or '').lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{shown} is no scenario: {printable(str(error), 100)}") from None
    link = told.pop("link", {})
    kind = told.pop("kind", paths.LINK)
    if kind not in (paths.LOOPBACK, paths.LAN_KIND, paths.LINK) or not isinstance(link, dict):
        raise UsageError(f"{shown}: kind is loopback, lan or link, and [link] a table")
    try:
        asked = Asked(
            kind=kind,
            transports=_joined(told.pop("transports", None)),
            sizes=tuple(_listed(told.pop("sizes", []))),
            repeats=_of(int, told.pop("repeats", None)),
            seed=_of(int, told.pop("seed", None)),
            control=_of(bool, told.pop("control", None)),
            probes=_of(bool, told.pop("probes", None)),
            limit=_of(str, told.pop("limit", None)),
            competitor=_of(str, told.pop("competitor", None)),
            link=_of_link({name.replace("-", "_"): value for name, value in link.items()}),
        )
    except (TypeError, ValueError):
        raise UsageError(f"{shown}: a value is not of its kind; docs/method.md shows a scenario") from None
    if told:
        raise UsageError(f"{shown}: nothing is called '{printable(str(next(iter(told))), 40)}' in a scenario")
    return asked


def plan_of_record(campaign: Campaign, folder: Path | None = None) -> Plan:
    """The plan that a campaign was made by. Raises UsageError where that cannot be had again."""
    if campaign.name == paths.REMOTE:
        raise UsageError("a remote campaign cannot be gone on with from its record: run 'nettool bench remote' again")
    settings = [_setting(told) for label, told in campaign.transports.items() if not label.endswith(CONTROL_SUFFIX)]
    made = []
    for label, told in campaign.paths.items():
        if told["kind"] == paths.LOOPBACK:
            made.append(paths.loopback())
        else:
            made.append(replace(paths.from_text(told["kind"], told["link"], told["seed"]), label=label))
    return Plan(
        name=campaign.name,
        settings=settings,
        paths=made,
        sizes=list(campaign.sizes),
        repeats=campaign.repeats,
        seed=campaign.seed,
        folder=folder,
        is_controlled=any(label.endswith(CONTROL_SUFFIX) for label in campaign.transports),
        is_probed=campaign.is_probed,
        limit_s=campaign.limit_s,
        competitor=_setting(campaign.competitor) if campaign.competitor is not None else None,
    )


def _setting(told: Mapping[str, Any]) -> Setting:
    return Setting(**{f.name: told[f.name] for f in fields(Setting)})


def _listed(value: Any, kind: type = str) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    for one in values:
        _of(kind, one)
    return values


def _joined(value: Any) -> str | None:
    return None if value is None else ",".join(_listed(value))


def _of_link(told: Mapping[str, Any]) -> dict[str, list[Any]]:
    if any(value == [] for value in told.values()):
        raise ValueError(told)
    return {name: _listed(value, _LINK_KINDS.get(name, str)) for name, value in told.items()}


def _of(kind: type[_Kind], value: Any) -> _Kind | None:
    """The value, where it is of that kind and no other (a bool is an int). Raises TypeError."""
    if value is not None and type(value) is not kind:
        raise TypeError(value)
    return value
