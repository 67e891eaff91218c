"""A mesh file becomes hosts and pairs, and whatever is wrong with it is one line that names the key."""

from pathlib import Path

import pytest

from toolkit.cli.app import invoke
from toolkit.errors import UnreachableError, UsageError
from toolkit.fleet.mesh import FleetHost, Mesh, read_mesh

EXAMPLE = Path(__file__).parents[3] / "bench" / "fleet" / "mesh.toml"
HOSTS = '\n[hosts]\na = "192.0.2.1"\nb = "192.0.2.2"\nc = "192.0.2.3"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "mesh.toml"
    path.write_text(text)
    return path


def test_without_a_group_every_host_meets_every_other_in_both_directions(tmp_path: Path) -> None:
    mesh = read_mesh(written(tmp_path, HOSTS))
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
    mesh = read_mesh(written(tmp_path, HOSTS + groups))
    assert mesh.pairs == [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "c")]


def test_a_host_may_have_another_name_for_ssh_and_a_python(tmp_path: Path) -> None:
    text = HOSTS + 'd = { address = "192.0.2.4", ssh = "ops@d.example", python = "/opt/python" }\n'
    hosts = read_mesh(written(tmp_path, text)).hosts
    assert hosts["a"] == FleetHost("a", "192.0.2.1", "192.0.2.1")
    assert hosts["d"] == FleetHost("d", "192.0.2.4", "ops@d.example", "/opt/python")


def test_settings_are_those_of_a_campaign(tmp_path: Path) -> None:
    text = (
        'sizes = ["1MiB", "4MiB"]\nrepeats = 3\nbudget = "1h"\nmargin = "10%"\nlimit = "20s"\nat-once = 2\nport = 0\n'
    )
    mesh = read_mesh(written(tmp_path, text + HOSTS))
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
        ("repeats = 0" + HOSTS, "--repeat must be from 1"),
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
        read_mesh(written(tmp_path, text))
    assert message in str(caught.value)
    assert "mesh.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


class EnoughError(BaseException):
    """Ends what would repeat itself for ever."""


def test_a_repeated_mesh_outlives_a_run_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, 'every = "1h"\n' + HOSTS)
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
