"""The calls of two processes side by side, from the files of `--trace-file`."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from toolkit.errors import UsageError
from toolkit.report.call_timeline import EndTrace, read_trace, text_of
from toolkit.tracing.call import Call

HEAD = json.dumps({"kind": "calls", "command": "tcp-send", "pid": 7})
CALL = Call(1.5, "send", 3, "3, 100 bytes", "100", "bytes of the stream", 100, "stream")


def test_a_file_holds_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    remark = Call(1.25, "", meaning="sends name and size")
    path.write_text("\n".join([HEAD, *(json.dumps(asdict(call)) for call in (remark, CALL))]))
    assert read_trace(path) == EndTrace("tcp-send", 7, (remark, CALL))


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["[]"],
        ["not JSON"],
        ['{"kind": "line"}'],
        ['{"kind": "calls"}'],
        ['{"kind": "calls", "command": "tcp-send", "pid": 1e999}'],
        ["[" * 100_000],
        [HEAD, "[]"],
        [HEAD, json.dumps({**asdict(CALL), "fd": "3"})],
        [HEAD, json.dumps({"name": "send"})],
    ],
)
def test_a_file_of_anything_else_is_refused(lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(UsageError, match="holds no calls"):
        read_trace(path)


def test_calls_stand_in_the_column_of_their_process_in_the_order_of_time() -> None:
    ends = [
        EndTrace("tcp-send", 7, (CALL, Call(1.75, "close", 3, "3", "0"))),
        EndTrace("tcp-recv", 8, (Call(1.625, "recv", 4, "4, 100 bytes", "100", size_bytes=100, kind="stream"),)),
    ]
    head, *rows = text_of(ends, 80).splitlines()
    column = head.index("tcp-recv")
    assert [tuple(row.split(maxsplit=1)) for row in rows] == [
        ("0.00", "send(3, 100 bytes) = 100"),
        ("125.00", "recv(4, 100 bytes) = 100"),
        ("250.00", "close(3) = 0"),
    ]
    assert [row.find("(") > column for row in rows] == [False, True, False]
