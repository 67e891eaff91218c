"""The mark of the receiver's directory: found again for that directory only, and nothing else decodes."""

from pathlib import Path

import pytest

from toolkit.errors import ProtocolError
from toolkit.transfer.place import ReceiverPlace


def test_a_mark_is_that_of_one_directory_whatever_its_salt(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    marks = [ReceiverPlace.of(tmp_path.stat()).encode() for _ in range(2)]
    assert marks[0] != marks[1]
    for mark in marks:
        place = ReceiverPlace.decode_untrusted(mark)
        assert place.is_at(tmp_path.stat())
        assert not place.is_at((tmp_path / "other").stat())


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_mark_of_another_length_is_a_protocol_error(length: int) -> None:
    with pytest.raises(ProtocolError):
        ReceiverPlace.decode_untrusted(bytes(length))
