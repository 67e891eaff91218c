"""Storage for a comparison: content goes into a file that is already there, and whose memory has been used before.

A new file takes new pages, and in a virtual machine the host may have to find memory for each of them first. That can
take several times as long as the transfer, and whichever transport happens to touch new memory pays for it. Here the
file of the trial before is the temporary file of the next one, filled with zeros in between (`Workspace.prefault`).
Everything else, the digest and the final name included, is the storage of `nettool recv`.
"""

import os
import threading
from functools import partial
from pathlib import Path

from toolkit.channel import Channel
from toolkit.transfer import SessionLimits, TransferResult
from toolkit.transfer.receiver import ReceiveSession
from toolkit.transfer.storage import Storage
from toolkit.transfer.stored_file import StoredFile


def receive_reusing(channel: Channel, directory: str | Path, cancel: threading.Event | None = None) -> TransferResult:
    """As `toolkit.transfer.receive`, but reuse the storage of a file that has the same name."""

    return ReceiveSession(channel, partial(reusing_storage, directory), SessionLimits(), None, cancel).run()


def reusing_storage(directory: str | Path) -> Storage:
    """The files of one session below `directory`, in the storage of the files that they replace; a Destination."""
    return Storage(directory, overwrite=True, durable=False, holds_small_files=False, file_type=_ReusedFile)


class _ReusedFile(StoredFile):
    """A file whose temporary file is the file that it replaces, if there is one."""

    __slots__ = ()

    def _make(self, parent: int, flags: int) -> int:
        try:
            os.rename(self._components[-1], self._temporary, src_dir_fd=parent, dst_dir_fd=parent)
        except FileNotFoundError:
            return super()._make(parent, flags)
        return os.open(self._temporary, flags, dir_fd=parent)
