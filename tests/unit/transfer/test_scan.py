"""From named sources to entries: order, names, what is skipped, and groups."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.errors import UsageError, printable
from toolkit.transfer.manifest import MAX_GROUP_BYTES, MAX_GROUP_ENTRIES, EntryKind
from toolkit.transfer.scan import SkippedEntry, SourceEntry, check_sources, in_groups, scan, totals_of
from toolkit.transfer.selection import Selection
from toolkit.transfer.source_tree import SourceDirectories


def scan_all(path: Path) -> tuple[list[SourceEntry], list[SkippedEntry]]:
    """The entries of a source, and the paths that are skipped."""
    skipped: list[SkippedEntry] = []
    directories = SourceDirectories()
    entries = list(scan(check_sources([path], recursive=True, stream_name=""), directories, skipped.append))
    directories.close()
    return entries, skipped


def test_a_scan_is_sorted_by_whole_paths_and_follows_no_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("a/z", "a-b", "a.txt", "b/c/d", "b/c-d"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "empty").mkdir()
    (root / "link").symlink_to("/etc")
    os.mkfifo(root / "fifo")
    entries, skipped = scan_all(root)
    files = [source.entry.path for source in entries if source.entry.kind is EntryKind.FILE]
    assert files == sorted(files)
    assert set(files) == {b"root/" + name for name in (b"a/z", b"a-b", b"a.txt", b"b/c/d", b"b/c-d")}
    assert {source.entry.path for source in entries} - set(files) == {
        b"root",
        b"root/a",
        b"root/b",
        b"root/b/c",
        b"root/empty",
    }
    assert {(path.path, path.is_failure) for path in skipped} == {(b"root/link", False), (b"root/fifo", False)}
    seen = set()
    for source in entries:  # each directory comes before its content
        assert source.entry.path.rpartition(b"/")[0] in seen | {b""}
        seen.add(source.entry.path)


def test_a_modification_time_is_clamped_to_what_a_message_holds(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x")
    for path in (tree / "file", tree):
        os.utime(path, ns=(0, 2**63 + 10**9))  # in the year 2262
    entries, _ = scan_all(tree)
    kept_ns = tree.stat().st_mtime_ns  # some file systems end earlier
    assert [source.entry.mtime_ns for source in entries] == [min(kept_ns, 2**63 - 1)] * 2
    assert all(source.entry.encode() for source in entries)


def test_a_very_deep_tree_is_scanned(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1500):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    try:
        entries, skipped = scan_all(tmp_path / "d")
    finally:
        subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # deeper than shutil and pytest recurse
    assert len(entries) == 1500
    assert not skipped


def test_an_unreadable_file_in_a_tree_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """access(2) is replaced, because root may read everything."""
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "open").write_bytes(b"x")
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode, **options: b"secret" not in os.fsencode(path) and access(path, mode, **options)
    )
    entries, skipped = scan_all(tmp_path)
    assert len(entries) == 2
    assert [(path.path.split(b"/")[-1], path.is_failure) for path in skipped] == [(b"secret", True)]
    with pytest.raises(UsageError, match="permission denied"):
        check_sources([tmp_path / "secret"], recursive=False, stream_name="")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "no such file"),
        (lambda path: path.mkdir(), "use -r"),
        (os.mkfifo, "neither a file nor a directory"),
        (lambda path: path.symlink_to("nowhere"), "no such file"),
    ],
)
def test_sources_that_cannot_be_sent_are_usage_errors(
    tmp_path: Path, make: Callable[[Path], object], words: str
) -> None:
    make(tmp_path / "x\x1b[31m")
    with pytest.raises(UsageError, match=words) as caught:
        check_sources([tmp_path / "x\x1b[31m"], recursive=False, stream_name="")
    assert printable(str(caught.value), 1000) == str(caught.value)


def test_odd_sources_are_usage_errors(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    for sources in ([], ["/"], [""], ["a\0b"], [path, path], ["-", "-"], [tmp_path / "missing" / ".."]):
        with pytest.raises(UsageError):
            check_sources(sources, recursive=True, stream_name="stdin")
    with pytest.raises(UsageError, match="the path is longer than 4000 bytes"):
        check_sources(["-"], recursive=False, stream_name="x" * 90_000)
    with pytest.raises(UsageError, match="cannot contain lone surrogates"):
        check_sources(["-"], recursive=False, stream_name="\ud800")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", '".." as a component'),
        ("..", '".." as a component'),
        ("/etc/evil", "absolute"),
        ("a/b", "slash"),
        ("-x", "begins with -"),
        ("a\nb", "control characters"),
        (".nettool-0123456789abcdef.part", "unfinished"),
        ("", "empty"),
    ],
)
def test_a_name_of_standard_input_that_no_receiver_accepts_is_a_usage_error(name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        check_sources(["-"], recursive=False, stream_name=name)
    assert check_sources(["-"], recursive=False, stream_name=".hidden")[0].name == b".hidden"


def test_a_source_is_named_by_its_last_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "here" / "below"
    below.mkdir(parents=True)
    (below / "file").write_bytes(b"12345")
    (tmp_path / "here" / "link").symlink_to(below / "file")
    monkeypatch.chdir(tmp_path / "here")
    roots = check_sources([".", "below/", "below/file", "below/..//link", "-"], recursive=True, stream_name="in")
    assert [root.name for root in roots] == [b"here", b"below", b"file", b"link", b"in"]
    assert totals_of(roots) == (None, None)
    assert totals_of(roots[2:4]) == (2, 10)


def test_every_group_fits_an_offer(tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / f"{number:0200d}").touch()
    groups = list(in_groups(scan_all(tmp_path)[0]))
    assert sum(map(len, groups)) == 1501
    for group in groups:
        assert 1 <= len(group) <= MAX_GROUP_ENTRIES
        assert sum(source.entry.encoded_bytes for source in group) <= MAX_GROUP_BYTES
        assert all(len(source.entry.encode()) == source.entry.encoded_bytes for source in group)


@pytest.mark.parametrize("trusts", [False, True])
def test_holes_that_a_file_system_may_invent_are_read_unless_the_user_trusts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusts: bool
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    if path.stat().st_blocks:
        pytest.skip("the file system of the tests has no holes")
    monkeypatch.setattr("toolkit.transfer.scan.is_honest_about_holes", lambda _: False)
    directories = SourceDirectories()
    roots = check_sources([path], recursive=False, stream_name="")
    (source,) = scan(roots, directories, lambda _: None, Selection(trusts_holes=trusts))
    assert source.entry.content_bytes == (0 if trusts else 1 << 20)
    assert source.origin is not None
    assert source.origin.is_sparse is trusts
