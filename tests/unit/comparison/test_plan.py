"""Every transport runs once in each block, in an order that the seed decides; names of transports."""

from itertools import groupby

import pytest

from toolkit.comparison.plan import (
    AIOQUIC,
    IPERF3,
    WARM_UP,
    baseline_of,
    further_block,
    parse_transports,
    schedule,
    with_control,
)
from toolkit.comparison.records import Setting
from toolkit.comparison.scenario import Scenario
from toolkit.errors import UsageError

SETTINGS = [Setting(label, "tcp", label) for label in ("a", "b", "c")]
SIZES = [10, 1000]


def test_the_warm_up_comes_first_and_each_block_holds_every_cell_once() -> None:
    specs = list(schedule(SETTINGS, SIZES, repeats=4, seed=3))
    blocks = [(block, list(group)) for block, group in groupby(specs, lambda spec: spec.block)]
    assert [block for block, _ in blocks] == [WARM_UP, 0, 1, 2, 3]
    warm_up, *rest = [group for _, group in blocks]
    assert sorted((spec.setting.label, spec.payload_bytes) for spec in warm_up) == [("a", 10), ("b", 10), ("c", 10)]
    for group in rest:
        cells = sorted((spec.setting.label, spec.payload_bytes) for spec in group)
        assert cells == [(label, size) for label in "abc" for size in SIZES]


def test_the_seed_decides_the_order_which_differs_between_blocks() -> None:
    first = list(schedule(SETTINGS, SIZES, repeats=20, seed=3))
    assert first == list(schedule(SETTINGS, SIZES, repeats=20, seed=3))
    assert first != list(schedule(SETTINGS, SIZES, repeats=20, seed=4))
    orders = {tuple(spec.setting.label for spec in first if spec.block == block) for block in range(20)}
    assert len(orders) > 5


def test_a_further_block_holds_every_transport_once_in_an_order_of_its_own() -> None:
    blocks = [further_block(SETTINGS, 1000, block, seed=3) for block in range(8, 28)]
    assert blocks == [further_block(SETTINGS, 1000, block, seed=3) for block in range(8, 28)]
    for number, block in enumerate(blocks, 8):
        assert {(spec.block, spec.payload_bytes) for spec in block} == {(number, 1000)}
        assert sorted(spec.setting.label for spec in block) == ["a", "b", "c"]
    assert len({tuple(spec.setting.label for spec in block) for block in blocks}) > 3


def test_names_of_transports() -> None:
    assert parse_transports("tcp, udp,tcp-bbr,udp-rate=50Mbit") == [
        Setting("tcp-cubic", "tcp", "cubic", is_encrypted=True),
        Setting("udp-bbr", "udp", "bbr", is_encrypted=True),
        Setting("tcp-bbr", "tcp", "bbr", is_encrypted=True),
        Setting("udp-rate=50Mbit", "udp", "rate", None, 50e6, is_encrypted=True),
    ]
    assert parse_transports("tcp", "reno") == [Setting("tcp-reno", "tcp", "reno", is_encrypted=True)]
    assert parse_transports("quic,iperf3-tcp,iperf3-tcp-bbr,iperf3-udp=1Gbit") == [
        Setting("quic", "quic", None, AIOQUIC, is_encrypted=True),
        Setting("iperf3-tcp", "tcp", "cubic", IPERF3),
        Setting("iperf3-tcp-bbr", "tcp", "bbr", IPERF3),
        Setting("iperf3-udp=1Gbit", "udp", None, IPERF3, 1e9),
    ]


def test_names_of_transports_without_encryption() -> None:
    assert parse_transports("tcp+plaintext,udp-bbr,udp-bbr+plaintext,udp-rate+plaintext=50Mbit") == [
        Setting("tcp-cubic+plaintext", "tcp", "cubic", is_encrypted=False),
        Setting("udp-bbr", "udp", "bbr", is_encrypted=True),
        Setting("udp-bbr+plaintext", "udp", "bbr", is_encrypted=False),
        Setting("udp-rate+plaintext=50Mbit", "udp", "rate", None, 50e6, is_encrypted=False),
    ]


def test_the_recorded_command_line_holds_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Scenario("loopback").plan()
    for words in (["--code", "7-ocean-brick-lunar"], ["--code=7-ocean-brick-lunar"]):
        monkeypatch.setattr("sys.argv", ["nettool", "bench", "remote", *words, "host"])
        command = plan.campaign("memory").command
        assert "ocean" not in " ".join(command)
        assert [command[:3], command[-1]] == [["nettool", "bench", "remote"], "host"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pigeon",
        "tcp,,udp",
        "tcp,tcp-cubic",
        "iperf3",
        "iperf3-sctp",
        "udp-rate=fast",
        "udp-rate=1bit",
        "iperf3-udp-bbr",
        "udp+plaintext,udp-bbr+plaintext",
        "udp+plain",
        "udp-bbr+plaintext+plaintext",
        "+plaintext",
        "quic+plaintext",
        "iperf3-tcp+plaintext",
    ],
)
def test_invalid_names_of_transports(text: str) -> None:
    with pytest.raises(UsageError):
        parse_transports(text)


def test_the_baseline_is_the_first_tcp_of_nettool_and_the_control_repeats_it() -> None:
    settings = parse_transports("udp,iperf3-tcp,tcp-bbr,tcp")
    assert baseline_of(settings).label == "tcp-bbr"
    assert baseline_of(parse_transports("udp,udp-cubic")).label == "udp-bbr"
    *same, control = with_control(settings)
    assert same == settings
    assert control == Setting("tcp-bbr#2", "tcp", "bbr", is_encrypted=True)
