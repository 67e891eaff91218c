"""What is taken from a report of iperf3 as the result of a trial."""

import pytest

from toolkit.comparison.peers.iperf3 import _tcp_result, _udp_result
from toolkit.comparison.worker_protocol import SendJob
from toolkit.errors import TransferError

CPU = {"cpu_utilization_percent": {"host_total": 50.0}}
JOB = SendJob("tcp", "cubic", None, "far", 5201, None, payload_bytes=1_048_576)


def test_over_tcp_the_figures_are_those_of_what_the_server_counted() -> None:
    received = {"bytes": 844_184, "seconds": 1.1, "bits_per_second": 6e6}
    result = _tcp_result({**CPU, "sum_sent": {"bytes": 1_048_576, "retransmits": 3}, "sum_received": received}, JOB)
    assert (result.size_bytes, result.seconds, result.goodput_bps) == (844_184, 1.1, 6e6)


def test_over_tcp_nothing_counted_is_an_error() -> None:
    received = {"bytes": 0, "seconds": 0.1, "bits_per_second": 0.0}
    with pytest.raises(TransferError, match="larger size"):
        _tcp_result({**CPU, "sum_sent": {}, "sum_received": received}, JOB)


def test_over_udp_what_the_server_had_not_seen_did_not_arrive() -> None:
    total = {"packets": 725, "lost_packets": 267, "seconds": 0.5}
    received = {"packets": 722, "lost_packets": 267, "bytes": 658_840}
    result = _udp_result({**CPU, "sum": total, "sum_received": received})
    assert (result.size_bytes, result.goodput_bps) == (455 * 1448, pytest.approx(8 * 455 * 1448 / 0.5))


def test_over_udp_an_iperf3_with_one_sum_only_has_the_loss_in_it() -> None:
    total = {"packets": 725, "lost_packets": 267, "seconds": 0.5}
    assert _udp_result({**CPU, "sum": total}).size_bytes == 458 * 1448


def test_over_udp_nothing_counted_is_an_error() -> None:
    total = {"packets": 725, "lost_packets": 0, "seconds": 0.5}  # the client knows of no loss either
    received = {"packets": 0, "lost_packets": 0, "bytes": 0}
    with pytest.raises(TransferError, match="no datagram"):
        _udp_result({**CPU, "sum": total, "sum_received": received})
