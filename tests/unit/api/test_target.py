"""How users may write the receiver's address, and how a mistake in it is reported."""

from pathlib import Path

import pytest

from toolkit.api.target import parse_target
from toolkit.channel import Address
from toolkit.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", Address("localhost", 9000)),
        ("192.0.2.7:9001", Address("192.0.2.7", 9001)),
        ("[::1]:9001", Address("::1", 9001)),
        ("[::1]", Address("::1", 9000)),
        ("::1", Address("::1", 9000)),
        ("fe80::1%eth0", Address("fe80::1%eth0", 9000)),
        ("[fe80::1%eth0]:65535", Address("fe80::1%eth0", 65535)),
        ("bücher.example:1", Address("bücher.example", 1)),
    ],
)
def test_valid_targets(text: str, address: Address) -> None:
    assert parse_target(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":9000", "host:", "host:0", "host:65536", "host:x", "host:-1", "host:٩", "host:9000:9000", "1:2:3"),
        *("[::1", "[host]:1", "[::1]9000", "[]:1", "a b", "a/b", "a\x1b[0mb", "host:1\n", "http://host"),
        "host:" + "9" * 5000,
    ],
)
def test_invalid_targets_are_reported_in_one_printable_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_target(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_file_in_place_of_the_receiver_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    path.touch()
    with pytest.raises(UsageError, match="the receiver comes last"):
        parse_target(str(path))
