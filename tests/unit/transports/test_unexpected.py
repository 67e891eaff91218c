"""What a user reads about a bug that has cost a peer its packet or handshake."""

import logging

import pytest

from toolkit.transports.unexpected import UnexpectedErrors


def test_only_the_first_is_reported_in_one_printable_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NETTOOL_TRACEBACK", raising=False)
    errors = UnexpectedErrors()
    for text in ("a\x1bb", "c"):
        errors.report("a datagram was dropped", ValueError(text))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("a datagram was dropped: unexpected ValueError: a")
    assert record.getMessage().isprintable()
    assert record.exc_info is None


def test_the_traceback_is_printed_on_request(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETTOOL_TRACEBACK", "1")
    error = ValueError("surprise")
    UnexpectedErrors().report("a datagram was dropped", error)
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error
