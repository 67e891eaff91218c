"""A mesh file becomes hosts and pairs, and whatever is wrong with it is one line that names the key."""

import json
import time
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from tests.support.fleet_files import mesh_file
from toolkit.cli.app import invoke
from toolkit.cli.fleet import _on_this_machine
from toolkit.errors import ExitCode, UnreachableError, UsageError
from toolkit.fleet.mesh import FleetHost, Mesh, read_mesh

EXAMPLE = Path(__file__).parents[3] / "bench" / "fleet" / "mesh.toml"
HOSTS = '\n[hosts]\na = "192.0.2.1"\nb = "192.0.2.2"\nc = "192.0.2.3"\n'


def test_without_a_group_every_host_meets_every_other_in_both_directions(tmp_path: Path) -> None:
    mesh = read_mesh(mesh_file(tmp_path, HOSTS))
    assert mesh.pairs == [("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")]
    assert [path.label for path in mesh.plan.paths][:2] == ["a to b", "a to c"]
    assert mesh.plan.paths[0].record().sender == "a"
    assert mesh.plan.paths[0].record().receiver == "b"
    assert [each.label for each in mesh.plan.settings] == ["tcp-cubic", "udp-bbr"]
    assert mesh.plan.time_s == 5.0


def test_groups_add_up(tmp_path: Path) -> None:
    groups = """
    [[group]]
    kind = "star"
    center = "a"
    hosts = ["b", "c"]
    [[group]]
    pairs = [["b", "c"], ["a", "b"]]
    """
    mesh = read_mesh(mesh_file(tmp_path, HOSTS + groups))
    assert mesh.pairs == [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "c")]


def test_a_host_may_have_another_name_for_ssh_and_a_python(tmp_path: Path) -> None:
    text = HOSTS + 'd = { address = "192.0.2.4", ssh = "ops@d.example", python = "/opt/python" }\n'
    hosts = read_mesh(mesh_file(tmp_path, text)).hosts
    assert hosts["a"] == FleetHost("a", "192.0.2.1", "192.0.2.1")
    assert hosts["d"] == FleetHost("d", "192.0.2.4", "ops@d.example", "/opt/python")


def test_settings_are_those_of_a_campaign(tmp_path: Path) -> None:
    text = (
        'sizes = ["1MiB", "4MiB"]\nrepeats = 3\nbudget = "1h"\nmargin = "10%"\nlimit = "20s"\nat-once = 2\nport = 0\n'
    )
    mesh = read_mesh(mesh_file(tmp_path, text + HOSTS))
    plan = mesh.plan
    assert (plan.sizes, plan.repeats, plan.margin, plan.limit_s, plan.time_s) == (
        [1 << 20, 4 << 20],
        3,
        0.1,
        20.0,
        None,
    )
    assert (mesh.budget_s, mesh.at_once, mesh.port, plan.budget_s) == (3600.0, 2, 0, None)


def test_the_example_is_a_mesh() -> None:
    assert len(read_mesh(EXAMPLE).pairs) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a fleet has at least two hosts"),
        ('[hosts]\na = "192.0.2.1"', "a fleet has at least two hosts"),
        ('[hosts]\na = "192.0.2.1"\nb = "192.0.2.1"', "'a' and 'b' are the same host, 192.0.2.1"),
        ('[hosts]\na = "192.0.2.1"\n"x y" = "192.0.2.2"', "'x y' is no name"),
        ('[hosts]\na = "192.0.2.1"\nb = ""', "'b' has no address"),
        ('[hosts]\na = "192.0.2.1"\nb = 7', "'b' must be an address"),
        ('[hosts]\na = "192.0.2.1"\nb = { adress = "192.0.2.2" }', "did you mean 'address'?"),
        ('transport = "udp"' + HOSTS, "unknown key 'transport': did you mean 'transports'?"),
        ('transports = "upd"' + HOSTS, "unknown transport 'upd'"),
        ('transports = "iperf3-tcp"' + HOSTS, "needs a server of its own"),
        ('transports = "udp-bbrr"' + HOSTS, "bbrr"),
        ('time = "5s"\nsizes = "1MiB"' + HOSTS, "give 'sizes' or 'time'"),
        ('time = "0s"' + HOSTS, "'time' must be longer than zero"),
        ("repeats = 0" + HOSTS, "'repeats' must be from 1"),
        ("at-once = 0" + HOSTS, "'at-once' must be from 1"),
        ('slip = "5s"' + HOSTS, "'every' repeats: give both"),
        (HOSTS + '[[group]]\nkind = "mesh"\nhosts = ["a"]', "at least two hosts"),
        (HOSTS + '[[group]]\nkind = "star"\ncenter = "a"\nhosts = ["a"]', "at least two hosts"),
        ("port = 70000" + HOSTS, "'port' must be from 0 to 65535"),
        (HOSTS + '[[group]]\nkind = "ring"', "'kind' must be"),
        (HOSTS + '[[group]]\nkind = "star"', "has a 'center'"),
        (HOSTS + '[[group]]\nkind = "mesh"\nhosts = ["a", "d"]', "there is no host 'd'"),
        (HOSTS + '[[group]]\nkind = "mesh"\nhosts = ["a", "a"]', "'hosts' has a value twice"),
        (HOSTS + '[[group]]\npairs = [["a", "a"]]', "'a' is paired with itself"),
        (HOSTS + '[[group]]\npairs = [["a"]]', "a pair is two hosts"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_mesh(mesh_file(tmp_path, text))
    assert message in str(caught.value)
    assert "mesh.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


class EnoughError(BaseException):
    """Ends what would repeat itself for ever."""


def test_a_repeated_mesh_outlives_a_run_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mesh_file(tmp_path, 'every = "1h"\n' + HOSTS)
    monkeypatch.chdir(tmp_path)
    outcomes: list[Exception | None] = [UnreachableError("gone"), None]
    runs: list[Path] = []

    def run(_mesh: Mesh, _workers: object, output: Path, **_: object) -> int:
        runs.append(output)
        if not outcomes:
            raise EnoughError
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return 0

    monkeypatch.setattr("toolkit.cli.fleet._run_once", run)
    monkeypatch.setattr("toolkit.cli.fleet.time.sleep", lambda _seconds: None)
    with pytest.raises(EnoughError):
        invoke(["fleet", "run", str(path)])
    assert len(runs) == 3
    with pytest.raises(UsageError, match="makes a new file for each run"):
        invoke(["fleet", "run", str(path), "--output", "one.jsonl"])


def test_repeated_runs_begin_at_their_times_whatever_the_slip_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = mesh_file(tmp_path, 'every = "1h"\nslip = "5min"\n' + HOSTS)
    now_s, slips, begun = [0.0], [300.0, 0.0, 100.0, 0.0], list[float]()

    def sleep(seconds: float) -> None:
        now_s[0] += seconds

    def run(*_: object, **__: object) -> int:
        begun.append(now_s[0])
        if len(begun) == 4:
            raise EnoughError
        now_s[0] += 4000.0 if len(begun) == 3 else 60.0
        return 0

    monkeypatch.setattr("toolkit.cli.fleet._run_once", run)
    monkeypatch.setattr("toolkit.cli.fleet.random.uniform", lambda _low, _high: slips.pop(0))
    clock = SimpleNamespace(monotonic=lambda: now_s[0], sleep=sleep, strftime=time.strftime)
    monkeypatch.setattr("toolkit.cli.fleet.time", clock)
    with pytest.raises(EnoughError):
        invoke(["fleet", "run", str(path)])
    assert begun == [300.0, 3600.0, 7300.0, 11300.0]  # the last was due at 10800, when the third still ran


def test_an_interrupt_before_the_first_record_names_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("toolkit.cli.fleet._client", interrupt)
    output = tmp_path / "o.jsonl"
    assert invoke(["fleet", "run", str(mesh_file(tmp_path, HOSTS)), "--output", str(output)]) == ExitCode.INTERRUPTED
    assert "interrupted: nothing had been measured" in capsys.readouterr().err


def test_a_run_goes_on_in_its_own_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave out --output"):
        invoke(["fleet", "run", str(mesh_file(tmp_path, HOSTS)), "--resume", "a.jsonl", "--output", "b.jsonl"])


def test_this_machine_stands_for_any_number_of_hosts(tmp_path: Path) -> None:
    names = [f"h{number}" for number in range(600)]
    text = '[[group]]\nkind = "star"\ncenter = "h0"\n[hosts]\n' + "".join(f'{name} = "{name}"\n' for name in names)
    local = _on_this_machine(read_mesh(mesh_file(tmp_path, text)), len(names))
    assert list(local.hosts) == names
    assert len({host.address for host in local.hosts.values()}) == len(names)
    assert all(ip_address(host.address).is_loopback for host in local.hosts.values())


def test_a_dry_run_knows_that_a_star_runs_one_trial_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'time = "3s"\nrepeats = 10\ncontrol = false\n[[group]]\nkind = "star"\ncenter = "h0"\n[hosts]\n'
    path = mesh_file(tmp_path, text + "".join(f'h{number} = "{number}"\n' for number in range(9)))
    invoke(["fleet", "run", str(path), "--dry-run", "--json"])
    assert json.loads(capsys.readouterr().out)["seconds"] == 16 * 2 * 10 * (3 + 2)
