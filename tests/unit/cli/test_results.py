"""What a user is told about a session."""

from toolkit.cli.results import failure_lines, socket_buffer_hint
from toolkit.rudp.flow_control import WANTED_SOCKET_BUFFER_BYTES
from toolkit.transfer import TransferResult
from toolkit.transfer.result import DeliveryStatus, UndeliveredEntry


def test_names_the_setting_that_limits_the_buffer_of_a_socket_that_has_dropped() -> None:
    hint = socket_buffer_hint({"socket_drops": 7, "receive_buffer_bytes": 425_984})
    assert hint is not None
    assert "7 datagrams" in hint
    assert "net.core.rmem_max=16777216" in hint


def test_every_file_that_failed_has_a_line_unless_it_is_the_only_one() -> None:
    result = TransferResult("xxh3-128")
    result.add_undelivered(UndeliveredEntry("link", DeliveryStatus.SKIPPED, "symbolic link"))
    result.add_undelivered(UndeliveredEntry("a", DeliveryStatus.FAILED, "already exists"))
    assert failure_lines(result) == []
    result.add_undelivered(UndeliveredEntry("b", DeliveryStatus.MISMATCHED, ""))
    assert failure_lines(result) == ["mismatched b: mismatched", "failed a: already exists"]


def test_says_nothing_without_drops_or_where_no_setting_helps() -> None:
    assert socket_buffer_hint({"socket_drops": 0, "receive_buffer_bytes": 425_984}) is None
    assert socket_buffer_hint({"socket_drops": 7, "receive_buffer_bytes": WANTED_SOCKET_BUFFER_BYTES}) is None
    assert socket_buffer_hint({"transport": "tcp"}) is None
