"""Jobs and answers between a worker process and the process that starts it."""

import io
import sys

import pytest

from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.worker_protocol import (
    ReceiveJob,
    SendJob,
    WorkerJob,
    failure,
    job_line,
    read_answer,
    read_job,
    read_result,
    report,
    report_port,
    wait_for_go,
)
from toolkit.errors import TransferError

SEND = SendJob("tcp", "cubic", 5e6, "192.0.2.1", 9000, "/tmp/payload", 100)
RECEIVE = ReceiveJob("udp", None, "127.0.0.1")


@pytest.mark.parametrize("job", [SEND, RECEIVE])
def test_a_job_reaches_the_worker(job: WorkerJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(job_line(job) + "\n"))
    assert read_job() == job


@pytest.mark.parametrize("line", ["", "{}", "[]", '{"role": "fly"}', '{"role": "send", "port": "many"}'])
def test_an_invalid_job_is_an_error(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(line))
    with pytest.raises(TransferError, match="invalid job"):
        read_job()


def test_answers_and_the_result_reach_the_parent(capsys: pytest.CaptureFixture[str]) -> None:
    result = EndpointResult(size_bytes=100, seconds=0.5, counters={"acks_sent": 2})
    report_port(9000)
    report(result)
    port, last = capsys.readouterr().out.splitlines()
    assert read_answer(port, "the receiver") == {"port": 9000}
    assert read_result(last, "the receiver") == result


def test_a_failure_before_the_transfer_is_raised(capsys: pytest.CaptureFixture[str]) -> None:
    report(failure(TransferError("no route")))
    with pytest.raises(TransferError, match="the sender: no route"):
        read_answer(capsys.readouterr().out, "the sender")


@pytest.mark.parametrize("line", ["", "5", "no json", '{"seconds": "long"}'])
def test_an_invalid_result_names_the_worker(line: str) -> None:
    with pytest.raises(TransferError, match="the sender"):
        read_result(line, "the sender")


def test_a_sender_that_is_cancelled_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(TransferError, match="before the transfer began"):
        wait_for_go()
