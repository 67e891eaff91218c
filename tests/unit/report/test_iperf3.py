"""The import of iperf3 runs, and the refusal of any other file in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.report_samples import one_path
from toolkit.comparison.summary import summarise
from toolkit.comparison.verdict import NO_CLAIM
from toolkit.errors import UsageError
from toolkit.report import iperf3
from toolkit.report.text import FORMATS, report_text

TCP: dict[str, Any] = {
    "start": {
        "version": "iperf 3.12",
        "connecting_to": {"host": "192.0.2.7", "port": 5201},
        "test_start": {"protocol": "TCP", "num_streams": 2, "duration": 10, "reverse": 0, "target_bitrate": 0},
    },
    "intervals": [],
    "end": {
        "sum_sent": {"seconds": 10.0, "bytes": 1_260_000_000, "retransmits": 31, "sender": True},
        "sum_received": {"seconds": 10.04, "bytes": 1_255_000_000, "sender": True},
        "cpu_utilization_percent": {"host_total": 20.0, "remote_total": 40.0},
        "sender_tcp_congestion": "cubic",
    },
}
UDP: dict[str, Any] = {
    "start": {"test_start": {"protocol": "UDP", "num_streams": 1, "reverse": 1, "target_bitrate": 50_000_000}},
    "end": {
        "sum": {"seconds": 10.0, "bytes": 62_500_000, "lost_packets": 100, "packets": 1000, "jitter_ms": 0.1},
        "cpu_utilization_percent": {"host_total": 10.0, "remote_total": 30.0},
    },
}


def write(folder: Path, *runs: object) -> Path:
    path = folder / "iperf.json"
    path.write_text("\n".join(json.dumps(run, indent=1) for run in runs))
    return path


def test_tcp_goodput_is_what_the_receiver_counted(tmp_path: Path) -> None:
    (row,) = iperf3.read(write(tmp_path, TCP)).rows
    assert row.goodput_bps is not None
    assert row.goodput_bps.value == pytest.approx(8 * 1_255_000_000 / 10.04)
    assert row.goodput_bps.interval is None
    assert (row.transport, row.payload_bytes) == ("iperf3-tcp-cubic", 1_255_000_000)
    assert row.path == "to 192.0.2.7, iperf.json"
    assert row.retransmitted_packets == 31
    assert row.sender_cpu_s_per_gb == pytest.approx(0.2 * 10.04 / 1.255)
    assert row.receiver_cpu_s_per_gb == pytest.approx(0.4 * 10.04 / 1.255)
    assert row.verdict == NO_CLAIM
    assert row.marks == ()
    assert "2 streams" in row.why


def test_udp_goodput_excludes_lost_datagrams_and_is_marked_unreliable(tmp_path: Path) -> None:
    (row,) = iperf3.read(write(tmp_path, UDP)).rows
    assert row.goodput_bps is not None
    assert row.goodput_bps.value == pytest.approx(45e6)
    assert row.marks == ("unreliable",)
    assert "10% of the datagrams were lost" in row.why
    assert "limited to 50 Mbit/s" in row.why
    assert row.sender_cpu_s_per_gb == pytest.approx(0.3 * 10 / 0.0625)  # reversed: the remote side was the sender


def test_udp_goodput_is_what_the_receiver_counted_if_it_reported_that(tmp_path: Path) -> None:
    reported = {**UDP, "end": {**UDP["end"], "sum_received": {"seconds": 10.0, "bytes": 56_000_000}}}
    (row,) = iperf3.read(write(tmp_path, reported)).rows
    assert row.goodput_bps is not None
    assert row.goodput_bps.value == pytest.approx(44.8e6)


def test_each_run_in_a_file_is_a_row(tmp_path: Path) -> None:
    assert [row.transport for row in iperf3.read(write(tmp_path, TCP, UDP, TCP)).rows] == [
        "iperf3-tcp-cubic",
        "iperf3-udp",
        "iperf3-tcp-cubic",
    ]


@pytest.mark.parametrize("table_format", FORMATS)
def test_every_format_shows_imported_rows(tmp_path: Path, table_format: str) -> None:
    rows = iperf3.read(write(tmp_path, TCP, UDP)).rows
    shown = report_text([summarise(one_path())], rows, table_format)
    assert "iperf3-udp" in shown
    assert "udp-bbr" in shown
    assert "iperf3-tcp-cubic" in report_text([], rows, table_format)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n \n",
        b"not json",
        b"[1]",
        b"{}",
        b"\xff\xfe",
        b'{"start": {"test_start": 3}, "end": {}}',
        b'{"error": "unable to connect", "start": {}, "end": {}}',
        b"[" * 100_000,
        json.dumps({**TCP, "end": {"sum_sent": {"seconds": 0, "bytes": 1}}}).encode(),
        json.dumps({**TCP, "end": {"sum_sent": {"seconds": float("nan"), "bytes": 1}}}).encode(),
        json.dumps({**TCP, "end": {"sum_sent": {"seconds": 1, "bytes": 10**400}}}).encode(),
        json.dumps({**TCP, "end": {"sum_sent": {"seconds": 1, "bytes": -1}}}).encode(),
        json.dumps({**TCP, "end": 7}).encode(),
        json.dumps(TCP).encode()[:-5],
    ],
)
def test_invalid_content_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "iperf.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"iperf\.json") as caught:
        iperf3.read(path)
    assert str(caught.value).isprintable()


def test_junk_around_the_runs_is_named_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "iperf.json"
    run = json.dumps(TCP, indent=2)
    path.write_text(f"warning: old kernel\n{run}\niperf Done.\n{json.dumps(UDP)[:-5]}\n{run}\niperf3: bye")
    rows, left_out = iperf3.read(path)
    assert [row.transport for row in rows] == ["iperf3-tcp-cubic"] * 2
    assert [text.split(": ", 1)[1][:12] for text in left_out] == [
        "warning: old",
        "iperf Done.",
        '{"start": {"',
        "iperf3: bye",
    ]
    assert all(text.isprintable() and len(text) < 100 for text in left_out)


def test_a_run_that_failed_is_named_beside_one_that_did_not(tmp_path: Path) -> None:
    failed = {"start": {}, "end": {}, "error": "unable to connect"}
    rows, left_out = iperf3.read(write(tmp_path, failed, TCP, {**TCP, "end": {}}))
    assert len(rows) == 1
    assert left_out[0] == "run 1: iperf3 failed: unable to connect"
    assert left_out[1].startswith("run 3: it lacks the figures")


@pytest.mark.parametrize("word", ["-nan", "nan", "NaN", "-inf", "Infinity"])
def test_a_division_by_zero_costs_only_its_own_figure(tmp_path: Path, word: str) -> None:
    text = json.dumps({**UDP, "end": {**UDP["end"], "extra": [{"jitter_ms": 0.5}]}})
    (tmp_path / "iperf.json").write_text(text.replace('"jitter_ms": 0.1', f'"jitter_ms": {word}').replace("0.5", word))
    rows, left_out = iperf3.read(tmp_path / "iperf.json")
    assert (len(rows), left_out) == (1, [])


def stream(*events: tuple[str, object]) -> str:
    return "\n".join(json.dumps({"event": event, "data": data}) for event, data in events)


def test_a_stream_of_events_is_a_run(tmp_path: Path) -> None:
    path = tmp_path / "iperf.json"
    interval = {"sum": {"seconds": 1.0, "bytes": 125_000_000, "retransmits": 2}}
    whole = [("start", TCP["start"]), ("interval", interval), ("end", TCP["end"])]
    path.write_text(stream(*whole, *whole))
    (row, again), left_out = iperf3.read(path)
    (expected,) = iperf3.read(write(tmp_path, TCP)).rows
    assert (row, left_out) == (expected, [])
    assert again == row


def test_a_stream_that_was_cut_has_the_sums_of_its_intervals(tmp_path: Path) -> None:
    path = tmp_path / "iperf.json"
    interval = {"sum": {"seconds": 1.0, "bytes": 125_000_000, "retransmits": 2}}
    path.write_text(stream(("start", TCP["start"]), *[("interval", interval)] * 3) + '\n{"event": "int')
    (row,), left_out = iperf3.read(path)
    assert row.goodput_bps is not None
    assert (row.goodput_bps.value, row.payload_bytes, row.retransmitted_packets) == (1e9, 375_000_000, 6)
    assert "cut short" in row.why
    assert len(left_out) == 1


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        iperf3.read(tmp_path / "missing.json")


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_run_with_one_replaced_value_is_shown_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    run = json.loads(json.dumps(data.draw(st.sampled_from([TCP, UDP]))))
    node = run
    while True:
        key = data.draw(st.sampled_from(sorted(node)))
        if not isinstance(node[key], dict) or not node[key] or data.draw(st.integers(0, 3)) == 0:
            break
        node = node[key]
    node[key] = data.draw(LEAVES)
    path = write(tmp_path_factory.getbasetemp(), run)
    try:
        rows, _ = iperf3.read(path)
    except UsageError:
        return
    assert report_text([], rows)
