"""The two ends of a link: network namespaces, and what must be gone when the link is.

Root makes network namespaces directly; anybody else first makes a user namespace, in which he is root
(user_namespaces(7)). A mount namespace gives the commands inside an /etc/hosts of their own, where `far` has
a name. Nothing of this is kept by a mount or a file: namespaces, devices and routes live as long as a process
or a descriptor refers to them, so the kernel itself takes them back, however their owner ended. For root there
are names besides, for `ip netns exec`: symbolic links in /run/netns to the owner's descriptors. Those that an
owner could not remove point nowhere, and the next link removes them.

To read: namespaces(7), setns(2), mount_namespaces(7), ip-netns(8).
"""

import contextlib
import ctypes
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from toolkit.errors import NettoolError

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29
NAMES_FOLDER = Path("/run/netns")
_NAME_PREFIX = "nettool-"
_END_GRACE_S = 1.0

_libc = ctypes.CDLL(None, use_errno=True)


class Ends(NamedTuple):
    """Descriptors of a link's namespaces; `user` is -1 where there is no namespace of users (root)."""

    user: int
    mount: int
    near: int
    far: int


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def unshare(flags: int) -> None:
    """unshare(2) for this process. Raises OSError."""
    _checked(_libc.unshare(flags))


def join(namespace: int, kind: int) -> None:
    """setns(2) for this process (for the calling thread, if it is a network namespace). Raises OSError."""
    _checked(_libc.setns(namespace, kind))


def end_with_parent(signal_number: int) -> None:
    """Have the kernel send this process `signal_number` when its parent dies."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0))


def wake_precisely() -> None:
    """Let timers not be put off to share an interrupt, and, where that is allowed, run before other processes.

    A wire does not wait for a processor either: what two busy ends leave over would make the link's delay theirs.
    """
    _checked(_libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0))
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def enter_ends() -> bool:
    """Give this process namespaces of users (unless it may do without) and mounts, all private to it.

    True if there is a namespace of users now. Raises NettoolError where this machine allows neither.
    """
    is_user = False
    try:
        try:
            unshare(CLONE_NEWNS)
        except PermissionError:
            user, group = os.geteuid(), os.getegid()
            unshare(CLONE_NEWUSER | CLONE_NEWNS)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
            is_user = True
        _checked(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    except OSError as error:
        way_out = "run the link as root, or allow them: see user.max_user_namespaces in sysctl"
        if Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists():
            way_out = "run the link as root, or 'sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0'"
        raise NettoolError(f"this user may make no namespaces ({error.strerror}): {way_out}") from None
    return is_user


def new_network() -> int:
    """Move this process into a new network namespace; the descriptor that keeps it. Raises NettoolError."""
    try:
        unshare(CLONE_NEWNET)
        return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NettoolError(f"no network namespace can be made ({error.strerror}): run the link as root") from None


def name_hosts(names: dict[str, str]) -> None:
    """Let this mount namespace's /etc/hosts also hold `names` (host name -> address)."""
    hosts = Path("/etc/hosts")
    if not hosts.exists():
        return  # nothing to mount over; the addresses are in the environment all the same
    text = hosts.read_text(errors="surrogateescape")
    added = "".join(f"{address}\t{name}\n" for name, address in names.items())
    folder = tempfile.mkdtemp(prefix="nettool-hosts-")
    try:
        _checked(_libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, b"mode=755"))
        file = Path(folder, "hosts")
        file.write_text(f"{added}{text}", errors="surrogateescape")
        file.chmod(0o644)
        _checked(_libc.mount(os.fsencode(file), b"/etc/hosts", None, _MS_BIND, None))
        _checked(_libc.umount2(os.fsencode(folder), _MNT_DETACH))  # the other mount holds the file
    finally:
        os.rmdir(folder)


def publish_names(near: int, far: int) -> list[Path]:
    """Name this process's namespaces for `ip netns`; root only. Returns the links, which `unlink` removes."""
    links = []
    with contextlib.suppress(OSError):  # a convenience: where /run is not ours, as in a container, there are none
        NAMES_FOLDER.mkdir(parents=True, exist_ok=True)
        remove_stale_names()
        for end, fd in (("near", near), ("far", far)):
            link = NAMES_FOLDER / f"{_NAME_PREFIX}{os.getpid()}-{end}"
            link.symlink_to(f"/proc/{os.getpid()}/fd/{fd}")
            links.append(link)
    return links


def remove_stale_names() -> None:
    """Remove names whose owner is gone."""
    for link in NAMES_FOLDER.glob(f"{_NAME_PREFIX}*"):
        with contextlib.suppress(OSError):
            if link.is_symlink() and not link.exists():
                link.unlink()


def end_processes(namespaces: list[int]) -> None:
    """End every process, but this one, that is inside one of the network namespaces (descriptors).

    They get SIGTERM, and after a second SIGKILL. A process is known by where it is, never by its name.
    """
    inodes = {os.fstat(fd).st_ino for fd in namespaces}
    deadline = time.monotonic() + _END_GRACE_S
    signal_number = signal.SIGTERM
    while pids := _inside(inodes):
        if time.monotonic() > deadline:
            signal_number = signal.SIGKILL
        for pid in pids:
            _signal_if_inside(pid, inodes, signal_number)
        time.sleep(0.01)


def _inside(inodes: set[int]) -> list[int]:
    own = os.getpid()
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if pid != own and _is_inside(pid, inodes)]


def _is_inside(pid: int, inodes: set[int]) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino in inodes
    except OSError:  # it is gone, a zombie, or somebody else's
        return False


def _signal_if_inside(pid: int, inodes: set[int], signal_number: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _is_inside(pid, inodes):  # the handle is to a process, the number might be another's by now
            signal.pidfd_send_signal(handle, signal_number)
    except OSError:
        pass
    finally:
        os.close(handle)
