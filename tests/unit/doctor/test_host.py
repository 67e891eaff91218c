"""What is enough for a transfer, and how to fix what is not."""

import pytest

from toolkit.comparison.host_info import HostInfo
from toolkit.doctor.host import (
    examine_host,
    judge_controls,
    judge_encryption,
    judge_offloads,
    judge_processors,
    judge_receive_buffer,
    judge_tcp_buffer,
)
from toolkit.security.keys import AeadName


def test_few_processors_are_shared_by_the_ends_of_a_comparison() -> None:
    assert judge_processors(HostInfo(cpu="a", cores=3)).is_enough
    few = judge_processors(HostInfo(cpu="a", cores=2))
    assert (few.found, few.is_enough) == ("2 usable (a)", False)


def test_a_clock_that_adapts_can_be_fixed() -> None:
    found = judge_processors(HostInfo(cpu="a", cores=8, governors=["performance", "powersave"]))
    assert "powersave" in found.found
    assert "performance" in found.command


def test_encryption_is_judged_by_the_faster_cipher() -> None:
    assert judge_encryption({AeadName.AES_256_GCM: 5000, AeadName.CHACHA20_POLY1305: 900}).is_enough
    assert "no fast AES" in judge_encryption({AeadName.AES_256_GCM: 900, AeadName.CHACHA20_POLY1305: 5000}).cost
    slow = judge_encryption({AeadName.AES_256_GCM: 200, AeadName.CHACHA20_POLY1305: 900})
    assert slow.cost == "no transfer is faster than 900 Mbit/s"


def test_offloads_that_are_missing_are_named() -> None:
    assert judge_offloads(True, True).is_enough
    assert judge_offloads(True, False).found == "no UDP_GRO"
    assert judge_offloads(False, False).found == "no UDP_SEGMENT (GSO) and no UDP_GRO"


def test_a_small_receive_buffer_has_a_command() -> None:
    assert judge_receive_buffer(32 << 20).is_enough
    small = judge_receive_buffer(425_984)
    assert small.found == "416 KiB of 32 MiB"
    assert small.command == "sudo sysctl -w net.core.rmem_max=16777216"


def test_a_tcp_buffer_limits_the_rate_over_long_paths() -> None:
    assert judge_tcp_buffer("tcp_rmem", "4096 131072 33554432").is_enough
    small = judge_tcp_buffer("tcp_wmem", "4096 16384 4194304")
    assert (small.name, small.found) == ("TCP send buffer", "up to 4 MiB")
    assert "about 2 MiB in flight: 167.8 Mbit/s" in small.cost
    assert small.command == 'sudo sysctl -w net.ipv4.tcp_wmem="4096 16384 33554432"'


@pytest.mark.parametrize(
    ("available", "choosable", "found", "command"),
    [
        (["reno", "cubic", "bbr"], ["bbr", "cubic", "reno"], "bbr, cubic, reno", ""),
        (["reno", "cubic"], ["cubic", "reno"], "cubic, reno; not loaded: bbr", "sudo modprobe tcp_bbr"),
        (
            ["reno", "cubic", "bbr"],
            ["cubic", "reno"],
            "cubic, reno; for root only: bbr",
            'sudo sysctl -w net.ipv4.tcp_allowed_congestion_control="cubic reno bbr"',
        ),
        ([], [], "none; not loaded: cubic, bbr", "sudo modprobe tcp_cubic && sudo modprobe tcp_bbr"),
    ],
)
def test_congestion_controls(available: list[str], choosable: list[str], found: str, command: str) -> None:
    judged = judge_controls(available, choosable)
    assert (judged.found, judged.command, judged.is_enough) == (found, command, not command)


def test_this_machine_can_be_examined() -> None:
    names = [capability.name for capability in examine_host()]
    assert {"processors", "encryption", "UDP offloads", "UDP receive buffer", "TCP congestion"} <= set(names)
