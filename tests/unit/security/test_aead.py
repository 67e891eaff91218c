"""The choice of an AEAD."""

import pytest

from toolkit.errors import ProtocolError
from toolkit.parameters import encode_uints
from toolkit.security.aead import (
    AEAD_IDS,
    choose_aead,
    decode_aead_untrusted,
    decode_speeds_untrusted,
    encode_speeds,
    measured_speeds,
)
from toolkit.security.keys import AeadName

AES, CHACHA = AeadName.AES_256_GCM, AeadName.CHACHA20_POLY1305


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [
        ({AES: 9, CHACHA: 4}, {AES: 9, CHACHA: 4}, AES),
        ({AES: 9, CHACHA: 4}, {AES: 1, CHACHA: 2}, CHACHA),
        ({AES: 3, CHACHA: 3}, {AES: 3, CHACHA: 3}, AES),
        ({AES: 9, CHACHA: 4}, {CHACHA: 1}, CHACHA),
    ],
)
def test_the_slower_side_decides(ours: dict[AeadName, int], theirs: dict[AeadName, int], chosen: AeadName) -> None:
    assert choose_aead(ours, theirs) is chosen
    assert choose_aead(theirs, ours) is chosen


def test_without_a_common_aead_there_is_no_session() -> None:
    with pytest.raises(ProtocolError, match="none of our AEADs"):
        choose_aead({AES: 1}, {CHACHA: 1})


def test_this_machine_is_measured_once() -> None:
    speeds = measured_speeds()
    assert speeds.keys() == set(AeadName)
    assert all(speed > 0 for speed in speeds.values())
    assert measured_speeds() is speeds


def test_speeds_survive_encoding_and_unknown_aeads_are_ignored() -> None:
    speeds = {AES: 9000, CHACHA: (1 << 32) - 1}
    later = b"\x77" + encode_uints((123,), 4)
    assert decode_speeds_untrusted(later + encode_speeds(speeds)) == speeds
    assert decode_speeds_untrusted(b"") == {}


@pytest.mark.parametrize("data", [b"\1", bytes(4), bytes(6)])
def test_a_list_of_impossible_length_is_rejected(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="list of AEADs"):
        decode_speeds_untrusted(data)


def test_an_aead_is_known_by_its_id() -> None:
    for name, number in AEAD_IDS.items():
        assert decode_aead_untrusted(bytes([number])) is name
    for data in (b"", b"\0", b"\3", b"\1\1"):
        with pytest.raises(ProtocolError, match="unknown AEAD"):
            decode_aead_untrusted(data)
