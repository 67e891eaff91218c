"""A folder for a campaign's files, in memory where there is room, and gone when the campaign is over.

A comparison of transports should not measure a disk: in a memory-backed file system both pay the same copy.
Where there is no room for that the campaign goes to the system's temporary folder, and its caption says so.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import TransferError, printable
from toolkit.units import format_size

_MEMORY_FOLDER = Path("/dev/shm")
_MARGIN_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the files of a campaign lie; `storage` says it to people."""

    folder: Path
    storage: str

    def payload(self, size_bytes: int) -> Path:
        """The file of that size that is sent; one of the sizes that the workspace was made for."""
        return self.folder / f"payload-{size_bytes}"

    @property
    def received(self) -> Path:
        """Where it goes."""
        return self.folder / "received"


@contextmanager
def workspace(sizes: Sequence[int], seed: int, parent: Path | None) -> Iterator[Workspace]:
    """A new folder in `parent`, or where it fits, with a payload of each size that `seed` alone decides.

    There is room for the payloads and one copy. Removed at the end, whatever that is. Raises TransferError.
    """
    needed_bytes = sum(sizes) + max(sizes) + _MARGIN_BYTES
    parent = parent or _roomiest(needed_bytes)
    with ExitStack() as stack:
        try:
            if _free_bytes(parent) < needed_bytes:
                raise TransferError(
                    f"{printable(str(parent))} has no room for two files of {format_size(max(sizes))}; "
                    "choose another folder with --dir, or a smaller --size"
                )
            folder = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="nettool-bench-", dir=parent, ignore_cleanup_errors=True)
                )
            )
            place = Workspace(folder, f"{parent} ({'memory' if _is_memory(parent) else 'disk'})")
            for size_bytes in sizes:
                _fill(place.payload(size_bytes), size_bytes, seed)
            place.received.mkdir()
        except OSError as error:
            raise TransferError(
                f"cannot use {printable(str(parent))}: {error.strerror}; choose another folder with --dir"
            ) from None
        yield place


def _roomiest(needed_bytes: int) -> Path:
    usable = _is_memory(_MEMORY_FOLDER) and os.access(_MEMORY_FOLDER, os.W_OK)
    if usable and min(_free_bytes(_MEMORY_FOLDER), _available_memory_bytes() // 2) >= needed_bytes:
        return _MEMORY_FOLDER
    return Path(tempfile.gettempdir())


def _is_memory(folder: Path) -> bool:
    """Whether the innermost mount that holds `folder` is a file system without a disk (Linux; else False)."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return False
    resolved = folder.resolve()
    holding = [(len(m[1]), m[2]) for m in mounts if resolved.is_relative_to(m[1])]
    return bool(holding) and max(holding)[1] in ("tmpfs", "ramfs")


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _available_memory_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _fill(path: Path, size_bytes: int, seed: int) -> None:
    generator = random.Random(seed)
    with path.open("wb", buffering=0) as file:
        left = size_bytes
        while left:
            left -= file.write(generator.randbytes(min(left, _CHUNK_BYTES)))
