"""A destination whose file system reports an error, at every call in turn: what the sender and the disk are left with.

Whatever fails, each file is under its final name, whole, or the sender was told why it is not; the other files arrive;
nothing else is left; and sending again brings the rest.
"""

import errno
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from tests.support.background import Background
from tests.support.faults import ERRORS, FaultyDirectory
from tests.support.sessions import channel_pair
from toolkit.errors import NettoolError
from toolkit.transfer import TransferResult, receive, send
from toolkit.transfer.chunks import RESUME_KEY_BYTES
from toolkit.transfer.comparison import Comparison
from toolkit.transfer.names import is_partial
from toolkit.transfer.offered import SendOptions
from toolkit.transfer.receiver import ReceiveOptions
from toolkit.transfer.small_files import SMALL_BYTES
from toolkit.transfer.unfinished import MIN_UNFINISHED_BYTES

MAX_CALLS = 1000


class Variant(NamedTuple):
    """How the tree is sent. `is_there`: an older version of it is in the directory."""

    durable: bool = False
    overwrite: bool = False
    resumes: bool = False
    is_there: bool = False


def contents(variant: Variant) -> dict[str, bytes]:
    """The files of the tree: small ones, one that is not, one with a hole, and one that could be resumed."""
    files = {
        "tree/a": b"hello",
        "tree/empty": b"",
        "tree/d/b": b"x" * 3000,
        "tree/d/large": b"y" * (SMALL_BYTES + 1),
        "tree/d/sparse": b"z" * 4096 + bytes(1 << 20),
    }
    return {**files, "tree/huge": b"h" * MIN_UNFINISHED_BYTES} if variant.resumes else files


def make_tree(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.rstrip(b"\0")
        with path.open("wb") as file:
            file.write(data)
            file.truncate(len(content))


def transfer(source: Path, root: Path, variant: Variant) -> TransferResult:
    """Send the tree; what the sender knows of it."""
    receiving = ReceiveOptions(durable=variant.durable, overwrite=variant.overwrite)
    sending = SendOptions(
        recursive=True,
        update=Comparison.DIGEST if variant.is_there else None,
        resume_key=bytes(RESUME_KEY_BYTES) if variant.resumes else None,
    )
    with channel_pair() as (sender, receiver):
        received = Background(lambda: receive(receiver, root, receiving))
        try:
            result = send(sender, [source], sending)
        except NettoolError as error:
            result = cast(TransferResult, error.result)
        with suppress(NettoolError):
            received.outcome()
    return result


def problems(
    root: Path, result: TransferResult, files: dict[str, bytes], older: dict[str, bytes], may_keep: bool
) -> list[str]:
    """What is wrong after a session: with the directory, or with what the sender was told."""
    paths = [path for path in root.rglob("*") if path.is_file()]
    partial = [path for path in paths if is_partial(path.name.encode())]
    found = {str(path.relative_to(root)): path.read_bytes() for path in paths if path not in partial}
    delivered = {file.name for file in result.delivered}
    undelivered = {entry.name for entry in result.undelivered if entry.name in files}
    wrong = [f"{path.name} is left" for path in partial if not may_keep]
    wrong += [f"{name} is a part" for name, content in found.items() if content not in (files[name], older.get(name))]
    wrong += [f"{name} was delivered and is not there" for name in delivered if found.get(name) != files[name]]
    if len(delivered) + result.unchanged + len(undelivered) != len(files):
        wrong.append(f"{len(delivered)} delivered, {result.unchanged} unchanged, {len(undelivered)} not")
    return wrong


def check_every_call(folder: Path, variant: Variant, errors: Sequence[int]) -> list[str]:
    """Let each call fail in turn, with the errors in turn; what is wrong then."""
    files = contents(variant)
    older = {name: b"!" + content[1:] for name, content in files.items()} if variant.is_there else {}
    make_tree(folder / "source", files)
    wrong = []
    for number in range(MAX_CALLS):
        root, error = folder / "root", errors[number % len(errors)]
        root.mkdir()
        make_tree(root, older)
        faulty = FaultyDirectory(root, number, error)
        with faulty.mounted():
            result = transfer(folder / "source" / "tree", root, variant)
        if not faulty.failed:
            assert not problems(root, result, files, older, may_keep=False)
            return wrong
        cannot_remove = faulty.failed == "unlink"
        found = problems(root, result, files, older, may_keep=variant.resumes or cannot_remove)
        if not number:  # without the status of the directory itself, the session ends
            found.clear()
        again = transfer(folder / "source" / "tree", root, variant._replace(overwrite=True, is_there=True))
        found += [f"again: {one}" for one in problems(root, again, files, {}, may_keep=cannot_remove)]
        call = f"{number}: {faulty.failed} after {faulty.calls[max(0, number - 3) : number]}, {errno.errorcode[error]}"
        wrong += [f"{call}: {one}" for one in found]
        shutil.rmtree(root)
    raise AssertionError(f"more than {MAX_CALLS} calls")


def test_each_error_of_a_destination_is_that_of_one_file(tmp_path: Path) -> None:
    assert not check_every_call(tmp_path, Variant(), ERRORS)


@pytest.mark.long
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EPERM])
@pytest.mark.parametrize(
    "variant",
    [
        Variant(),
        Variant(overwrite=True),
        Variant(resumes=True),
        Variant(durable=True, overwrite=True, resumes=True, is_there=True),
    ],
)
def test_each_error_of_a_destination_is_that_of_one_file_whatever_the_options(
    tmp_path: Path, variant: Variant, error: int
) -> None:
    assert not check_every_call(tmp_path, variant, [error])
