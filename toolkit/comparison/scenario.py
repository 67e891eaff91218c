"""What a user asks of a campaign, on the command line or in a scenario file, and the plan that follows from it.

A scenario is a TOML file. The command line takes precedence over it:

    kind = "link"                       # loopback, lan or link
    transports = ["tcp-cubic", "udp-bbr"]   # where the kernel lacks one, it is left out
    sizes = ["4MiB"]                    # or `time = "5s"`: what arrives in that time
    budget = "6min"                     # or `repeats = 9`: so many blocks
    seed = 1
    competitor = "tcp-cubic"            # a background flow beside each transfer
    control = true                      # the A/A control
    margin = "5%"                       # a smaller difference is negligible
    patience = "1min"                   # total time for waits for quiet processors and for repeated trials

    [link]                              # options of `nettool link`; every combination of the lists is a path
    rate = "100Mbit"
    rtt = ["10ms", "40ms"]
    loss = ["0%", "0.1%", "1%", "5%"]

With [[link]] instead of [link] there may be several such tables, whose paths follow each other.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from toolkit.channel import Address
from toolkit.comparison import paths
from toolkit.comparison.host_info import offers_tcp_control, tcp_controls
from toolkit.comparison.plan import (
    DEFAULT_BUDGET_S,
    FIXED_RATE,
    TCP_DEFAULT,
    Plan,
    comparisons,
    parse_transports,
    pilot_blocks,
    takes_congestion_control,
)
from toolkit.comparison.records import CONTROL_SUFFIX, DEFAULT_LIMIT_S, Campaign, LinkOption, Setting
from toolkit.comparison.toml_table import read_toml
from toolkit.comparison.verdict import DEFAULT_MARGIN
from toolkit.errors import UsageError, printable, printable_path
from toolkit.rudp.congestion.base import controller_factory
from toolkit.security.credentials import Credential, NoCredential
from toolkit.units import parse_duration_ns, parse_fraction, parse_size, to_seconds

FACTORIAL = "tcp-cubic,tcp-bbr,udp-cubic,udp-bbr"
"""What an emulated link compares: with all four, `toolkit.comparison.factorial` tells transport and control apart."""
LISTED = ("link", "rate", "rtt", "loss")
"""Options that may be lists on the command line; in a scenario file every option may."""
_SIZES = {paths.LOOPBACK: "768MiB", paths.LAN_KIND: "256MiB", paths.LINK: "4MiB"}
_LEAST_OPEN_TIME = "1s"
_LINK_DEFAULTS = {"rate": ["100Mbit"], "rtt": ["40ms"], "loss": ["0%"]}
_LINK_TYPES: Mapping[str, type] = {"both_ways": bool, "jitter_reorders": bool, "mtu": int}
"""Types of the options in [link] that are not text."""
_OPEN_AGAIN = ("kind", "folder", "address", "wait", "credential", "is_reverse", "is_from_file", "link", "further_links")
"""Fields that a campaign that goes on does not take from its records, or that are checked apart."""
_Value = TypeVar("_Value")
_SYSCTL = Path("/proc/sys/net/ipv4")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the user asks for; None or empty where the user says nothing.

    link:  option of `nettool link` -> its values
    further_links: more of the same, whose paths follow those of `link`
    limit: time limit of one transfer, as a duration
    wait:  how long to wait for a remote `nettool serve`, as a duration
    credential: what lets this machine in there
    margin: the largest negligible difference between two goodputs, as a percentage
    is_from_file: whether the transports are those of a scenario file, which was written for any host
    budget: time of the campaign, as a duration; the alternative to `repeats`
    time:   time of a trial, as a duration; the alternative to `sizes`
    patience: total time for waits for quiet processors and for repeated trials, as a duration
    is_reverse: whether the remote `nettool serve` sends, and this machine receives
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
    link: Mapping[str, Sequence[LinkOption]] = field(default_factory=dict)
    address: Address | None = None
    wait: str | None = None
    credential: Credential | None = None
    margin: str | None = None
    is_from_file: bool = False
    further_links: Sequence[Mapping[str, Sequence[LinkOption]]] = ()
    budget: str | None = None
    time: str | None = None
    is_reverse: bool | None = None
    patience: str | None = None

    def merged_with(self, other: "Scenario") -> "Scenario":
        """This scenario, completed from `other` where it says nothing. Raises UsageError if their kinds differ."""
        if other.kind != self.kind:
            raise UsageError(f"that scenario is for 'nettool bench {other.kind}'")
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) not in (None, (), {})}
        given["is_from_file"] = other.is_from_file and self.transports is None
        if self.repeats is not None or self.budget is not None:
            other = replace(other, repeats=None, budget=None)
        if self.sizes or self.time is not None:
            other = replace(other, sizes=(), time=None)
        further = tuple({**each, **self.link} for each in other.further_links)
        return replace(other, **{**given, "link": {**other.link, **self.link}, "further_links": further})

    def plan(self) -> Plan:
        """Raises UsageError if the scenario makes no sense."""
        seed = 1 if self.seed is None else self.seed
        control = self.tcp_congestion_control or _tcp_default(self.kind)
        settings, left_out = self._settings(control)
        planned = self._paths(seed)
        is_time_open = self.kind == paths.REMOTE and not self.sizes and self.time is None
        time = _LEAST_OPEN_TIME if is_time_open else self.time
        time_s = None if time is None else to_seconds(parse_duration_ns(time))
        sizes = [parse_size(size) for size in self.sizes or ([_SIZES[self.kind]] if time_s is None else ["0"])]
        count = comparisons(settings, planned, sizes)
        repeats, budget_s = self._blocks(count)
        return Plan(
            name=self.kind,
            settings=settings,
            paths=planned,
            sizes=sizes,
            repeats=repeats,
            budget_s=budget_s,
            time_s=time_s,
            is_time_open=is_time_open,
            seed=seed,
            folder=self.folder,
            is_controlled=self.control is not False,
            is_probed=self.probes is not False,
            limit_s=DEFAULT_LIMIT_S if self.limit is None else to_seconds(parse_duration_ns(self.limit)),
            background_flow=_background_flow(self.competitor),
            **self.peer(),
            margin=DEFAULT_MARGIN if self.margin is None else parse_fraction(self.margin),
            left_out=left_out,
            patience_s=0.0 if self.patience is None else to_seconds(parse_duration_ns(self.patience)),
        )

    def check_resumes(self) -> None:
        """Raises UsageError if it asks for what the records of a campaign that goes on have decided."""
        if self.link or self.further_links:
            raise UsageError("`resume` goes on with the settings of its records: leave the options of the link out")
        for each in fields(self):
            if each.name not in _OPEN_AGAIN and getattr(self, each.name) not in (None, ()):
                name = "congestion_control" if each.name == "tcp_congestion_control" else each.name
                raise UsageError(f"`resume` goes on with the settings of its records: leave `{name}` out")

    def peer(self) -> dict[str, Any]:
        """How to reach the other machine of a remote campaign: fields of Plan."""
        return {
            "remote_address": self.address,
            "remote_wait_s": 0.0 if self.wait is None else to_seconds(parse_duration_ns(self.wait)),
            "remote_credential": self.credential or NoCredential(),
        }

    def _settings(self, tcp_congestion_control: str) -> tuple[list[Setting], dict[str, str]]:
        """The transports; and, of a scenario for any host, those that this kernel does not offer, with the reason."""
        words = self.transports
        if words is None:
            is_factorial = self.kind == paths.LINK and self.tcp_congestion_control is None
            has_yardstick = self.kind == paths.LOOPBACK and self.time is None
            words = FACTORIAL if is_factorial else "tcp,udp,cp" if has_yardstick else "tcp,udp"
        settings = parse_transports(words, tcp_congestion_control)
        if self.tcp_congestion_control is not None and not takes_congestion_control(words):
            raise UsageError(
                "`congestion_control` is that of the transport tcp, which is not compared: "
                "write the other transports like udp-bbr, and leave it out"
            )
        is_root = self.kind in (paths.LAN_KIND, paths.LINK)  # in the namespaces of its links
        left_out = {}
        if not self.is_reverse:  # else the other machine's kernel decides
            left_out = {each.label: reason for each in settings if (reason := _lacks(each, is_root))}
        is_chosen = self.transports is not None or self.tcp_congestion_control is not None
        if left_out and is_chosen and not self.is_from_file:
            label, reason = next(iter(left_out.items()))
            raise UsageError(f"{label} cannot run: {reason}; choose from {', '.join(tcp_controls(is_root))}")
        for each in settings:
            check_udp(each)
        return [each for each in settings if each.label not in left_out], left_out

    def _blocks(self, count: int) -> tuple[int, float | None]:
        """The number of blocks for so many comparisons, and the budget for more, if there is one."""
        if self.repeats is not None and self.budget is not None:
            raise UsageError("`repeats` fixes the number of blocks, and `budget` lets the results decide: give one")
        if self.repeats is not None:
            return self.repeats, None
        return pilot_blocks(count), DEFAULT_BUDGET_S if self.budget is None else to_seconds(
            parse_duration_ns(self.budget)
        )

    def _paths(self, seed: int) -> list[paths.BenchPath]:
        if self.kind not in (paths.LAN_KIND, paths.LINK) and (self.link or any(self.further_links)):
            raise UsageError(
                f"a comparison of kind {self.kind} emulates no link: leave its options out, or choose link"
            )
        if self.kind == paths.LOOPBACK:
            return [paths.loopback()]
        if self.kind == paths.REMOTE:
            return [paths.remote(str(self.address), is_reverse=bool(self.is_reverse))]
        planned = [path for link in (self.link, *self.further_links) for path in self._paths_of(link, seed)]
        if len({path.label for path in planned}) < len(planned):
            raise UsageError("two paths of this campaign are the same: write each value once")
        return planned

    def _paths_of(self, link: Mapping[str, Sequence[LinkOption]], seed: int) -> list[paths.BenchPath]:
        given: dict[str, list[LinkOption]] = {name: list(values) for name, values in link.items() if values}
        if self.kind == paths.LINK and "link" not in given and "trace" not in given:
            given = {**{n: list(v) for n, v in _LINK_DEFAULTS.items() if n not in given}, **given}
        order = [*(name for name in LISTED if name in given), *(name for name in given if name not in LISTED)]
        changes = {"changes": tuple(str(each) for each in given["changes"])} if "changes" in given else {}
        lists = {name: given[name] for name in order if name != "changes"}
        return paths.combined(self.kind, lists, changes, seed)


def _tcp_default(kind: str) -> str:
    """TCP_DEFAULT, or the kernel's default where only root may choose TCP_DEFAULT.

    In the namespaces of a lan or link campaign the process is root.
    """
    if kind in (paths.LAN_KIND, paths.LINK) or os.geteuid() == 0:
        return TCP_DEFAULT
    with suppress(OSError):
        if TCP_DEFAULT not in (_SYSCTL / "tcp_allowed_congestion_control").read_text().split():
            return (_SYSCTL / "tcp_congestion_control").read_text().strip()
    return TCP_DEFAULT


def _lacks(setting: Setting, is_root: bool) -> str:
    """Why this kernel cannot run a TCP setting; empty if it can."""
    control = setting.congestion_control
    if setting.transport != "tcp" or control is None or offers_tcp_control(control, is_root):
        return ""
    return f"this kernel offers no {control} (as root: modprobe tcp_{control})"


def check_udp(setting: Setting) -> None:
    """Raises UsageError for a congestion control that nettool does not have, and names those that it has."""
    if setting.transport != "udp" or setting.program is not None or setting.congestion_control is None:
        return
    controller_factory(setting.congestion_control)
    if setting.congestion_control == FIXED_RATE and setting.rate_bps is None:
        raise UsageError(f"{setting.label} needs a rate: write it like {setting.label}=50Mbit")


def _background_flow(text: str | None) -> Setting | None:
    if text is None:
        return None
    settings = parse_transports(text)
    if len(settings) > 1 or settings[0].program is not None:
        raise UsageError("`competitor` takes one of nettool's own transports, like tcp-cubic")
    check_udp(settings[0])
    return settings[0]


def read_scenario(path: Path) -> Scenario:
    """Raises UsageError if the file is not a scenario."""
    shown = printable_path(path)
    values = read_toml(path, "a scenario")
    link = values.pop("link", {})
    tables = link if isinstance(link, list) and link else [link]
    kind = values.pop("kind", paths.LINK)
    is_known = kind in (paths.LOOPBACK, paths.LAN_KIND, paths.LINK)
    if not is_known or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{shown}: kind must be loopback, lan or link, and [link] a table")
    try:
        links = [link_options({name.replace("-", "_"): value for name, value in table.items()}) for table in tables]
        scenario = Scenario(
            kind=kind,
            transports=_joined(values.pop("transports", None)),
            sizes=tuple(_list_of(str, values.pop("sizes", []))),
            repeats=_checked(int, values.pop("repeats", None)),
            seed=_checked(int, values.pop("seed", None)),
            control=_checked(bool, values.pop("control", None)),
            probes=_checked(bool, values.pop("probes", None)),
            limit=_checked(str, values.pop("limit", None)),
            competitor=_checked(str, values.pop("competitor", None)),
            margin=_checked(str, values.pop("margin", None)),
            budget=_checked(str, values.pop("budget", None)),
            time=_checked(str, values.pop("time", None)),
            patience=_checked(str, values.pop("patience", None)),
            link=links[0],
            further_links=tuple(links[1:]),
            is_from_file=True,
        )
    except (TypeError, ValueError):
        raise UsageError(f"{shown}: a value has the wrong type; docs/method.md shows a scenario") from None
    if values:
        raise UsageError(f"{shown}: unknown key '{printable(str(next(iter(values))), 40)}' in a scenario")
    return scenario


def plan_of_record(campaign: Campaign, folder: Path | None = None, remote: Scenario | None = None) -> Plan:
    """The plan that a recorded campaign followed. Raises UsageError if it cannot be restored.

    remote: how to reach the other machine of a remote campaign
    """
    if campaign.name == paths.REMOTE and remote is None:
        raise UsageError("this needs the other machine: only 'nettool bench remote HOST --resume FILE' continues it")
    if campaign.name == paths.FLEET:
        raise UsageError("this needs the hosts of the fleet: only 'nettool fleet run MESH --resume FILE' continues it")
    restored = []
    for label, path in campaign.paths.items():
        if path.kind == paths.LOOPBACK:
            restored.append(paths.loopback())
        elif remote is not None:
            restored.append(paths.remote(str(remote.address), is_reverse=path.is_reverse))
            if label != restored[-1].label:
                raise UsageError(f"these are records of the path {printable(label, 60)}, not {restored[-1].label}")
            if remote.is_reverse and not path.is_reverse:
                raise UsageError("these are records of the other direction: leave `is_reverse` out")
        else:
            restored.append(replace(paths.from_options(path.kind, path.link, path.seed or 0), label=label))
    return Plan(
        name=campaign.name,
        settings=[each for label, each in campaign.transports.items() if not label.endswith(CONTROL_SUFFIX)],
        paths=restored,
        sizes=list(campaign.sizes),
        repeats=campaign.repeats,
        seed=campaign.seed,
        folder=folder,
        is_controlled=any(label.endswith(CONTROL_SUFFIX) for label in campaign.transports),
        is_probed=campaign.is_probed,
        limit_s=campaign.limit_s,
        background_flow=campaign.competitor,
        margin=campaign.margin,
        left_out=campaign.left_out,
        budget_s=campaign.budget_s,
        time_s=campaign.time_s,
        patience_s=campaign.patience_s,
        **({} if remote is None else remote.peer()),
    )


def _list_of(kind: type[_Value], value: Any) -> list[_Value]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if _checked(kind, each) is not None]


def _joined(value: Any) -> str | None:
    return None if value is None else ",".join(_list_of(str, value))


def link_options(options: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Options of `nettool link`, each with a list of values. Raises TypeError and ValueError for values that are none.

    options: each with a value or a list of them
    """
    if any(value == [] for value in options.values()):
        raise ValueError("an empty list")
    return {name: _list_of(_LINK_TYPES.get(name, str), value) for name, value in options.items()}


def _checked(kind: type[_Value], value: Any) -> _Value | None:
    """The value, if its type is exactly `kind` (a bool is not an int). Raises TypeError."""
    if value is not None and type(value) is not kind:
        raise TypeError(value)
    return value
