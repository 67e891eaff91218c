"""A mesh file: hosts, which of them are compared with each other, and how.

    transports = ["tcp-cubic", "udp-bbr"]
    time = "5s"                     # or `sizes = ["16MiB"]`
    repeats = 12                    # blocks of each pair; as many as the comparisons need where it is absent
    budget = "2h"                   # after that no block begins
    retries = 2                     # of a trial that a missing host prevented
    wait = "60s"                    # for hosts that are not there
    at_once = 4                     # trials at the same time, at most; half the hosts where it is absent

    [hosts]
    ams = "192.0.2.7"               # where the others reach it; ssh goes to the same address
    fra = { address = "192.0.2.8", ssh = "ops@fra.example", python = "/opt/nettool/bin/python" }
    nyc = "198.51.100.9"

    [[group]]
    kind = "mesh"                   # every host with every other, both ways; "star": only with `center`; or `pairs`
    hosts = ["ams", "fra", "nyc"]

Without a group, all hosts are a mesh.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from toolkit.comparison.paths import FLEET, between
from toolkit.comparison.plan import MAX_REPEATS, TCP_DEFAULT, Plan, parse_transports
from toolkit.comparison.records import DEFAULT_LIMIT_S
from toolkit.comparison.scenario import check_udp
from toolkit.comparison.toml_table import TomlTable, read_toml
from toolkit.comparison.verdict import DEFAULT_MARGIN, least_blocks
from toolkit.errors import UsageError, printable, printable_path
from toolkit.units import parse_duration_ns, parse_fraction, parse_size, to_seconds

DEFAULT_PORT = 9000
_TRANSPORTS, _TIME, _RETRIES, _WAIT, _LIMIT_MARGIN_S = "tcp,udp", "5s", 2, "60s", 30.0
_LEAST_REPEATS = 9
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,30}[A-Za-z0-9])?")
MAX_HOSTS = 1000


@dataclass(frozen=True, slots=True)
class FleetHost:
    """A host: `address`, where the others reach it; `ssh`, [USER@]HOST to start its worker; `python`, there."""

    name: str
    address: str
    ssh: str
    python: str | None = None


@dataclass(frozen=True, slots=True)
class Mesh:
    """What a mesh file says.

    pairs:     sender and receiver, by name
    plan:      the comparison: a path for each pair
    port:      on which every host receives; 0 for any
    budget_s:  time after which no block begins; None for no limit
    at_once:   number of trials at the same time; None for as many as the hosts allow
    every_s, slip_s: how often the run is repeated, and the most by which its start varies; None for once
    """

    hosts: Mapping[str, FleetHost]
    pairs: Sequence[tuple[str, str]]
    plan: Plan
    port: int = DEFAULT_PORT
    budget_s: float | None = None
    at_once: int | None = None
    retries: int = _RETRIES
    wait_s: float = 60.0
    every_s: float | None = None
    slip_s: float = 0.0


def read_mesh(path: Path) -> Mesh:
    """Raises UsageError, with one line that names the key, if the file is not a mesh."""
    shown = printable_path(path)
    table = TomlTable(read_toml(path, "a mesh"), shown)
    hosts = _hosts(TomlTable(table.take(dict, "hosts") or {}, f"{shown}, [hosts]"))
    groups = [TomlTable(each, f"{shown}, [[group]]") for each in table.list(dict, "group")]
    pairs = list(dict.fromkeys(pair for group in groups for pair in _pairs(group, hosts)))
    pairs = pairs or list(permutations(hosts, 2))
    transports, sizes = table.list(str, "transports"), table.list(str, "sizes")
    words = {name: table.take(str, name) for name in ("time", "budget", "limit", "margin", "wait", "every", "slip")}
    numbers = {name: table.take(int, name) for name in ("repeats", "seed", "port", "retries", "at_once")}
    control = table.take(bool, "control")
    table.finish()
    if sizes and words["time"]:
        raise UsageError(f"{shown}: give 'sizes' or 'time', not both")
    _check_numbers(shown, numbers)
    if words["slip"] and not words["every"]:
        raise UsageError(f"{shown}: 'slip' varies the start of a run that 'every' repeats: give both")
    try:
        margin = words.pop("margin")
        times = {name: None if text is None else _seconds(name, text) for name, text in words.items()}
        settings = parse_transports(",".join(transports) or _TRANSPORTS, TCP_DEFAULT)
        for setting in settings:
            if setting.program is not None:
                raise UsageError(f"{setting.label} needs a server of its own: a fleet runs nettool's tcp and udp")
            check_udp(setting)
        limit_s, time_s = times["limit"], times["time"] or (None if sizes else _seconds("time", _TIME))
        rivals = max(1, len(settings) - 1) * max(1, len(sizes))
        plan = Plan(
            name=FLEET,
            settings=settings,
            paths=[between(*pair) for pair in pairs],
            sizes=[parse_size(size) for size in sizes] or [0],
            repeats=_or(numbers["repeats"], max(_LEAST_REPEATS, least_blocks(len(pairs) * rivals))),
            seed=_or(numbers["seed"], 1),
            is_controlled=control is not False,
            is_probed=False,
            limit_s=limit_s or (DEFAULT_LIMIT_S if time_s is None else time_s + _LIMIT_MARGIN_S),
            margin=DEFAULT_MARGIN if margin is None else parse_fraction(margin),
            time_s=time_s,
        )
    except UsageError as error:
        raise UsageError(f"{shown}: {error}") from None
    return Mesh(
        hosts=hosts,
        pairs=pairs,
        plan=plan,
        port=_or(numbers["port"], DEFAULT_PORT),
        budget_s=times["budget"],
        at_once=numbers["at_once"],
        retries=_or(numbers["retries"], _RETRIES),
        wait_s=times["wait"] or _seconds("wait", _WAIT),
        every_s=times["every"],
        slip_s=times["slip"] or 0.0,
    )


def _hosts(table: TomlTable) -> dict[str, FleetHost]:
    hosts = {name: _host(name, value, table.where) for name, value in table.values.items()}
    if len(hosts) < 2:
        raise UsageError(f'{table.where}: a fleet has at least two hosts, like ams = "192.0.2.7"')
    if len(hosts) > MAX_HOSTS:
        raise UsageError(f"{table.where}: {len(hosts)} hosts are more than {MAX_HOSTS}")
    owners: dict[str, str] = {}
    for name, host in hosts.items():
        if host.address in owners:
            raise UsageError(f"{table.where}: '{owners[host.address]}' and '{name}' are the same host, {host.address}")
        owners[host.address] = name
    return hosts


def _host(name: str, value: Any, where: str) -> FleetHost:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{where}: '{printable(name, 40)}' is no name: use letters, digits, '.', '-' and '_'")
    if isinstance(value, str):
        value = {"address": value}
    if not isinstance(value, dict):
        raise UsageError(f"{where}: '{name}' must be an address, like \"192.0.2.7\", or a table")
    table = TomlTable(value, f"{where}, '{name}'")
    address, ssh, python = (table.take(str, key) for key in ("address", "ssh", "python"))
    table.finish()
    if not address or any(character.isspace() or character == "/" for character in address):
        raise UsageError(f"{where}: '{name}' has no address, like \"192.0.2.7\"")
    return FleetHost(name, address, ssh or address, python)


def _pairs(table: TomlTable, hosts: Mapping[str, FleetHost]) -> Sequence[tuple[str, str]]:
    kind, members, center = table.take(str, "kind"), table.list(str, "hosts"), table.take(str, "center")
    pairs = [tuple(each) for each in table.list(list, "pairs")]
    table.finish()
    if pairs and (members or center or kind not in (None, "pairs")):
        raise UsageError(f"{table.where}: 'pairs' stand for themselves: leave out 'hosts' and 'center'")
    if pairs and not all(len(pair) == 2 and all(isinstance(name, str) for name in pair) for pair in pairs):
        raise UsageError(f'{table.where}: a pair is two hosts: ["ams", "fra"], from the first to the second')
    if not pairs and kind not in ("mesh", "star"):
        raise UsageError(f"{table.where}: 'kind' must be \"mesh\" or \"star\", or give 'pairs'")
    if (kind == "star") != (center is not None):
        raise UsageError(f"{table.where}: a star, and nothing else, has a 'center'")
    chosen = list(members or hosts)
    for name in [*members, *([center] if center else []), *(name for pair in pairs for name in pair)]:
        if name not in hosts:
            raise UsageError(f"{table.where}: there is no host '{printable(name, 40)}' in [hosts]")
    same = next((pair[0] for pair in pairs if pair[0] == pair[1]), None)
    if same is not None:
        raise UsageError(f"{table.where}: '{same}' is paired with itself")
    if pairs:
        return [(pair[0], pair[1]) for pair in pairs]
    if {*chosen} <= {center or chosen[0]}:
        raise UsageError(f"{table.where}: a group has at least two hosts")
    if center is None:
        return list(permutations(chosen, 2))
    return [pair for name in chosen if name != center for pair in ((center, name), (name, center))]


def _check_numbers(shown: str, numbers: Mapping[str, int | None]) -> None:
    limits = {"port": (0, 65535), "retries": (0, 100), "at_once": (1, MAX_HOSTS), "repeats": (1, MAX_REPEATS)}
    for name, (low, high) in limits.items():
        value = numbers[name]
        if value is not None and not low <= value <= high:
            raise UsageError(f"{shown}: '{name.replace('_', '-')}' must be from {low} to {high}")


def _seconds(name: str, text: str) -> float:
    seconds = to_seconds(parse_duration_ns(text))
    if seconds <= 0:
        raise UsageError(f"'{name}' must be longer than zero")
    return seconds


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
