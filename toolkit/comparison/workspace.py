"""A folder for the files of a campaign: in memory if there is room, and removed when the campaign ends.

A process that is killed leaves its folder behind, and the next campaign of the same user removes it. The owner of a
folder holds a lock on a file in it, which the kernel releases when the process ends, however it ends.

A comparison of transports should not measure a disk: in a memory-backed file system both transports pay for the same
copy. Without room in memory the campaign uses the system's temporary folder, and its caption says so.
"""

import fcntl
import mmap
import os
import random
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import TransferError, printable
from toolkit.units import format_size

_MEMORY_FOLDER = Path("/dev/shm")
_PREFIX, _LOCK = "nettool-bench-", "lock"
_MARGIN_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
WARM_BYTES = 64 << 20
"""Memory that is touched for the buffers of the next two processes and of their sockets."""
_POPULATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)


@dataclass(frozen=True, slots=True)
class Workspace:
    """The files of a campaign; `storage` says where they are, for people."""

    folder: Path
    storage: str

    def payload(self, size_bytes: int) -> Path:
        """The file of that size to send; one of the sizes that the workspace was made for."""
        return self.folder / f"payload-{size_bytes}"

    @property
    def received(self) -> Path:
        """The folder to receive it in."""
        return self.folder / "received"

    def prefault(self, size_bytes: int) -> None:
        """Fill the place of a received file with zeros, in storage that is used again and again.

        So no transfer pays for memory that is used for the first time, and none can find the content of an earlier one.
        Raises TransferError.
        """
        mmap.mmap(-1, WARM_BYTES, flags=_POPULATE).close()
        kept = self.received / self.payload(size_bytes).name
        zeros = memoryview(bytes(_CHUNK_BYTES))
        try:
            self.received.mkdir(exist_ok=True)
            for other in self.received.iterdir():
                if other != kept:
                    other.unlink()
            with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT, 0o600), "wb", buffering=0) as file:
                file.truncate(size_bytes)
                for offset in range(0, size_bytes, _CHUNK_BYTES):
                    file.write(zeros[: size_bytes - offset])
        except OSError as error:
            raise TransferError(f"cannot use {printable(str(self.received))}: {error.strerror}") from None


@contextmanager
def workspace(sizes: Sequence[int], seed: int, parent: Path | None) -> Iterator[Workspace]:
    """A new folder in `parent`, or in memory if it fits, with a payload of each size that depends only on `seed`.

    There is room for the payloads and one copy. The folder is removed however the block ends; those that killed
    processes of this user have left are removed first. Raises TransferError.
    """
    _remove_abandoned(parent)
    needed_bytes = sum(sizes) + max(sizes, default=0) + _MARGIN_BYTES
    parent = parent or _default_folder(needed_bytes)
    with ExitStack() as stack:
        try:
            if _free_bytes(parent) < needed_bytes:
                raise TransferError(
                    f"{printable(str(parent))} has no room for two files of {format_size(max(sizes, default=0))}; "
                    "choose another folder with `folder`, or a smaller size with `sizes`"
                )
            folder = stack.enter_context(_locked_folder(parent))
            files = Workspace(folder, f"{parent} ({'memory' if _is_memory(parent) else 'disk'})")
            for size_bytes in sizes:
                _fill(files.payload(size_bytes), size_bytes, seed)
            files.received.mkdir()
        except OSError as error:
            raise TransferError(
                f"cannot use {printable(str(parent))}: {error.strerror}; choose another folder with `folder`"
            ) from None
        yield files


@contextmanager
def _locked_folder(parent: Path) -> Iterator[Path]:
    """A new folder, removed after the block. It takes the name by which others find it only when it is locked."""
    hidden = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))
    folder = hidden
    try:
        with (hidden / _LOCK).open("wb") as lock:
            with suppress(OSError):  # a file system without locks: nobody gets this one either
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = hidden.rename(hidden.with_name(hidden.name.removeprefix(".")))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(chosen: Path | None) -> None:
    """Remove the folders of this user whose locks nobody holds; one without a lock may be of an earlier version."""
    parents = {_MEMORY_FOLDER} if chosen is None else {_MEMORY_FOLDER, chosen}
    with suppress(OSError):  # a system may have no temporary folder that can be written to
        parents.add(Path(tempfile.gettempdir()))
    for parent in parents:
        with suppress(OSError):
            for folder in parent.glob(f"{_PREFIX}*"):
                with suppress(OSError):
                    _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    """Raises OSError if it is in use, or of another user, or no folder with a lock."""
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
        return
    with os.fdopen(os.open(folder / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _default_folder(needed_bytes: int) -> Path:
    is_usable = _is_memory(_MEMORY_FOLDER) and os.access(_MEMORY_FOLDER, os.W_OK)
    if is_usable and min(_free_bytes(_MEMORY_FOLDER), _available_memory_bytes() // 2) >= needed_bytes:
        return _MEMORY_FOLDER
    return Path(tempfile.gettempdir())


def _is_memory(folder: Path) -> bool:
    """Whether the innermost mount that holds `folder` is a memory-backed file system (Linux only; else False)."""
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
