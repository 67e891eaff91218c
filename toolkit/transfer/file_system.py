"""Which kind of file system a descriptor is on, by the number that statfs(2) returns.

Three facts depend on it. ext4 and XFS map blocks by extents and allocate them late (see preallocate.py). Some file
systems are known to report holes only where there are zeros. And the files of /proc, /sys and their like hold what the
kernel writes while they are read: their size is 0, or that of a page, and says nothing about the content. At the end of
this module, locks and errors, which depend on it too.

Read: linux/magic.h.
"""

import ctypes
import errno
import fcntl
import os

_EXTENT_MAPPED = frozenset(
    {
        0xEF53,  # ext4
        0x58465342,  # XFS
        0x794C7630,  # overlayfs: stacked on another file system, in containers most often ext4 or XFS
    }
)
_HONEST_ABOUT_HOLES = _EXTENT_MAPPED | {
    0x9123683E,  # btrfs
    0x01021994,  # tmpfs
    0xF2F52010,  # F2FS
    0xCA451A4E,  # bcachefs
}
_SYNTHETIC = frozenset(
    {
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0x0027E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x62656570,  # configfs
        0xF97CFF8C,  # selinuxfs
        0x42494E4D,  # binfmt_misc
        0x6165676C,  # pstore
        0xDE5E81E4,  # efivarfs
    }
)


def maps_extents(descriptor: int) -> bool:
    """Whether the file system of this descriptor benefits from reserved blocks."""
    return _type_of(descriptor) in _EXTENT_MAPPED


def is_honest_about_holes(descriptor: int) -> bool:
    """Whether what SEEK_DATA of lseek(2) leaves out is known to be zeros there.

    Others have called data a hole that was not on the disk yet (ZFS until 2.2.2), or leave it to a remote server or a
    program in user space.
    """
    return _type_of(descriptor) in _HONEST_ABOUT_HOLES


def is_synthetic(descriptor: int) -> bool:
    """Whether the kernel writes the files there while they are read, so that their size says nothing."""
    return _type_of(descriptor) in _SYNTHETIC


def _type_of(descriptor: int) -> int | None:
    """The number of the file system; None if the system does not tell."""
    if _libc is None:
        return None
    status = (ctypes.c_long * 64)()  # f_type is the first field; the others are not read
    if _libc.fstatfs(descriptor, status):
        return None
    return int(status[0]) & 0xFFFFFFFF


def _load() -> ctypes.CDLL | None:
    """The C library, if its structure is the known one (64-bit Linux)."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        library.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
    except (OSError, AttributeError):
        return None
    return library if os.uname().sysname == "Linux" and ctypes.sizeof(ctypes.c_long) == 8 else None


_libc = _load()


def open_to_lock(name: bytes, directory: int) -> int:
    """Open a file of a directory to read, write and lock it; follow no link, and wait for nothing. Raises OSError."""
    return os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)


def try_lock(descriptor: int) -> bool:
    """Lock a file until the descriptor is closed; whether nobody else has it.

    Raises OSError where the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


NO_SPACE = "no space left on the receiver's disk; free some and send again"


def storage_reason(error: OSError) -> str:
    """Why the receiver cannot store an entry, in words for both users."""
    reasons = {
        errno.ENOSPC: NO_SPACE,
        errno.EDQUOT: "the receiver's disk quota is exceeded",
        errno.EFBIG: "too large for the receiver's file system",
        errno.EROFS: "the receiver's file system is read-only",
        errno.EACCES: "the receiver has no permission to write there",
        errno.EPERM: "the receiver has no permission to write there",
        errno.ENAMETOOLONG: "its name is too long for the receiver's file system",
        errno.EILSEQ: "the receiver's file system does not allow its name",
    }
    return reasons.get(error.errno or 0) or f"the receiver cannot store it ({error.strerror})"
