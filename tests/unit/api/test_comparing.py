"""`compare`: what it plans, what it returns, and that the command line prints the same."""

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import toolkit
from tests.support.fake_testbed import Clock, NoisyTestbed
from toolkit.api.comparing import ComparisonRequest
from toolkit.api.credentials import UnprovenReceiverError
from toolkit.channel import Address
from toolkit.cli.app import invoke
from toolkit.comparison import campaign
from toolkit.comparison.paths import BenchPath
from toolkit.comparison.plan import Plan
from toolkit.comparison.record_file import Record, read
from toolkit.comparison.records import Campaign
from toolkit.comparison.scenario import Scenario
from toolkit.comparison.summary import plain, summarise
from toolkit.errors import TransferError, UsageError
from toolkit.report.text import report_text
from toolkit.security.credentials import CodeCredential

SETTINGS: Mapping[str, Any] = {"transports": ["tcp-reno", "udp-bbr"], "sizes": [4096], "repeats": 8}


@pytest.fixture
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials whose outcome is drawn from the seed of the campaign."""
    clock = Clock()

    def open_testbed(_plan: Plan, path: BenchPath) -> NoisyTestbed:
        return NoisyTestbed(path, 0.01, clock)

    monkeypatch.setattr(campaign, "open_testbed", open_testbed)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans of campaigns, none of which is run."""
    planned: list[Plan] = []

    def only_plan(plan: Plan, *_: object) -> None:
        planned.append(plan)
        raise TransferError("it was only planned")

    monkeypatch.setattr("toolkit.api.comparing.run", only_plan)
    return planned


def plan_of(plans: list[Plan], *arguments: Any, **settings: Any) -> Plan:
    with pytest.raises(TransferError, match="only planned"):
        toolkit.compare(*arguments, **settings)
    return plans.pop()


@pytest.mark.usefixtures("_measured")
class TestResult:
    def test_it_is_what_the_command_prints(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        result = toolkit.compare(**SETTINGS)
        options = ["--transports", "tcp-reno,udp-bbr", "--size", "4096", "--repeat", "8", "--json"]
        assert invoke(["bench", "loopback", *options, "--output", str(tmp_path / "records")]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["summary"] == json.loads(json.dumps([plain(row) for row in result.rows]))
        assert printed["headline"] == [verdict.text for verdict in result.verdicts]
        assert [row.verdict for row in result.rows][1] in ("faster", "slower", "equivalent", "inconclusive")
        assert result.failed_trials == 0

    def test_its_text_can_be_made_from_its_records_again(self, tmp_path: Path) -> None:
        told: list[Record] = []
        result = toolkit.compare(**SETTINGS, output=tmp_path / "records", on_record=told.append)
        results = read(tmp_path / "records")
        assert str(result) == report_text([summarise(results)])
        assert isinstance(told[0], Campaign)
        assert told[1:] == results.trials == result.results.trials
        assert result.records == tmp_path / "records"

    def test_a_cancelled_campaign_keeps_its_records(self, tmp_path: Path) -> None:
        cancel = threading.Event()
        with pytest.raises(TransferError, match="cancelled"):
            toolkit.compare(**SETTINGS, output=tmp_path / "records", cancel=cancel, on_record=lambda _: cancel.set())
        assert read(tmp_path / "records").trials == []

    def test_a_wait_for_quiet_processors_can_be_cancelled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("toolkit.comparison.patience.QUIET_SHARE", -1.0)
        cancel, left = threading.Event(), list[float]()

        def on_wait(left_s: float) -> None:
            left.append(left_s)
            cancel.set()

        scenario = Scenario("loopback", "tcp-reno,udp-bbr", sizes=("4KiB",), repeats=8, patience="1h")
        request = replace(ComparisonRequest.of(scenario), on_wait=on_wait, cancel=cancel)
        with pytest.raises(TransferError, match="cancelled"):
            request.run()
        assert left == [3600.0]

    def test_a_cancelled_campaign_goes_on_from_its_records(self, tmp_path: Path) -> None:
        cancel = threading.Event()
        told: list[Record] = []

        def on_record(record: Record) -> None:
            told.append(record)
            if len(told) == 6:
                cancel.set()

        with pytest.raises(TransferError, match="cancelled"):
            toolkit.compare(**SETTINGS, output=tmp_path / "records", cancel=cancel, on_record=on_record)
        resumed = toolkit.compare(resume=tmp_path / "records", on_record=told.append)
        assert read(tmp_path / "records").trials == resumed.results.trials == told[1:]
        whole = toolkit.compare(**SETTINGS)
        assert [row.trials for row in resumed.rows] == [row.trials for row in whole.rows]
        assert resumed.records == tmp_path / "records"

    def test_a_resumed_campaign_stays_what_it_was(self, tmp_path: Path) -> None:
        toolkit.compare(**SETTINGS, output=tmp_path / "records")
        for other in ({"repeats": 9}, {"what": "lan"}, {"output": tmp_path / "others"}):
            with pytest.raises(UsageError, match="resume says what is compared"):
                toolkit.compare(resume=tmp_path / "records", **other)


class TestPlan:
    @pytest.mark.parametrize("sizes", [1024, "1KiB", ["1KiB"], (1024,)])
    def test_one_size_needs_no_list(self, plans: list[Plan], sizes: Any) -> None:
        assert plan_of(plans, sizes=sizes).sizes == [1024]

    def test_nothing_that_is_given_is_left_out_in_silence(self) -> None:
        with pytest.raises(UsageError, match="0"):
            toolkit.compare(repeats=0)
        for credential in (
            {"code": "7-ocean-brick-lunar"},
            {"key": "lab.key"},
            {"is_open": True},
            {"is_reverse": True},
        ):
            with pytest.raises(UsageError, match="for the host of a remote comparison"):
                toolkit.compare(**credential)

    def test_options_of_a_link_have_no_place_where_there_is_none(self) -> None:
        for what, host in (("loopback", None), ("remote", "127.0.0.1")):
            with pytest.raises(UsageError, match=f"a comparison of kind {what} emulates no link"):
                toolkit.compare(what, host=host, link={"loss": "1%"})

    @pytest.mark.parametrize("value", [0.01, [0.01], 1, []])
    def test_a_value_of_a_link_that_is_no_text_is_an_error_that_says_so(self, value: Any) -> None:
        with pytest.raises(
            UsageError, match="a value in link has the wrong type: write shares, times and rates as text"
        ):
            toolkit.compare("link", link={"loss": value})

    def test_values_of_a_link_may_be_single(self, plans: list[Plan]) -> None:
        link = {"rate": "20Mbit", "rtt": ["10ms", "40ms"], "mtu": 1280}
        plan = plan_of(plans, "link", link=link, transports="tcp,udp", repeats=1)
        assert [path.options["rtt"] for path in plan.paths] == ["10ms", "40ms"]
        assert [(path.options["rate"], path.options["mtu"]) for path in plan.paths] == [("20Mbit", 1280)] * 2

    def test_a_scenario_is_completed_by_what_is_given(self, plans: list[Plan], tmp_path: Path) -> None:
        (tmp_path / "one.toml").write_text('kind = "loopback"\nsizes = ["4MiB"]\nbudget = "1min"\nseed = 7\n')
        plan = plan_of(plans, tmp_path / "one.toml", repeats=3)
        assert (plan.sizes, plan.repeats, plan.budget_s, plan.seed) == ([4 << 20], 3, None, 7)
        plan = plan_of(plans, toolkit.Scenario("loopback", seed=9), sizes=["1KiB"])
        assert (plan.sizes, plan.seed) == ([1024], 9)

    def test_another_machine_needs_a_host_and_a_proof(self, plans: list[Plan]) -> None:
        plan = plan_of(plans, "remote", host="192.0.2.7:9001", code="7-ocean-brick-lunar")
        assert plan.remote_address == Address("192.0.2.7", 9001)
        assert isinstance(plan.remote_credential, CodeCredential)
        assert plan.remote_wait_s == 30
        with pytest.raises(UnprovenReceiverError):
            toolkit.compare("remote", host="192.0.2.7")
        for what, host in (("remote", None), ("loopback", "192.0.2.7")):
            with pytest.raises(UsageError, match="needs a host"):
                toolkit.compare(what, host=host)

    def test_an_unknown_kind_is_named(self) -> None:
        with pytest.raises(UsageError, match="unknown comparison wifi: choose from loopback, lan, link, remote"):
            toolkit.compare("wifi")
