"""From what users write, on the command line or in a scenario file, and from old records, to a plan."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.tcp_controls import default_control
from toolkit.api.target import parse_target
from toolkit.channel import Address
from toolkit.comparison import plan as plan_module
from toolkit.comparison import scenario as scenario_module
from toolkit.comparison.forecast import Forecast
from toolkit.comparison.host_info import offers_tcp_control
from toolkit.comparison.paths import loopback
from toolkit.comparison.plan import DEFAULT_BUDGET_S, Plan, parse_transports
from toolkit.comparison.records import LinkOption
from toolkit.comparison.scenario import Scenario, plan_of_record, read_scenario
from toolkit.comparison.verdict import least_blocks
from toolkit.errors import UsageError

SCENARIOS = sorted((Path(__file__).parents[3] / "bench").glob("*.toml"))


def test_every_combination_is_a_path() -> None:
    plan = Scenario("link", link={"rate": ["10Mbit"], "rtt": ["10ms", "40ms"], "loss": ["0%", "1%"]}).plan()
    assert [path.label for path in plan.paths] == [
        f"10 Mbit/s, {rtt} ms, {loss}% loss" for rtt in (10, 40) for loss in (0, 1)
    ]
    first, last = plan.paths[0].record(), plan.paths[-1].record()
    assert (first.rate_bps, first.rtt_ms, first.loss) == (10e6, 10.0, 0.0)
    assert last.ideal_bps == pytest.approx(10e6 * 1448 / 1500 * 0.99)
    assert last.text == "nettool link --rate 10Mbit --rtt 40ms --loss 1%"


def test_defaults_for_each_kind() -> None:
    assert [path.label for path in Scenario("link").plan().paths] == ["100 Mbit/s, 40 ms, 0% loss"]
    assert [path.label for path in Scenario("lan").plan().paths] == ["lan"]
    plan = Scenario("loopback").plan()
    tcp = f"tcp-{default_control()}"
    assert ([s.label for s in plan.all_settings], plan.sizes) == ([tcp, "udp-bbr", "cp", f"{tcp}#2"], [768 << 20])
    named = Scenario("link", link={"link": ["starlink", "dsl"], "loss": ["2%"]}).plan()
    assert [path.label for path in named.paths] == ["starlink, 2% loss", "dsl, 2% loss"]


def test_a_link_compares_both_controls_over_both_transports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    combined = ["tcp-cubic", "tcp-bbr", "udp-cubic", "udp-bbr"]
    monkeypatch.setattr(scenario_module, "offers_tcp_control", lambda _name, _is_root: True)
    plan = Scenario("link").plan()
    assert ([each.label for each in plan.settings], plan.left_out) == (combined, {})
    assert [each.label for each in Scenario("link", tcp_congestion_control="reno").plan().settings] == [
        "tcp-reno",
        "udp-bbr",
    ]
    monkeypatch.setattr(scenario_module, "offers_tcp_control", lambda name, _is_root: name != "bbr")
    file = tmp_path / "s.toml"
    file.write_text(f"transports = {combined}")
    for plan in (Scenario("link").plan(), Scenario("link").merged_with(read_scenario(file)).plan()):
        assert [each.label for each in plan.settings] == ["tcp-cubic", "udp-cubic", "udp-bbr"]
        assert plan.left_out == {"tcp-bbr": "this kernel offers no bbr (as root: modprobe tcp_bbr)"}
        assert plan_of_record(plan.campaign("memory")) == plan
    asked_for = Scenario("link", transports="tcp-cubic,tcp-bbr").merged_with(read_scenario(file))
    with pytest.raises(UsageError, match=r"^tcp-bbr cannot run: this kernel offers no bbr .*; choose from .*"):
        asked_for.plan()


@pytest.mark.parametrize(
    ("transports", "message"),
    [
        ("tcp,udp-vegas", "unknown congestion control 'vegas': choose one of bbr, cubic, newreno, rate"),
        ("tcp,udp-rate", "udp-rate needs a rate: write it like udp-rate=50Mbit"),
        ("tcp,quic=50Mbit", "aioquic keeps to no rate"),
        ("tcp-no-such,udp", "tcp-no-such cannot run: this kernel offers no no-such"),
    ],
)
def test_controls_that_cannot_run_are_refused_before_the_first_trial(transports: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Scenario("link", transports=transports).plan()
    assert message in str(caught.value)


def test_what_records_have_decided_is_not_asked_for_again() -> None:
    Scenario("link", folder=Path("elsewhere")).check_resumes()
    Scenario("remote", address=parse_target("far"), wait="30s", is_reverse=True).check_resumes()
    for given, name in (({"repeats": 9}, "`repeats`"), ({"competitor": "tcp-bbr"}, "`competitor`")):
        with pytest.raises(UsageError, match=f"goes on with the settings of its records: leave {name} out"):
            replace(Scenario("link"), **given).check_resumes()
    with pytest.raises(UsageError, match="leave the options of the link out"):
        Scenario("link", link={"loss": ["1%"]}).check_resumes()


def test_a_control_given_by_itself_is_not_left_out_silently() -> None:
    with pytest.raises(UsageError, match="tcp-no-such cannot run"):
        Scenario("link", tcp_congestion_control="no-such").plan()


def test_the_paths_of_several_tables_follow_each_other(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[[link]]\nloss = ["0%", "1%"]\n[[link]]\nloss = "1%"\nboth-ways = true\ndelay-back = "5ms"\n')
    scenario = read_scenario(file)
    plan = scenario.plan()
    assert [path.label for path in plan.paths] == [
        "100 Mbit/s, 40 ms, 0% loss",
        "100 Mbit/s, 40 ms, 1% loss",
        "100 Mbit/s, 40 ms, 1% loss, delay back 5ms, both ways",
    ]
    assert plan.paths[-1].spec is not None
    assert plan.paths[-1].spec.backward.delay_ns == 5_000_000
    assert plan_of_record(plan.campaign("memory")) == plan
    faster = Scenario("link", link={"rate": ["1Gbit"]}).merged_with(scenario).plan()
    assert [path.label for path in faster.paths][-1] == "1 Gbit/s, 40 ms, 1% loss, delay back 5ms, both ways"
    with pytest.raises(UsageError, match="the same"):
        Scenario("link", link={"loss": ["1%"], "both_ways": [False]}, further_links=[{"loss": ["1%"]}]).plan()


@pytest.mark.parametrize("name", ["loss", "rtt"])
def test_the_long_scenarios_lose_acknowledgements_and_have_a_shallow_queue_and_uneven_delays(name: str) -> None:
    paths = [path for path in read_scenario(SCENARIOS[0].with_name(f"{name}.toml")).plan().paths if path.spec]
    assert paths[0].loss == 0
    specs = [path.spec for path in paths if path.spec is not None]
    assert any(spec.backward.loss for spec in specs)
    assert any(spec.forward.queue.limit_ns for spec in specs)
    assert any(spec.forward.delay_ns != spec.backward.delay_ns for spec in specs)


def test_timed_trials_on_loopback_have_no_yardstick() -> None:
    assert [each.transport for each in Scenario("loopback", time="1s").plan().settings] == ["tcp", "udp"]


def test_which_controls_the_kernel_offers() -> None:
    assert offers_tcp_control(default_control())
    assert not offers_tcp_control("nosuch", is_root=True)


def test_the_scenario_of_make_bench_begins_without_loss() -> None:
    losses = [path.loss for path in read_scenario(SCENARIOS[0].with_name("lossy.toml")).plan().paths]
    assert losses[0] == 0
    assert len(losses) > 1


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_in_bench_makes_a_plan(path: Path) -> None:
    plan = read_scenario(path).plan()
    assert Forecast(plan).left_s() > 0
    assert plan.is_controlled  # without it, nothing shows what the machine can resolve
    assert plan.repeats >= least_blocks(plan.comparison_count, is_budgeted=plan.budget_s is not None)


def test_the_number_of_blocks_grows_with_the_number_of_comparisons() -> None:
    def blocks(**link: list[LinkOption]) -> int:
        return Scenario("link", transports="tcp,udp", link=link).plan().repeats

    assert blocks(loss=["0%"]) == blocks(loss=["0%", "1%", "3%", "5%"]) == 8
    paths: dict[str, list[LinkOption]] = {"loss": ["0%", "1%"], "rtt": ["1ms", "2ms", "3ms", "4ms"]}
    grid = Scenario("link", transports="tcp,udp", sizes=("1MiB", "2MiB"), link=paths)
    assert (grid.plan().comparison_count, grid.plan().repeats) == (16, 10)
    assert replace(grid, repeats=6).plan().repeats == 6


def test_either_a_budget_or_a_number_of_blocks(tmp_path: Path) -> None:
    plan = Scenario("loopback").plan()
    assert (plan.repeats, plan.budget_s) == (8, DEFAULT_BUDGET_S)
    plan = Scenario("loopback", budget="90s").plan()
    assert (plan.repeats, plan.budget_s) == (8, 90.0)
    assert Scenario("loopback", repeats=3).plan().budget_s is None
    with pytest.raises(UsageError, match="`repeats` fixes"):
        Scenario("loopback", repeats=3, budget="90s").plan()
    file = tmp_path / "s.toml"
    file.write_text('kind = "loopback"\nbudget = "2min"\n')
    assert Scenario("loopback").merged_with(read_scenario(file)).plan().budget_s == 120.0
    assert Scenario("loopback", repeats=4).merged_with(read_scenario(file)).plan().budget_s is None
    file.write_text('kind = "loopback"\nrepeats = 4\n')
    assert Scenario("loopback", budget="60s").merged_with(read_scenario(file)).plan().budget_s == 60.0


def test_either_a_time_or_sizes(tmp_path: Path) -> None:
    plan = Scenario("link", transports="tcp,udp", time="2s").plan()
    assert (plan.time_s, list(plan.sizes), plan.file_sizes) == (2.0, [0], [])
    assert plan_of_record(plan.campaign("memory")) == plan
    file = tmp_path / "s.toml"
    file.write_text('kind = "link"\ntime = "2s"\ntransports = "tcp,udp"\n')
    assert Scenario("link").merged_with(read_scenario(file)).plan().time_s == 2.0
    sized = Scenario("link", sizes=("1MiB",)).merged_with(read_scenario(file)).plan()
    assert (sized.time_s, sized.file_sizes) == (None, [1 << 20])
    for wrong, says in (
        (replace(Scenario("link", time="2s"), sizes=("1MiB",)), "give one"),
        (Scenario("link", time="1ms"), "`time` must be"),
        (Scenario("loopback", time="2s", transports="tcp,cp"), "leave cp out"),
    ):
        with pytest.raises(UsageError, match=says):
            wrong.plan()


def test_bench_has_scenarios() -> None:
    assert {path.stem for path in SCENARIOS} >= {"loopback", "lan", "lossy"}


def test_the_command_line_takes_precedence_over_the_scenario(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        'kind = "link"\ntransports = ["tcp", "udp-cubic"]\nsizes = "1MiB"\nrepeats = 7\ncontrol = false\n'
        'competitor = "tcp-bbr"\nmargin = "3%"\n[link]\nrate = "10Mbit"\nloss = ["0%", "1%"]\nburst = "1%:20ms"\n'
    )
    plan = Scenario("link", repeats=2, link={"loss": ["5%"]}).merged_with(read_scenario(file)).plan()
    assert [s.label for s in plan.all_settings] == ["tcp-cubic", "udp-cubic"]
    assert (plan.repeats, plan.sizes) == (2, [1 << 20])
    assert plan.margin == 0.03
    assert Scenario("link", margin="2%").merged_with(read_scenario(file)).plan().margin == 0.02
    assert plan.background_flow is not None
    assert plan.background_flow.label == "tcp-bbr"
    (path,) = plan.paths
    assert path.spec is not None
    assert path.spec.forward.loss == 0.05
    assert path.spec.forward.burst is not None
    with pytest.raises(UsageError, match="nettool bench link"):
        Scenario("lan").merged_with(read_scenario(file))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind = ", "not a scenario"),
        ('kind = "moon"', "kind must be loopback"),
        ('colour = "red"', "unknown key 'colour'"),
        ('repeats = "many"', "the wrong type"),
        ("repeats = true", "the wrong type"),
        ("sizes = 5", "the wrong type"),
        ('link = "fast"', "kind must be loopback"),
        ('[link]\nspeed = "fast"', "a path has no option 'speed'"),
        ('[link]\nrate = "fast"', "write it like"),
        ('[link]\nrate = ["1Mbit", "1Mbit"]', "the same"),
        ('sizes = ["1MiB", "1024KiB"]', "twice"),
        ('competitor = "iperf3-tcp"', "`competitor`"),
        ('competitor = "udp-rate"', "udp-rate needs a rate"),
        ("competitor = 6", "the wrong type"),
        ("limit = 60", "the wrong type"),
        ("margin = 0.05", "the wrong type"),
        ('margin = "5"', "write 5%"),
        ('margin = "0%"', "`margin` must be"),
        ('margin = "51%"', "`margin` must be"),
        ("repeats = 0", "`repeats` must be"),
        ("budget = 60", "the wrong type"),
        ("time = 2", "the wrong type"),
        ('budget = "0s"', "`budget` must be"),
        ('budget = "1000h"', "`budget` must be"),
        ('budget = "1min"\nrepeats = 5', "`repeats` fixes"),
        ('control = "no"', "the wrong type"),
        ("probes = 0", "the wrong type"),
        ('[link]\nmtu = "1400"', "the wrong type"),
        ("[link]\nmtu = true", "the wrong type"),
        ("[link]\nloss = [1]", "the wrong type"),
        ('[link]\nboth_ways = "yes"', "the wrong type"),
        ("[link]\nloss = []", "the wrong type"),
        ('[link]\nseed = "7"', "a path has no option 'seed'"),
        ('[link]\ntrace = "f"', "a path has no option 'trace'"),
    ],
)
def test_invalid_scenarios(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_scenario(file).plan()


def test_labels_show_every_difference(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        '[link]\nrate = "1Mbit"\nrtt = "5ms"\njitter = "2ms"\njitter-reorders = [false, true]\n'
        "both_ways = [false, true]\nmtu = [1400, 1500]\n"
    )
    labels = [path.label for path in read_scenario(file).plan().paths]
    assert len(set(labels)) == len(labels) == 8
    assert labels[0] == "1 Mbit/s, 5 ms, 0% loss, jitter 2ms, mtu 1400"
    assert labels[-1] == "1 Mbit/s, 5 ms, 0% loss, jitter 2ms, jitter reorders, both ways, mtu 1500"


def test_a_missing_scenario_file() -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_scenario(Path("/nonexistent.toml"))


def test_a_plan_can_be_restored_from_its_record() -> None:
    scenario = Scenario(
        "link",
        transports="tcp,udp-rate=5Mbit",
        sizes=("64KiB", "1MiB"),
        seed=9,
        link={"rate": ["10Mbit"], "loss": ["0%", "2%"], "changes": ["2s rate 5Mbit"], "queue": ["codel,ecn"]},
    )
    plan = scenario.plan()
    assert plan_of_record(plan.campaign("memory")) == plan
    fixed = replace(plan, repeats=5, budget_s=None)
    assert plan_of_record(fixed.campaign("memory")) == fixed
    without = replace(plan, is_controlled=False)
    assert plan_of_record(without.campaign("memory")) == without
    more = Scenario("link", competitor="tcp-bbr", limit="20s", probes=False, margin="2%").plan()
    assert plan_of_record(more.campaign("memory")) == more
    bare = Scenario("link", transports="tcp,tcp+plaintext", competitor="udp+plaintext").plan()
    assert plan_of_record(bare.campaign("memory")) == bare
    lan = Scenario("lan", link={"rate": ["1Gbit"]}).plan()
    assert plan_of_record(lan.campaign("memory")) == lan


def test_a_remote_campaign_is_resumed_in_the_direction_of_its_records() -> None:
    there = Scenario("remote", address=Address("192.0.2.1", 9000), sizes=("64KiB",))
    back = replace(there, is_reverse=True)
    assert [path.label for path in back.plan().paths] == ["192.0.2.1:9000, reverse"]
    forward, reverse = there.plan().campaign("memory"), back.plan().campaign("memory")
    assert [path.is_reverse for path in (*forward.paths.values(), *reverse.paths.values())] == [False, True]
    assert any(line.startswith("Reverse:") for line in reverse.method)
    assert not any(line.startswith("Reverse:") for line in forward.method)
    assert plan_of_record(reverse, remote=there) == plan_of_record(reverse, remote=back) == back.plan()
    assert plan_of_record(forward, remote=there) == there.plan()
    with pytest.raises(UsageError, match="the other direction: leave `is_reverse` out"):
        plan_of_record(forward, remote=back)


def test_in_reverse_the_other_kernel_decides_which_congestion_controls_there_are() -> None:
    there = Scenario("remote", address=Address("192.0.2.1", 9000), transports="tcp-nosuch,udp")
    with pytest.raises(UsageError, match="tcp-nosuch cannot run"):
        there.plan()
    assert [each.label for each in replace(there, is_reverse=True).plan().settings] == ["tcp-nosuch", "udp-bbr"]


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
def test_invalid_plans(changed: dict[str, object]) -> None:
    plan = Plan("loopback", parse_transports("tcp"), [loopback()], [1 << 20], 1, 1)
    with pytest.raises(UsageError):
        replace(plan, **changed)  # type: ignore[arg-type]


def test_missing_programs_are_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module.shutil, "which", lambda _name: None)
    monkeypatch.setattr(plan_module, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"nettool\[quic\]"):
        Scenario("loopback", transports="quic").plan()
    with pytest.raises(UsageError, match="apt install iperf3"):
        Scenario("loopback", transports="tcp,iperf3-udp=1Gbit").plan()
