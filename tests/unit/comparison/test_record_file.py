"""Records to a file and back: complete, cut short, resumed, and of another version."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.paths import FLEET
from toolkit.comparison.record_file import Writer, line, read
from toolkit.comparison.records import Results
from toolkit.errors import TransferError, UsageError

RESULTS = make_results(Truth({("tcp-cubic", "a"): 90e6, ("udp-bbr", "a"): 80e6}, repeats=2), 1)


def write(path: Path, results: Results, is_resumed: bool = False) -> None:
    writer = Writer(path, is_resumed)
    for record in ([] if is_resumed else [results.campaign, *results.probes]) + list(results.trials):
        writer.write(record)
    writer.close()


def test_records_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    write(path, RESULTS)
    assert read(path) == RESULTS


def test_counters_of_a_transport_stand_beside_the_fields_of_an_endpoint(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    sender = EndpointResult(size_bytes=5, packets_sent=7, counters={"acks_sent": 3, "path": "a"})
    write(path, Results(RESULTS.campaign, [replace(RESULTS.trials[0], sender=sender)]))
    entry = json.loads(path.read_text().splitlines()[-1])
    assert entry["sender"] == {"bytes": 5, "packets_sent": 7, "acks_sent": 3, "path": "a"}
    assert read(path).trials[0].sender == sender


def test_the_ledger_repeats_the_forward_counts_at_its_top_level(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write(path, RESULTS)
    ledger = json.loads(path.read_text().splitlines()[-1])["ledger"]
    assert ledger["forward"].items() <= ledger.items()


def test_kinds_and_fields_of_a_later_minor_version_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write(path, RESULTS)
    lines = [json.loads(text) | {"added_later": 1} for text in path.read_text().splitlines()]
    lines[-1]["ledger"]["added_later"] = {"nested": True}
    lines.append({"schema": 2, "kind": "weather"})
    path.write_text("\n".join(json.dumps(entry) for entry in lines) + "\n")
    assert read(path) == RESULTS


def test_fields_that_an_earlier_minor_version_lacks_have_defaults(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    trial = json.loads(line(RESULTS.trials[0]))
    short = {name: trial[name] for name in trial if name not in ("delay", "series", "link_seed", "why", "sender")}
    path.write_text(f"{line(RESULTS.campaign)}\n{json.dumps(short)}\n")
    read_back = read(path).trials[0]
    assert (read_back.delay, read_back.series, read_back.link_seed, read_back.why) == (None, None, None, "")
    assert read_back.sender == EndpointResult()


def test_records_that_know_no_margin_are_judged_by_the_usual_one(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    campaign = json.loads(line(replace(RESULTS.campaign, margin=0.02)))
    path.write_text(json.dumps(campaign) + "\n")
    assert read(path).campaign.margin == 0.02
    del campaign["margin"]
    path.write_text(json.dumps(campaign) + "\n")
    assert read(path).campaign.margin == 0.05
    path.write_text(json.dumps(campaign | {"margin": -1}) + "\n")
    with pytest.raises(UsageError, match="margin is not between 0 and"):
        read(path)


def test_transports_of_records_that_know_no_encryption_count_as_plaintext(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    campaign = json.loads(line(RESULTS.campaign))
    for setting in campaign["transports"].values():
        del setting["is_encrypted"]
    path.write_text(json.dumps(campaign) + "\n")
    assert not any(setting.is_encrypted for setting in read(path).campaign.transports.values())


@pytest.mark.parametrize("cut", [2, 30, 200])
def test_a_file_that_was_cut_short_can_be_read_and_resumed(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write(path, RESULTS)
    path.write_bytes(path.read_bytes()[:-cut])
    assert read(path).trials == RESULTS.trials[:-1]
    write(path, Results(RESULTS.campaign, [RESULTS.trials[-1]]), is_resumed=True)
    assert read(path) == RESULTS


def test_a_last_line_that_lacks_only_its_newline_stays_when_the_campaign_is_resumed(tmp_path: Path) -> None:
    """It counts as finished, so that nothing would measure it again."""
    path = tmp_path / "results.jsonl"
    write(path, replace(RESULTS, trials=RESULTS.trials[:-1]))
    path.write_bytes(path.read_bytes()[:-1])
    assert read(path).trials == RESULTS.trials[:-1]
    write(path, replace(RESULTS, trials=RESULTS.trials[-1:]), is_resumed=True)
    assert read(path) == RESULTS


def test_two_campaigns_in_a_file_are_refused(tmp_path: Path) -> None:
    """They would be mixed, and judged as one."""
    path = tmp_path / "results.jsonl"
    write(path, RESULTS)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(UsageError, match="a second campaign; give each a file of its own"):
        read(path)


@pytest.mark.parametrize("change", [{"path": "nowhere"}, {"transport": "udp-x"}, {"payload_bytes": 7}])
def test_a_trial_of_another_campaign_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write(path, replace(RESULTS, trials=[*RESULTS.trials[:-1], replace(RESULTS.trials[-1], **change)]))
    with pytest.raises(UsageError, match="a trial of another campaign"):
        read(path)


def test_existing_records_are_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.touch()
    write(path, RESULTS)  # an empty file may have been created for this
    with pytest.raises(UsageError, match=r"another `output` \('nettool bench .*' appends .* with `resume`\)$"):
        Writer(path)
    assert read(path) == RESULTS


def test_the_command_that_appends_to_existing_records_is_named(tmp_path: Path) -> None:
    campaign = replace(RESULTS.campaign, name=FLEET)
    write(tmp_path / "fleet.jsonl", replace(RESULTS, campaign=campaign, trials=[], probes=[]))
    with pytest.raises(UsageError, match=r"'nettool fleet run MESH' appends to these records with `resume`"):
        Writer(tmp_path / "fleet.jsonl")
    (tmp_path / "other").write_text("something else")
    with pytest.raises(UsageError, match=r"another `output`$"):
        Writer(tmp_path / "other")


def test_a_trial_that_the_hypervisor_disturbed_is_apart(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    disturbed = replace(RESULTS.trials[3], is_repeated=True)
    last = replace(RESULTS.trials[3], position=99)
    write(path, Results(RESULTS.campaign, [*RESULTS.trials[:3], disturbed, *RESULTS.trials[4:], last]))
    found = read(path)
    assert found.repeated == (disturbed,)
    assert found.trials == [*RESULTS.trials[:3], *RESULTS.trials[4:], last]


def test_a_trial_that_was_measured_again_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    failed = replace(RESULTS.trials[3], verified=False, seconds=None, goodput_bps=None, error="the peer disappeared")
    again = replace(RESULTS.trials[3], position=99)
    write(path, Results(RESULTS.campaign, [*RESULTS.trials[:3], failed, *RESULTS.trials[4:], again]))
    assert read(path).trials == [*RESULTS.trials[:3], failed, *RESULTS.trials[4:]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json\n",
        b"[]\n",
        b'{"schema": 1, "kind": "campaign"}\n',
        b'{"schema": 2, "kind": "campaign"}\n',
        b'{"schema": 2, "kind": "trial", "block": 1}\n',
        b'{"schema": 2, "kind": []}\n',
        b"\xff\xfe\n",
        b"[" * 100_000,
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"results\.jsonl"):
        read(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("block", "first"),
        ("verified", 1),
        ("seconds", [1.0]),
        ("marks", "cpu-bound"),
        ("time_split", {"steady_s": "long"}),
        ("sender", {"cpu_seconds": {}}),
        ("series", {"t_s": [0.0, "later"]}),
        ("ledger", {"forward": {}, "backward": 5}),
    ],
)
def test_an_error_names_the_line_and_the_field(field: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    trial = json.loads(line(RESULTS.trials[0])) | {field: value}
    path.write_text(f"{line(RESULTS.campaign)}\n{json.dumps(trial)}\n")
    with pytest.raises(UsageError, match=f"line 2: .*{field}"):
        read(path)


def test_a_file_that_cannot_be_read_or_created(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(TransferError, match="`output`"):
        Writer(tmp_path / "file" / "results.jsonl").write(RESULTS.campaign)
