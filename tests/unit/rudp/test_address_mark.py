"""The mark of an address is the first word of a keyed MD5, and nothing but the key makes it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.rudp.address_mark import KEY_BYTES, AddressMarks

KEY = bytes(range(KEY_BYTES))
hosts = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))


def test_a_mark_is_the_first_word_of_md5_of_key_and_address() -> None:
    reversed_words = bytes(12) + bytes((1, 2, 0, 192))
    digest = hashlib.md5(KEY + reversed_words, usedforsecurity=False).digest()
    assert AddressMarks(KEY).of(bytes((192, 0, 2, 1))) == int.from_bytes(digest[:4], "little")


@given(hosts, hosts)
def test_marks_depend_on_address_and_key(host: bytes, other: bytes) -> None:
    marks = AddressMarks(KEY)
    assert marks.of(host) == marks.of(host)
    assert 0 <= marks.of(host) < 1 << 32
    if host.rjust(16, b"\0") != other.rjust(16, b"\0"):
        assert marks.of(host) != marks.of(other)  # but for one pair in 2^32
    assert marks.of(host) != AddressMarks(KEY[::-1]).of(host)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes instead of 32"):
        AddressMarks(bytes(16))
