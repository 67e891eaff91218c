"""Which names a receiver accepts."""

import pytest

from toolkit.errors import printable
from toolkit.transfer.names import MAX_COMPONENTS, MAX_PATH_BYTES, display_name, refusal_reason_untrusted


@pytest.mark.parametrize(
    "path",
    [
        b"a",
        b"a/b/c",
        "κατάλογος/目录/ملف".encode(),
        b"not utf-8 \xff\xfe",
        b" ",
        b"a-b",
        b"a/-rf",
        b"project/.git/config",
        b"a/...",
        b"with space/and 'quotes'\"",
        b"back\\slash",
        b"x" * 255,
        b"/".join([b"d"] * MAX_COMPONENTS),
        "emoji 👩‍🔬 with a joiner".encode(),
    ],
)
def test_accepted_names(path: bytes) -> None:
    assert refusal_reason_untrusted(path, dotfiles=False) is None


@pytest.mark.parametrize(
    "path", [b".bashrc", b".ssh/authorized_keys", b".ssh", b"...", b"..a", b".nettool-1.part", b"\xe2\x80\x8c.ssh"]
)
def test_names_that_begin_with_a_dot_have_to_be_asked_for(path: bytes) -> None:
    assert "`dotfiles`" in (refusal_reason_untrusted(path, dotfiles=False) or "")
    assert refusal_reason_untrusted(path, dotfiles=True) is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (b"", "empty"),
        (b"/etc/passwd", "absolute"),
        (b"/", "absolute"),
        (b"..", '".."'),
        (b"a/../../b", '".."'),
        (b"a/..", '".."'),
        (b".", '"."'),
        (b"./a", '"."'),
        (b"a//b", '""'),
        (b"a/", '""'),
        (b"d/.nettool-0123456789abcdef.part", "unfinished files"),
        (b"-rf", "begins with -"),
        (b"-d/a", "begins with -"),
        ("\ufeff\u200d-rf".encode(), "begins with -"),
        (b"a\0b", "control"),
        (b"a\nb", "control"),
        (b"\x1b[31mred", "control"),
        (b"a\x7f", "control"),
        ("a\u009b31m".encode(), "control"),
        (b"x" * 256, "255 bytes"),
        (b"a/" * MAX_COMPONENTS + b"a", "components"),
        (b"x" * 200 + b"/" + b"y" * MAX_PATH_BYTES, "longer than"),
    ],
)
def test_refused_names_have_a_printable_reason(path: bytes, words: str) -> None:
    for dotfiles in (False, True):
        reason = refusal_reason_untrusted(path, dotfiles)
        assert reason is not None
        assert words in reason
        assert printable(reason) == reason


def test_bytes_that_are_not_utf_8_survive_the_conversion_to_text() -> None:
    assert display_name(b"\xff\xfe").encode("utf-8", "surrogateescape") == b"\xff\xfe"
