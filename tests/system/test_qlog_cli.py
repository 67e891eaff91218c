"""--qlog on the command line: one file per side and session, and a one-line error if it cannot be written."""

import json
import signal
from pathlib import Path

from tests.support.cli_process import complaint, everything_below, nettool, receiver


def vantage_point(path: Path) -> str:
    """Return the vantage point of a log, which must end with a close without an error; either side may close first."""
    records = [json.loads(record) for record in path.read_bytes().split(b"\x1e")[1:]]
    [closed] = [record["data"] for record in records[1:] if record["name"] == "connectivity:connection_closed"]
    assert closed["application_code"] == 0
    return str(records[0]["trace"]["vantage_point"]["type"])


def test_each_side_and_session_has_a_log(tmp_path: Path) -> None:
    incoming, logs = tmp_path / "incoming", tmp_path / "logs"
    incoming.mkdir()
    logs.mkdir()
    with receiver(incoming, "--qlog", str(logs / "far.sqlog"), command="udp-recv") as receiving:
        for name in ("a", "b"):
            (tmp_path / name).write_bytes(name.encode() * 100_000)
            sent = nettool("udp-send", "--qlog", logs / f"{name}.sqlog", tmp_path / name, receiving.target)
            assert (sent.code, sent.stderr) == (0, ""), sent
        receiving.wait_for("received 1 file", 2)
        receiving.end(signal.SIGINT)
    assert everything_below(incoming) == ["a", "b"]
    assert {name: vantage_point(logs / name) for name in everything_below(logs)} == {
        "a.sqlog": "client",
        "b.sqlog": "client",
        "far.sqlog": "server",
        "far-2.sqlog": "server",
    }


def test_a_log_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    missing = tmp_path / "missing" / "log"
    sent = nettool("udp-send", "--qlog", missing, tmp_path / "file", "127.0.0.1:9")
    received = nettool("udp-recv", "--qlog", missing, "--dir", tmp_path, "--port", "0")
    for ended in (sent, received):
        assert ended.code == 2
        assert complaint(ended).endswith("no such file or directory; choose another file with --qlog")


def test_a_log_replaces_no_file_that_is_sent_or_that_nettool_did_not_write(tmp_path: Path) -> None:
    film, other = tmp_path / "film.mkv", tmp_path / "other.mkv"
    film.write_bytes(b"a film")
    other.write_bytes(b"another film")
    for log, source in ((film, other), (film, film)):
        ended = nettool("udp-send", "--qlog", log, source, "127.0.0.1:9")
        assert (ended.code, film.read_bytes()) == (2, b"a film")
    ended = nettool("udp-recv", "--qlog", film, "--dir", tmp_path, "--port", "0")
    assert (ended.code, film.read_bytes()) == (2, b"a film")
