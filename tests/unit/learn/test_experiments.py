"""Every experiment of the course shows what its page says, whatever ports and times it gets."""

from functools import cache
from itertools import pairwise

import pytest

from toolkit.learn.course import COURSE, Language, Lesson, lesson


@cache
def found(name: str) -> dict[str, str]:
    """What an experiment has found; each runs once."""
    return lesson(name).experiment()


@pytest.mark.parametrize("one", COURSE, ids=lambda one: one.name)
def test_an_experiment_finds_every_value_of_its_page_and_no_other(one: Lesson) -> None:
    values = found(one.name)
    for language in Language:
        assert set(values) == set(one.places(language))
        assert all(value in one.page(language, values) for value in values.values())


def test_each_connection_has_a_socket_of_its_own_on_the_port_of_the_server() -> None:
    values = found("sockets")
    descriptors = {values[name] for name in values if "fd" in name}
    assert len(descriptors) == 5
    assert values["accepted_port_a"] == values["accepted_port_b"] == values["server_port"]
    assert len({values["client_port_a"], values["client_port_b"], values["server_port"]}) == 3
    assert (values["answer_a"], values["answer_b"]) == ("HELLO", "WORLD")


def test_the_kernel_gives_clients_a_port_when_they_need_one() -> None:
    values = found("ports")
    assert values["client_before"] == values["udp_before"] == "0"
    for name in ("client_after", "udp_after"):
        assert int(values["low"]) <= int(values[name]) <= int(values["high"])
    assert values["accepted_port"] == values["server_port"]
    assert values["second_bind"] == "EADDRINUSE"
    assert values["udp_bind"] == "OK"


def test_a_socket_on_127_0_0_1_is_out_of_reach_of_other_addresses() -> None:
    values = found("loopback")
    outcomes = [values[f"{server}_{address}"] for server in ("private", "public") for address in ("loopback", "other")]
    assert outcomes == ["OK", "ECONNREFUSED", "OK", "OK"]


def test_a_connection_is_established_before_accept_and_ends_in_two_halves() -> None:
    values = found("handshake")
    assert values["listener_state"] == "LISTEN"
    assert values["state_before_accept"] == values["server_state"] == "ESTABLISHED"
    assert (values["client_after_fin"], values["server_after_fin"]) == ("FIN_WAIT2", "CLOSE_WAIT")
    assert values["refused"] == "ECONNREFUSED"
    assert int(values["next_sequence"]) == (int(values["syn_sequence"]) + 1) % 2**32


def test_a_full_queue_leaves_clients_in_syn_sent_until_their_next_syn() -> None:
    """Waits for the second SYN of a client, which its kernel sends after one second."""
    values = found("queue")
    states = [values[f"state_{number}"] for number in range(1, 5)]
    assert states == ["ESTABLISHED", "ESTABLISHED", "SYN_SENT", "SYN_SENT"]
    assert values["late_state"] == "ESTABLISHED"


def test_a_stream_joins_what_datagrams_keep_apart() -> None:
    values = found("datagrams")
    assert values["stream_first"] + values["stream_rest"] == "onetwothree"
    assert values["stream_end"] == "0"
    assert (values["datagram_1"], values["datagram_2"], values["datagram_cut"]) == ("one", "two", "th")
    assert (values["is_cut"], values["too_large"]) == ("MSG_TRUNC", "EMSGSIZE")


def test_packets_carry_the_file_in_order_and_acknowledgements_cover_several() -> None:
    values = found("sequence")
    lines = values["packets"].splitlines()
    data = [line for line in lines if "DATA" in line]
    assert len(data) == int(values["data_packets"])
    borders = [line.partition("[")[2].rstrip(")").split(", ") for line in data]
    assert [start for start, _ in borders] == ["0", *(end for _, end in borders[:-1])]
    assert borders[-1][1] == values["bytes"].replace(",", "")
    assert len([line for line in lines if "ACK  " in line]) < len(data)


def test_only_the_lost_bytes_are_sent_again_in_a_new_packet() -> None:
    values = found("loss")
    data = [line for line in values["packets"].splitlines() if "DATA" in line]
    (lost,) = (line for line in data if line.endswith("XXX"))
    place = lost[lost.index("[") : lost.index(")") + 1]
    again = [line for line in data if place in line and line is not lost]
    assert len(again) == 1
    assert f"#{values['again']} " in again[0]
    assert len(data) == int(found("sequence")["data_packets"]) + 1
    assert float(values["ms"]) > float(found("sequence")["ms"])


def test_newreno_halves_its_window_again_and_again_and_bbr_fills_the_path_with_a_shorter_queue() -> None:
    values = found("congestion")
    windows = [float(line.split()[2]) for line in values["chart"].splitlines()]
    halvings = [after for before, after in pairwise(windows) if after < 0.6 * before]
    assert len(halvings) >= 2
    queues_ms = {control: int(values[f"{control}_queue"].split()[0]) for control in ("newreno", "bbr")}
    assert queues_ms["bbr"] < queues_ms["newreno"]
    assert int(values["bbr_lost"]) < int(values["newreno_lost"])


def test_a_real_syn_is_decoded() -> None:
    values = found("layers")
    assert (values["version"], values["protocol"], values["flags"]) == ("4", "6", "0x02")
    assert values["source"] == values["destination"] == "127.0.0.1"
    assert values["word_3"] == "7f 00 00 01"
    assert bytes.fromhex(values["word_5"][:5]) == int(values["source_port"]).to_bytes(2, "big")
    assert int(values["length"]) == 20 + int(values["tcp_bytes"])
    assert "MSS" in values["options"]
    assert int(values["frame"]) > int(values["udp_frame"])


def test_loss_costs_cubic_much_more_time_than_bbr() -> None:
    values = found("crossover")
    ratios = [float(line.split()[-1]) for line in values["rows"].splitlines()]
    assert ratios[-1] > ratios[-2] > 2 * ratios[0]
