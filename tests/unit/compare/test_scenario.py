"""From what users write, on the command line, in a scenario or in an old record, to a plan."""

from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.compare import campaign
from toolkit.compare import plan as plan_module
from toolkit.compare.campaign import Plan, link_seed
from toolkit.compare.paths import loopback
from toolkit.compare.plan import parse_transports
from toolkit.compare.scenario import Asked, plan_of_record, read_scenario
from toolkit.errors import UsageError

SCENARIOS = sorted((Path(__file__).parents[3] / "bench").glob("*.toml"))


def test_every_combination_is_a_path() -> None:
    plan = Asked("link", link={"rate": ["10Mbit"], "rtt": ["10ms", "40ms"], "loss": ["0%", "1%"]}).plan()
    assert [path.label for path in plan.paths] == [
        f"10 Mbit/s, {rtt} ms, {loss}% loss" for rtt in (10, 40) for loss in (0, 1)
    ]
    first, last = plan.paths[0].to_json(), plan.paths[-1].to_json()
    assert (first["rate_bps"], first["rtt_ms"], first["loss"]) == (10e6, 10.0, 0.0)
    assert last["ideal_bps"] == pytest.approx(10e6 * 1448 / 1500 * 0.99)
    assert last["text"] == "nettool link --rate 10Mbit --rtt 40ms --loss 1%"


def test_defaults_for_each_kind() -> None:
    assert [path.label for path in Asked("link").plan().paths] == ["100 Mbit/s, 40 ms, 0% loss"]
    assert [path.label for path in Asked("lan").plan().paths] == ["lan"]
    plan = Asked("loopback").plan()
    assert ([s.label for s in plan.all_settings], plan.sizes) == (["tcp-cubic", "udp-bbr", "tcp-cubic#2"], [256 << 20])
    named = Asked("link", link={"link": ["starlink", "dsl"], "loss": ["2%"]}).plan()
    assert [path.label for path in named.paths] == ["starlink, 2% loss", "dsl, 2% loss"]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_of_ours_is_a_plan(path: Path) -> None:
    plan = read_scenario(path).plan()
    assert plan.expected_seconds() > 0


def test_there_are_scenarios() -> None:
    assert {path.stem for path in SCENARIOS} >= {"loopback", "lan", "lossy"}


def test_the_command_line_goes_before_the_scenario(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        'kind = "link"\ntransports = ["tcp", "udp-cubic"]\nsizes = "1MiB"\nrepeats = 7\ncontrol = false\n'
        'competitor = "tcp-bbr"\n[link]\nrate = "10Mbit"\nloss = ["0%", "1%"]\nburst = "1%:20ms"\n'
    )
    plan = Asked("link", repeats=2, link={"loss": ["5%"]}).over(read_scenario(file)).plan()
    assert [s.label for s in plan.all_settings] == ["tcp-cubic", "udp-cubic"]
    assert (plan.repeats, plan.sizes) == (2, [1 << 20])
    assert plan.competitor is not None
    assert plan.competitor.label == "tcp-bbr"
    (path,) = plan.paths
    assert path.spec is not None
    assert path.spec.forward.loss == 0.05
    assert path.spec.forward.burst is not None
    with pytest.raises(UsageError, match="nettool bench link"):
        Asked("lan").over(read_scenario(file))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind = ", "no scenario"),
        ('kind = "moon"', "kind is loopback"),
        ('colour = "red"', "nothing is called 'colour'"),
        ('repeats = "many"', "not of its kind"),
        ("repeats = true", "not of its kind"),
        ("sizes = 5", "not of its kind"),
        ('link = "fast"', "kind is loopback"),
        ('[link]\nspeed = "fast"', "a path has no 'speed'"),
        ('[link]\nrate = "fast"', "write it like"),
        ('[link]\nrate = ["1Mbit", "1Mbit"]', "the same"),
        ('sizes = ["1MiB", "1024KiB"]', "twice"),
        ('competitor = "iperf3-tcp"', "--competitor"),
        ("competitor = 6", "not of its kind"),
        ("limit = 60", "not of its kind"),
        ('control = "no"', "not of its kind"),
        ("probes = 0", "not of its kind"),
        ('[link]\nmtu = "1400"', "not of its kind"),
        ("[link]\nmtu = true", "not of its kind"),
        ("[link]\nloss = [1]", "not of its kind"),
        ('[link]\nboth_ways = "yes"', "not of its kind"),
        ("[link]\nloss = []", "not of its kind"),
        ('[link]\nseed = "7"', "a path has no 'seed'"),
        ('[link]\ntrace = "f"', "a path has no 'trace'"),
    ],
)
def test_scenarios_that_make_no_sense(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_scenario(file).plan()


def test_whatever_differs_is_in_the_label(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        '[link]\nrate = "1Mbit"\nrtt = "5ms"\njitter = "2ms"\njitter-reorders = [false, true]\n'
        "both_ways = [false, true]\nmtu = [1400, 1500]\n"
    )
    labels = [path.label for path in read_scenario(file).plan().paths]
    assert len(set(labels)) == len(labels) == 8
    assert labels[0] == "1 Mbit/s, 5 ms, 0% loss, jitter 2ms, mtu 1400"
    assert labels[-1] == "1 Mbit/s, 5 ms, 0% loss, jitter 2ms, jitter reorders, both ways, mtu 1500"


def test_a_scenario_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_scenario(Path("/nonexistent.toml"))


def test_a_plan_comes_back_from_its_record() -> None:
    asked = Asked(
        "link",
        transports="tcp,udp-rate=5Mbit",
        sizes=("64KiB", "1MiB"),
        seed=9,
        link={"rate": ["10Mbit"], "loss": ["0%", "2%"], "changes": ["2s rate 5Mbit"], "queue": ["codel,ecn"]},
    )
    plan = asked.plan()
    assert plan_of_record(plan.campaign("memory")) == plan
    without = replace(plan, is_controlled=False)
    assert plan_of_record(without.campaign("memory")) == without
    more = Asked("link", competitor="tcp-bbr", limit="20s", probes=False).plan()
    assert plan_of_record(more.campaign("memory")) == more
    lan = Asked("lan", link={"rate": ["1Gbit"]}).plan()
    assert plan_of_record(lan.campaign("memory")) == lan


@pytest.mark.parametrize(
    "changed",
    [
        {"sizes": [10]},
        {"repeats": 0},
        {"repeats": 10**6},
        {"settings": []},
        {"sizes": [4096, 4096]},
        {"seed": 1 << 32},
        {"seed": -1},
    ],
)
def test_plans_that_make_no_sense(changed: dict[str, object]) -> None:
    plan = Plan("loopback", parse_transports("tcp"), [loopback()], [1 << 20], 1, 1)
    with pytest.raises(UsageError):
        replace(plan, **changed)  # type: ignore[arg-type]


def test_programs_that_are_missing_are_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module.shutil, "which", lambda _name: None)
    monkeypatch.setattr(plan_module, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"nettool\[quic\]"):
        Asked("loopback", transports="quic").plan()
    with pytest.raises(UsageError, match="apt install iperf3"):
        Asked("loopback", transports="tcp,iperf3-udp=1Gbit").plan()


def test_the_link_has_one_seed_a_block() -> None:
    seeds = {link_seed(seed, path, block) for seed in (1, 2) for path in (0, 1, 2) for block in range(-1, 50)}
    assert len(seeds) == 2 * 3 * 51
    assert link_seed(1, 0, 3) == link_seed(1, 0, 3)


def test_a_duration_is_expected_by_what_loss_allows() -> None:
    def seconds(transports: str, loss: str) -> float:
        asked = Asked("link", transports=transports, control=False, repeats=1, link={"loss": [loss]})
        return asked.plan().expected_seconds()

    assert seconds("tcp-cubic", "5%") > 5 * seconds("tcp-cubic", "0%")
    assert seconds("udp-bbr", "5%") < 2 * seconds("udp-bbr", "0%")
    assert campaign.MAX_REPEATS >= 100
