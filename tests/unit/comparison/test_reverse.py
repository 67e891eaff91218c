"""What a peer may ask to be sent, and what samples of another machine are believed."""

import json
import threading
from dataclasses import asdict, replace
from typing import Any

import pytest

from tests.support.background import together
from tests.support.conformance_network import CASES, Network
from toolkit.comparison.endpoint_result import Samples
from toolkit.comparison.reverse import ContentOrder, receive_asked, send_asked, series_untrusted
from toolkit.errors import NettoolError, ProtocolError, RefusedError

ORDER = ContentOrder(
    elapsed_s=0.1,
    time_s=None,
    size_bytes=100_003,
    seed=1,
    congestion_control=None,
    rate_bps=None,
    backlog_bytes=None,
    slice_bytes=1 << 16,
)
TIMES = [0.0, 0.5, 1.0]
SAMPLES = Samples(TIMES, *([0.0, 1.0, 2.0] for _ in range(7)))


def test_an_order_arrives_as_it_was_given() -> None:
    for order in (ORDER, replace(ORDER, time_s=2.0, size_bytes=None, rate_bps=1e6, congestion_control="bbr")):
        question = json.loads(order.encode())
        assert question["ask"] == "send"
        assert ContentOrder.decode_untrusted(question) == order


@pytest.mark.parametrize(
    "changed",
    [
        {"time_s": 1.0},
        {"size_bytes": None},
        {"size_bytes": 0},
        {"size_bytes": 1 << 60},
        {"size_bytes": None, "time_s": 0},
        {"size_bytes": None, "time_s": 1e300},
        {"elapsed_s": -1},
        {"elapsed_s": 61},
        {"seed": -1},
        {"seed": 1 << 80},
        {"slice_bytes": 0},
        {"slice_bytes": 1 << 30},
        {"backlog_bytes": 0},
        {"backlog_bytes": 1 << 31},
        {"rate_bps": 0},
        {"rate_bps": 1e20},
        {"rate_bps": "much"},
        {"congestion_control": 5},
    ],
)
def test_an_order_out_of_range_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="in an invalid way"):
        ContentOrder.decode_untrusted({**asdict(ORDER), **changed})


def exchanged(order: ContentOrder, max_bytes: int = 1 << 30, max_seconds: float = 60.0) -> tuple[Any, Any]:
    """What the receiver and the sender of such an order return, or raise, over a connection of this machine."""
    network = Network(CASES["tcp"])
    near, far = network.pair()

    def caught(call: Any) -> Any:
        try:
            return call()
        except NettoolError as error:
            return error

    try:
        return together(
            lambda: caught(lambda: receive_asked(near, order)),
            lambda: caught(lambda: answered(far, max_bytes, max_seconds)),
        )
    finally:
        network.close()


def answered(channel: Any, max_bytes: int, max_seconds: float) -> Any:
    question = json.loads(channel.receive())
    return send_asked(channel, ContentOrder.decode_untrusted(question), max_bytes, max_seconds, threading.Event())


def test_a_size_is_sent_whole_with_samples_on_the_clock_of_the_one_who_asked() -> None:
    received, (sent, series) = exchanged(replace(ORDER, elapsed_s=30.0))
    assert received.size_bytes == sent.size_bytes == 100_003
    assert received.digest == sent.digest
    assert series.t_s[0] >= 30.0
    assert series.waiting_s == []
    assert series_untrusted(json.loads(json.dumps(asdict(series)))) == series


def test_the_time_that_has_passed_before_counts() -> None:
    received, (sent, series) = exchanged(replace(ORDER, size_bytes=None, time_s=30.0, elapsed_s=29.9))
    assert 0 < received.size_bytes == sent.size_bytes
    assert received.digest == sent.digest
    assert series.t_s[-1] >= 30.0


def test_what_this_machine_cannot_do_is_told_to_the_one_who_asked() -> None:
    received, sent = exchanged(ORDER, max_bytes=1000)
    assert isinstance(sent, RefusedError)
    assert "this machine sends at most 1000 B (its `max_bytes`)" in str(received)
    received, _ = exchanged(replace(ORDER, congestion_control="nosuch"))
    assert "the sender failed: TCP has no congestion control nosuch here" in str(received)


def test_a_server_that_has_made_all_its_transfers_sends_no_timed_one_either() -> None:
    received, _ = exchanged(replace(ORDER, size_bytes=None, time_s=1.0), max_bytes=0)
    assert "this machine sends at most 0 B" in str(received)


def test_a_timed_transfer_ends_at_the_limits_of_the_sender() -> None:
    endless = replace(ORDER, size_bytes=None, time_s=3600.0)
    _, sent = exchanged(endless, max_bytes=1 << 20)
    assert str(sent) == "the content was cut off at 1 MiB, the other machine's `max_bytes`"
    received, sent = exchanged(replace(endless, rate_bps=8e6), max_seconds=0.2)
    assert str(received) == "the sender cancelled the transfer"
    assert str(sent) == "the transfer was cancelled"


def test_sound_samples_are_believed() -> None:
    assert series_untrusted(asdict(SAMPLES)) == SAMPLES
    assert series_untrusted(asdict(replace(SAMPLES, waiting_s=TIMES))).waiting_s == TIMES


@pytest.mark.parametrize(
    "value",
    [
        5,
        {},
        {name: [] for name in asdict(SAMPLES)},
        {**asdict(SAMPLES), "t_s": [0.0, 2.0, 1.0]},
        {**asdict(SAMPLES), "t_s": [0.0, 1.0]},
        {**asdict(SAMPLES), "busy_s": [0.0, 1.0, 1e200]},
        {**asdict(SAMPLES), "busy_s": [0.0, 1.0, "x"]},
        {**asdict(SAMPLES), "waiting_s": [0.0]},
        {name: [0.0] * 5000 for name in asdict(SAMPLES)},
    ],
)
def test_samples_that_cannot_be_are_refused(value: object) -> None:
    with pytest.raises(ProtocolError, match="invalid samples"):
        series_untrusted(value)
