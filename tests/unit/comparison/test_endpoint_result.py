"""What an endpoint reports survives JSON, and invalid reports are refused."""

import pytest

from toolkit.comparison.endpoint_result import EndpointResult, Samples
from toolkit.comparison.json_codec import FieldError, decode, encode

RESULT = EndpointResult(
    size_bytes=5,
    seconds=0.5,
    digest="00",
    counters={"acks_sent": 3, "version": "1"},
    series=Samples(*([0.0, 1.0] for _ in range(8))),
)


def test_a_result_round_trips() -> None:
    assert decode(EndpointResult, encode(RESULT)) == RESULT
    assert encode(EndpointResult()) == {}


def test_statistics_of_a_channel_fill_fields_and_counters() -> None:
    result = EndpointResult(size_bytes=5).with_statistics({"packets_sent": 7, "cwnd": 10, "congestion_control": "bbr"})
    assert result == EndpointResult(size_bytes=5, packets_sent=7, congestion_control="bbr", counters={"cwnd": 10})


def test_null_and_unknown_objects_are_ignored() -> None:
    assert decode(EndpointResult, {"peak_memory_bytes": None, "later": {"a": 1}}) == EndpointResult()


@pytest.mark.parametrize(
    "fields",
    [
        {"bytes": "many"},
        {"bytes": True},
        {"seconds": float("nan")},
        {"cpu_seconds": float("inf")},
        {"digest": 7},
        {"acks_sent": float("nan")},
        {"acks_sent": 10**400},
        {"series": {"t_s": [0.0]}},
    ],
)
def test_invalid_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(FieldError):
        decode(EndpointResult, fields)
