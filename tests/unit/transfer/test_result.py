"""The result of a session: digests that other tools print, and the entries that were not delivered."""

import os
from pathlib import Path

import pytest
import xxhash

from tests.support.background import Background
from tests.support.sessions import Ends, file_entry
from toolkit.errors import RefusedError, TransferError
from toolkit.transfer import SendOptions, TransferResult, receive, send
from toolkit.transfer.digest import algorithm_by_name
from toolkit.transfer.messages import EntryOutcome, EntryStatus
from toolkit.transfer.result import DeliveryStatus, EntryResult, ResultBuilder


def test_the_digest_of_several_files_is_that_of_the_listing(ends: Ends, tmp_path: Path, root: Path) -> None:
    contents = {"a": b"first", "b": b"second"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    received = Background(lambda: receive(ends[1], root))
    result = send(ends[0], [tmp_path / "a", tmp_path / "b"])
    listing = "".join(f"{xxhash.xxh3_128(c).hexdigest()}  {name}\n" for name, c in contents.items())
    assert result.digest == received.outcome().digest == xxhash.xxh3_128(listing.encode()).hexdigest()


def test_links_are_skipped_and_unreadable_files_fail_after_the_rest_was_sent(
    ends: Ends, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x")
    (tree / "secret").write_bytes(b"x")
    (tree / "secret").chmod(0)
    (tree / "link").symlink_to("file")
    # access(2) is replaced, because root may read everything.
    monkeypatch.setattr("os.access", lambda path, _mode, **_: not os.fsencode(path).endswith(b"secret"))
    received = Background(lambda: receive(ends[1], root))
    with pytest.raises(TransferError, match="tree/secret: permission denied") as caught:
        send(ends[0], [tree], SendOptions(recursive=True))
    result = caught.value.result
    assert isinstance(result, TransferResult)
    assert [(entry.name, entry.status) for entry in result.undelivered] == [
        ("tree/link", "skipped"),
        ("tree/secret", "failed"),
    ]
    assert received.outcome().files == 1


def test_the_list_of_undelivered_entries_is_bounded(
    ends: Ends, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.transfer.result.MAX_LISTED", 2)
    sources = [tmp_path / f"{number}" for number in range(6)]
    for source in sources:
        source.write_bytes(b"x")
    for source in sources[1:]:
        (root / source.name).write_bytes(b"mine")
    links = tmp_path / "links"
    links.mkdir()
    for number in range(4):
        (links / f"{number}").symlink_to("nowhere")
    received = Background(lambda: receive(ends[1], root))
    with pytest.raises(RefusedError, match=r"^1: already exists.* \(and 4 more refused\)$") as caught:
        send(ends[0], [*sources, links], SendOptions(recursive=True))
    for result, omitted in ((caught.value.result, {"skipped": 2}), (received.outcome(), {})):
        assert isinstance(result, TransferResult)
        assert result.files == 1
        refused = [entry.name for entry in result.with_status(DeliveryStatus.REFUSED)]
        assert refused == ["1", "2"]
        assert result.omitted == {"refused": 3, **omitted}


def test_neither_holes_nor_what_was_kept_have_travelled() -> None:
    builder = ResultBuilder(algorithm_by_name("xxh3-128"), is_untrusted=False)
    sparse, stream = file_entry(b"sparse", 8000, content=1000), file_entry(b"stream", None)
    arrived = EntryOutcome(EntryStatus.OK)
    builder.add([EntryResult(sparse, arrived, 8000, b"digest", kept_bytes=600), EntryResult(stream, arrived, 50, b"d")])
    result = builder.result
    assert (result.size_bytes, result.hole_bytes, result.sent_bytes) == (8050, 7000, 450)
