"""What is kept about paths between sessions: what a full session has measured, by host, and never a reason to fail."""

import json
from pathlib import Path

import pytest

from toolkit.channel import Address
from toolkit.rudp.congestion.base import PathMemory
from toolkit.transports.udp.path_cache import PathCache

PEER = Address("192.0.2.1", 9000)
MEMORY = PathMemory(98e6, 40_000_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "paths"


def keep(folder: Path, phase: str, careful_resume: str = "none", peer: Address = PEER) -> None:
    congestion: dict[str, float | str] = {"phase": phase, "max_bw": MEMORY.rate_bps, "careful_resume": careful_resume}
    PathCache(folder).keep(peer, congestion, MEMORY.rtt_ns)


def test_the_rate_and_the_rtt_of_a_full_session_are_kept_for_every_port_of_the_host(folder: Path) -> None:
    keep(folder, "probe_bw_cruise")
    assert PathCache(folder).recall(Address(PEER.host, 1)) == MEMORY
    assert PathCache(folder).recall(Address("192.0.2.2", 9000)) is None


def test_a_session_that_ended_while_it_started_changes_nothing(folder: Path) -> None:
    keep(folder, "startup")
    assert PathCache(folder).recall(PEER) is None
    keep(folder, "probe_bw_cruise")
    keep(folder, "startup", "validated")
    assert PathCache(folder).recall(PEER) == MEMORY


def test_what_has_proved_wrong_is_forgotten(folder: Path) -> None:
    keep(folder, "probe_bw_cruise")
    keep(folder, "startup", "retreated")
    assert PathCache(folder).recall(PEER) is None


def test_the_rate_that_a_user_allows_is_not_that_of_the_path(folder: Path) -> None:
    PathCache(folder).keep(PEER, {"phase": "probe_bw_cruise", "max_bw": 1e6}, MEMORY.rtt_ns, has_rate_limit=True)
    assert PathCache(folder).recall(PEER) is None


def test_a_controller_that_measures_no_bandwidth_leaves_no_memory(folder: Path) -> None:
    PathCache(folder).keep(PEER, {"phase": "avoidance"}, MEMORY.rtt_ns)
    assert not folder.exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "198.18.0.2"])
def test_an_address_that_may_be_another_path_each_time_is_not_kept(folder: Path, host: str) -> None:
    keep(folder, "probe_bw_cruise", peer=Address(host, 9000))
    assert not folder.exists()


@pytest.mark.parametrize("host", ["2001:db8::1", "fe80::1%eth0"])
def test_ipv6_addresses_are_kept(folder: Path, host: str) -> None:
    keep(folder, "probe_bw_cruise", peer=Address(host, 9000))
    assert PathCache(folder).recall(Address(host, 9000)) == MEMORY


@pytest.mark.parametrize(
    "entry",
    [
        1,
        {},
        {"rate_bps": "fast", "rtt_ns": 1},
        {"rate_bps": -1.0, "rtt_ns": 40_000_000},
        {"rate_bps": 1e300, "rtt_ns": 40_000_000},
        {"rate_bps": 1e6, "rtt_ns": 10**30},
        {"rate_bps": float("nan"), "rtt_ns": 40_000_000},
        {"rate_bps": 1e6, "rtt_ns": float("inf")},
        {"rate_bps": [1], "rtt_ns": None},
        [[[]]] * 1000,
    ],
)
def test_a_damaged_entry_is_no_memory(folder: Path, entry: object) -> None:
    folder.mkdir(parents=True)
    (folder / PEER.host).write_text(json.dumps(entry))
    assert PathCache(folder).recall(PEER) is None


def test_a_path_that_is_filled_at_once_is_not_kept(folder: Path) -> None:
    PathCache(folder).keep(PEER, {"phase": "probe_bw_cruise", "max_bw": 1e9}, 1_000_000)
    assert not folder.exists()
