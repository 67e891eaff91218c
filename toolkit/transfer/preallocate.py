"""Reserve disk blocks ahead of the content, on file systems that benefit.

ext4 and XFS map blocks by extents and allocate them late, which costs time for every page written. A range that was
reserved before with fallocate(2) is written about a third faster and lies in one piece, and a full disk shows before
the content arrives. tmpfs would clear each page twice and btrfs writes elsewhere anyway, so both are left alone.
`os.posix_fallocate` is no alternative: where the file system cannot reserve, the C library writes into every block.
"""

import ctypes
import os

STEP_BYTES = 1 << 28  # reserved at a time: takes a fraction of a second, and little is wasted after a failure
MIN_FILE_BYTES = 1 << 20  # for a smaller file the call costs more than it saves

_EXT4_SUPER_MAGIC = 0xEF53  # statfs(2)
_XFS_SUPER_MAGIC = 0x58465342
_OVERLAYFS_SUPER_MAGIC = 0x794C7630  # stacked on another file system, in containers most often ext4 or XFS
_FALLOC_FL_KEEP_SIZE = 1


def maps_extents(descriptor: int) -> bool:
    """Whether the file system of this descriptor benefits from reserved blocks."""
    if _libc is None:
        return False
    status = (ctypes.c_long * 64)()  # f_type is the first field; the others are not read
    if _libc.fstatfs(descriptor, status):
        return False
    return status[0] in (_EXT4_SUPER_MAGIC, _XFS_SUPER_MAGIC, _OVERLAYFS_SUPER_MAGIC)


def reserve(descriptor: int, offset: int, length: int) -> None:
    """Reserve blocks for a range of a file without changing the file size. Raises OSError."""
    if _libc is not None and _libc.fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _load() -> ctypes.CDLL | None:
    """The C library, if it has both calls (64-bit Linux)."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        library.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        library.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
    except (OSError, AttributeError):
        return None
    return library if os.uname().sysname == "Linux" and ctypes.sizeof(ctypes.c_long) == 8 else None


_libc = _load()
