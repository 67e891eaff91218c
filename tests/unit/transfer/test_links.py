"""Symbolic links that are sent as links: which ones arrive, and that none leads out of the tree that was sent."""

import errno
import os
from pathlib import Path

import pytest

from tests.support.background import Background
from tests.support.sessions import channel_pair
from toolkit.errors import RefusedError
from toolkit.transfer import Comparison, SendOptions, TransferResult, receive, send
from toolkit.transfer.limits import ByteBudget
from toolkit.transfer.links import LEADS_OUT, refusal_reason_untrusted
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.messages import EntryStatus
from toolkit.transfer.receiver import ReceiveOptions
from toolkit.transfer.result import DeliveryStatus
from toolkit.transfer.selection import LinkChoice, Selection
from toolkit.transfer.storage import Storage
from toolkit.transfer.tree import SAME_FILE

AS_LINKS = Selection(links=LinkChoice.SEND)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a file, and a directory with a link to it."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_bytes(b"content")
    (tree / "sub/link").symlink_to("../file")
    os.utime(tree / "sub/link", ns=(10**18, 10**18), follow_symlinks=False)
    return tree


def transfer(
    tree: Path, root: Path, update: Comparison | None = None, overwrite: bool = False, selection: Selection = AS_LINKS
) -> TransferResult:
    """Send once; the sender's result. Raises what the sender does."""
    with channel_pair() as (sending, receiving):
        received = Background(lambda: receive(receiving, root, ReceiveOptions(overwrite=overwrite)))
        try:
            return send(sending, [tree], SendOptions(recursive=True, update=update, selection=selection))
        finally:
            received.outcome()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"tree/link", b"file"),
        (b"tree/link", b"./a/b"),
        (b"tree/link", b"gone"),
        (b"tree/a/link", b"../file"),
        (b"tree/a/b/link", b"../../c/d"),
    ],
)
def test_links_within_the_directory_that_is_sent_are_accepted(path: bytes, target: bytes) -> None:
    assert refusal_reason_untrusted(path, target) is None


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"tree/link", b"/etc/passwd"),
        (b"tree/link", b".."),
        (b"tree/link", b"../other"),
        (b"link", b"file/../.."),
        (b"link", b".."),
        (b"tree/a/link", b"../../.ssh"),
        (b"tree/link", b"sub/up/../../.."),  # where `up` leads decides where this ends
        (b"tree/a/link", b"./../.."),
    ],
)
def test_links_that_lead_or_could_lead_out_are_refused(path: bytes, target: bytes) -> None:
    assert refusal_reason_untrusted(path, target) == LEADS_OUT


def test_a_target_with_control_characters_is_refused() -> None:
    assert "control characters" in (refusal_reason_untrusted(b"tree/link", b"\x1b[2J") or "")


def test_links_arrive_as_links(tree: Path, root: Path) -> None:
    result = transfer(tree, root)
    assert (result.files, result.undelivered) == (1, [])
    assert os.readlink(root / "tree/sub/link") == "../file"
    assert (root / "tree/sub/link").lstat().st_mtime_ns == 10**18
    assert (root / "tree/sub/link").read_bytes() == b"content"


def test_a_link_that_leads_out_costs_itself_only(tree: Path, root: Path) -> None:
    (tree / "out").symlink_to("/etc")
    with pytest.raises(RefusedError, match=f"^tree/out: {LEADS_OUT}$"):
        transfer(tree, root)
    assert {path.name for path in root.rglob("*")} == {"tree", "sub", "file", "link"}


def test_a_link_that_exists_is_unchanged_or_needs_the_receivers_consent(tree: Path, root: Path) -> None:
    transfer(tree, root)
    assert transfer(tree, root, update=Comparison.TIME).undelivered == []
    (tree / "sub/link").unlink()
    (tree / "sub/link").symlink_to("../sub")
    with pytest.raises(RefusedError, match="differs from the receiver's"):
        transfer(tree, root, update=Comparison.TIME)
    assert os.readlink(root / "tree/sub/link") == "../file"
    transfer(tree, root, update=Comparison.TIME, overwrite=True)
    assert os.readlink(root / "tree/sub/link") == "../sub"
    assert [path.name for path in root.rglob(".nettool*")] == []


def test_nothing_is_left_of_a_link_that_cannot_replace_another(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    (root / "tree").mkdir()
    (root / "tree/link").symlink_to("a")
    storage = Storage(root, overwrite=True, durable=False)
    monkeypatch.setattr(os, "rename", refuse)
    (outcome,) = storage.accept([Entry(EntryKind.LINK, b"tree/link", 0o777, 0, target=b"b")], ByteBudget(None))
    storage.close(complete=True)
    assert outcome.status is EntryStatus.REFUSED
    assert os.listdir(root / "tree") == ["link"]
    assert os.readlink(root / "tree/link") == "a"


def test_a_link_of_this_session_is_not_replaced(root: Path) -> None:
    """Its name may be another one that is the same here: `A` and `a`."""
    storage = Storage(root, overwrite=True, durable=False)
    (root / "tree").mkdir()
    links = [Entry(EntryKind.LINK, b"tree/link", 0o777, 0, target=target) for target in (b"a", b"b")]
    outcomes = storage.accept(links, ByteBudget(None))
    storage.close(complete=True)
    assert [(outcome.status, outcome.reason) for outcome in outcomes] == [
        (EntryStatus.OK, ""),
        (EntryStatus.REFUSED, SAME_FILE),
    ]
    assert os.readlink(root / "tree/link") == "a"


def test_a_link_replaces_no_file(tree: Path, root: Path) -> None:
    (root / "tree/sub").mkdir(parents=True)
    (root / "tree/sub/link").write_bytes(b"mine")
    with pytest.raises(RefusedError, match="something that is no symbolic link"):
        transfer(tree, root, overwrite=True)
    assert (root / "tree/sub/link").read_bytes() == b"mine"


def test_nothing_arrives_through_a_link_of_the_same_session(tree: Path, root: Path, tmp_path: Path) -> None:
    transfer(tree, root)
    (root / "tree/sub/link").unlink()
    (root / "tree/sub").rmdir()
    (root / "tree/sub").symlink_to(tmp_path)
    with pytest.raises(RefusedError, match="a symbolic link is in the way"):
        transfer(tree, root, update=Comparison.TIME)
    assert not (tmp_path / "link").is_symlink()


def test_a_receiver_that_takes_no_links_gets_none(tree: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.transfer.receiver.LINKS_PARAMETER", 99)
    result = transfer(tree, root)
    assert [(one.name, one.status) for one in result.undelivered] == [("tree/sub/link", DeliveryStatus.SKIPPED)]
    assert result.files == 1
