"""Records to a file and back: whole, cut short, gone on with, and of another version."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.compare.records import Results, Writer, line, read
from toolkit.errors import TransferError, UsageError

RESULTS = make_results(Truth({("tcp-cubic", "a"): 90e6, ("udp-bbr", "a"): 80e6}, repeats=2), 1)


def write(path: Path, results: Results, is_resumed: bool = False) -> None:
    writer = Writer(path, is_resumed)
    for record in ([] if is_resumed else [results.campaign, *results.probes]) + list(results.trials):
        writer.write(record)
    writer.close()


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    write(path, RESULTS)
    assert read(path) == RESULTS


def test_a_later_minor_version_may_add_kinds_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write(path, RESULTS)
    lines = [json.loads(text) | {"added_later": 1} for text in path.read_text().splitlines()]
    lines.append({"schema": 2, "kind": "weather"})
    path.write_text("\n".join(json.dumps(entry) for entry in lines) + "\n")
    assert read(path) == RESULTS


def test_an_earlier_minor_version_may_lack_what_came_later(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    trial = json.loads(line(RESULTS.trials[0]))
    short = {name: trial[name] for name in trial if name not in ("delay", "series", "link_seed", "why")}
    path.write_text(f"{line(RESULTS.campaign)}\n{json.dumps(short)}\n")
    read_back = read(path).trials[0]
    assert (read_back.delay, read_back.series, read_back.link_seed, read_back.why) == (None, None, None, "")


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_file_that_was_cut_short_is_read_and_gone_on_with(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write(path, RESULTS)
    path.write_bytes(path.read_bytes()[:-cut])
    # A last line that lacks nothing but its end is as good as whole; appending must not run into it all the same.
    assert [t.position for t in read(path).trials][: len(RESULTS.trials) - 1] == [t.position for t in RESULTS.trials][
        :-1
    ]
    write(path, Results(RESULTS.campaign, [RESULTS.trials[-1]]), is_resumed=True)
    assert read(path) == RESULTS


def test_records_that_are_there_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.touch()
    write(path, RESULTS)  # a file with nothing in it may have been made for this
    with pytest.raises(UsageError, match="another --output"):
        Writer(path)
    assert read(path) == RESULTS


def test_a_trial_that_was_run_again_replaces_the_one_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    failed = replace(RESULTS.trials[3], verified=False, seconds=None, goodput_bps=None, error="it went away")
    again = replace(RESULTS.trials[3], position=99)
    write(path, Results(RESULTS.campaign, [*RESULTS.trials[:3], failed, *RESULTS.trials[4:], again]))
    trials = read(path).trials
    assert len(trials) == len(RESULTS.trials)
    assert trials[-1] == again
    assert all(trial.error is None for trial in trials)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json\n",
        b"[]\n",
        b'{"schema": 1, "kind": "campaign"}\n',
        b'{"schema": 2, "kind": "campaign"}\n',
        b'{"schema": 2, "kind": "trial", "block": 1}\n',
        b"\xff\xfe\n",
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"results\.jsonl"):
        read(path)


def test_a_file_that_is_not_there_and_one_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(TransferError, match="--output"):
        Writer(tmp_path / "file" / "results.jsonl").write(RESULTS.campaign)
