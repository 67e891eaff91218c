"""Where received files go: a directory, a mapping, or a file object; and what the caller decides about each of them."""

import errno
import io
import os
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from toolkit.api.callbacks import callers_code
from toolkit.errors import UsageError, printable
from toolkit.transfer.chosen import ChosenDestination
from toolkit.transfer.destination import Destination, RefusedEntryError
from toolkit.transfer.handed_over import HandedOverDestination, SingleFile
from toolkit.transfer.leftovers import remove_stale_in
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.receiver import ReceiveOptions
from toolkit.transfer.storage import Storage

_COPY_BYTES = 1 << 20


class BinaryWriter(Protocol):
    """A file object in binary mode, as far as a receiver needs it. If it has `flush`, that is called at the end."""

    def write(self, data: memoryview, /) -> object:
        """Write `data`, at least a part of it; returns how much, or None for all."""


Into = str | os.PathLike[str] | MutableMapping[str, bytes] | BinaryWriter
"""Where files go: into a directory; as bytes into a mapping, by name; the content of a single one to a file object."""


@dataclass(frozen=True, slots=True)
class OfferedFile:
    """A file or directory that a sender offers. The name is the sender's, and may hold anything.

    size_bytes: None if it is known only at the end
    mtime_ns:   modification time, ns since the epoch
    """

    name: str
    is_directory: bool
    size_bytes: int | None
    mtime_ns: int


AcceptHook = Callable[[OfferedFile], bool | str]
"""Returns True to take an entry; False, or the reason, to refuse it."""
RenameHook = Callable[[OfferedFile], str]
"""Returns the name to store an entry under: a relative path with "/", which is checked as a sender's is."""


class SessionDestination:
    """Where the files of one session go; `open` makes the destination.

    single: what the sessions share that write to one file object
    """

    def __init__(
        self,
        into: Into,
        options: ReceiveOptions,
        single: SingleFile,
        accept: AcceptHook | None = None,
        rename: RenameHook | None = None,
    ) -> None:
        self._into, self._options, self._single = into, options, single
        self._accept, self._rename = accept, rename

    def open(self) -> Destination:
        """Raises UsageError for a directory that cannot be opened."""
        destination = self._open()
        if self._accept is None and self._rename is None:
            return destination
        return ChosenDestination(destination, self._choose)

    def path_of(self, path: Path) -> Path | None:
        """Where a file is that is stored under this path; None if it is not in a directory."""
        if not isinstance(self._into, (str, os.PathLike)):
            return None
        return Path(self._into) / path

    def _open(self) -> Destination:
        into, options = self._into, self._options
        if isinstance(into, (str, os.PathLike)):
            return Storage(into, options.overwrite, options.durable, options.dotfiles, options.preserve_modes)
        if isinstance(into, MutableMapping):
            return HandedOverDestination(partial(_keep, into), dotfiles=options.dotfiles)
        return HandedOverDestination(partial(_copy, into), single=self._single, dotfiles=options.dotfiles)

    def _choose(self, entry: Entry) -> Entry:
        """See ChosenDestination."""
        offered = OfferedFile(entry.name, entry.kind is EntryKind.DIRECTORY, entry.size_bytes, entry.mtime_ns)
        with callers_code():
            answer = True if self._accept is None else self._accept(offered)
        if answer is not True:
            raise RefusedEntryError(printable(answer) if isinstance(answer, str) else "the receiver does not want it")
        if self._rename is None:
            return entry
        with callers_code():
            name = self._rename(offered)
        try:
            with callers_code(UnicodeEncodeError):  # it may have returned anything
                return entry if name == entry.name else replace(entry, path=os.fsencode(name))
        except UnicodeEncodeError:
            raise RefusedEntryError("the name that the receiver chose has lone surrogates") from None


def check_into(into: Into, *, takes_many: bool) -> None:
    """Raises UsageError for what is no destination, or none for the files of several sessions."""
    if isinstance(into, (str, os.PathLike, MutableMapping)):
        return
    if not hasattr(into, "write") or hasattr(into, "encoding"):
        kind = type(into).__name__
        raise UsageError(f"files go to a directory, a mapping, or a file object in binary mode, not to {kind}")
    if takes_many:
        raise UsageError("a file object takes one file of one session: name a directory, or use a mapping")


def prepare_directory(directory: Path, *, is_durable: bool) -> None:
    """Make a directory unless it exists, and remove what killed receivers have left there long ago.

    Raises UsageError if files cannot be written there.
    """
    shown = printable(str(directory))
    try:
        _make(directory, is_durable)
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "not a valid name"
        if isinstance(error, FileExistsError):
            reason = "a file, not a directory"
        raise UsageError(f"{shown}: {reason}; choose another directory") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{shown}: permission denied; choose a writable directory")
    remove_stale_in(directory)


def _make(directory: Path, is_durable: bool) -> None:
    """Make the directory unless it exists. Raises OSError."""
    if directory.is_dir():
        return
    directory.mkdir(exist_ok=True)
    if is_durable:
        parent = os.open(directory.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def _keep(into: MutableMapping[str, bytes], name: str, file: BinaryIO) -> None:
    content = file.read()
    with callers_code(OSError):
        into[name] = content


def _copy(into: BinaryWriter, _name: str, file: BinaryIO) -> None:
    while data := file.read(_COPY_BYTES):
        left = memoryview(data)
        while left:
            with callers_code(OSError):
                count = into.write(left)
            if count == 0 or (count is None and isinstance(into, io.RawIOBase)):
                raise BlockingIOError(errno.EAGAIN, "the file object does not block, and has no room")
            left = left[count:] if isinstance(count, int) else left[:0]  # a raw file may write a part
    if (flush := getattr(into, "flush", None)) is not None:
        with callers_code(OSError):  # what stays in a buffer may still find the disk full, and would pass for arrived
            flush()
