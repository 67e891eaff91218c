"""What is shown of names that come from a user, a peer or a file system."""

from pathlib import Path

from toolkit.errors import printable, printable_path


def test_a_long_path_keeps_its_end_which_names_the_file() -> None:
    shown = printable_path(Path("/", *["folder"] * 40, "mesh.toml"), 50)
    assert (len(shown), shown[0], shown.endswith("/mesh.toml")) == (50, "…", True)
    assert printable_path("a/mesh.toml", 50) == "a/mesh.toml"
    assert printable_path("x" * 50, 50) == "x" * 50


def test_a_long_text_keeps_its_beginning() -> None:
    assert printable("x" * 20, 10) == "x" * 9 + "…"


def test_what_is_shown_is_one_printable_line() -> None:
    assert printable("a\x1b[31m\n") == "a\\x1b[31m\\n"
    assert printable_path("a\x1b\n/b") == "a\\x1b\\n/b"
