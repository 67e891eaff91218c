"""What a user is told about a session."""

from toolkit.cli.results import socket_buffer_hint
from toolkit.rudp.flow_control import WANTED_SOCKET_BUFFER_BYTES


def test_names_the_setting_that_limits_the_buffer_of_a_socket_that_has_dropped() -> None:
    hint = socket_buffer_hint({"socket_drops": 7, "receive_buffer_bytes": 425_984})
    assert hint is not None
    assert "7 datagrams" in hint
    assert "net.core.rmem_max=16777216" in hint


def test_says_nothing_without_drops_or_where_no_setting_helps() -> None:
    assert socket_buffer_hint({"socket_drops": 0, "receive_buffer_bytes": 425_984}) is None
    assert socket_buffer_hint({"socket_drops": 7, "receive_buffer_bytes": WANTED_SOCKET_BUFFER_BYTES}) is None
    assert socket_buffer_hint({"transport": "tcp"}) is None
