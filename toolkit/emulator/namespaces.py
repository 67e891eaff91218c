"""Network namespaces for the two ends of a link, and their removal.

Root makes network namespaces directly; any other user first enters a user namespace in which they are root
(user_namespaces(7)). A mount namespace gives the commands a private /etc/hosts in which `far` has an entry. No mount or
file keeps any of this alive: namespaces, devices and routes exist while a process or a descriptor refers to them, so
the kernel removes them however their owner ends. Root also gets names for `ip netns exec`: symbolic links in /run/netns
to the descriptors of the owner. A name whose owner was killed dangles, and the next link removes it.

To read: namespaces(7), setns(2), mount_namespaces(7), ip-netns(8).
"""

import contextlib
import ctypes
import errno
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import NettoolError

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29
NAMES_FOLDER = Path("/run/netns")
_NAME_PREFIX = "nettool-"
_END_GRACE_S = 1.0

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def unshare(flags: int) -> None:
    """unshare(2) for this process. Raises OSError."""
    _checked(_libc.unshare(flags))


def join(namespace: int, kind: int) -> None:
    """setns(2) for this process; for a network namespace, for the calling thread only. Raises OSError."""
    _checked(_libc.setns(namespace, kind))


def set_parent_death_signal(signal_number: int) -> None:
    """Have the kernel send `signal_number` to this process when its parent dies."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0))


def raise_scheduling_priority() -> None:
    """Set the timer slack to its minimum and, where permitted, switch to real-time scheduling.

    Otherwise busy commands at the two ends would add their scheduling latency to the delay of the link.
    """
    _checked(_libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0))
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def enter_private_namespaces() -> bool:
    """Move this process into a private mount namespace and, unless it is privileged, a user namespace.

    Returns whether it is in a new user namespace. Raises NettoolError where this machine permits neither.
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
        if error.errno == errno.ENOSPC:  # not a disk: a limit of namespaces(7)
            remedy = "run as root, or raise the limit with 'sudo sysctl -w user.max_user_namespaces=1000'"
            raise NettoolError(f"this machine allows no more user namespaces: {remedy}") from None
        remedy = "run as root, or allow user namespaces: see user.max_user_namespaces in sysctl"
        if Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists():
            remedy = "run as root, or run 'sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0'"
        raise NettoolError(f"this user cannot make namespaces ({error.strerror}): {remedy}") from None
    return is_user


def new_network() -> int:
    """Move this process into a new network namespace. Returns a descriptor of it. Raises NettoolError."""
    try:
        unshare(CLONE_NEWNET)
        return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # not a disk: a limit of namespaces(7)
            remedy = "raise the limit with 'sudo sysctl -w user.max_net_namespaces=1000'"
            raise NettoolError(f"this machine allows no more network namespaces: {remedy}") from None
        raise NettoolError(f"cannot make a network namespace ({error.strerror}): run as root") from None


def add_hosts_entries(names: dict[str, str]) -> None:
    """Add `names` (host name -> address) to /etc/hosts as this mount namespace sees it."""
    hosts = Path("/etc/hosts")
    if not hosts.exists():
        return  # no file to mount over; commands find the addresses in their environment
    text = hosts.read_text(errors="surrogateescape")
    added = "".join(f"{address}\t{name}\n" for name, address in names.items())
    folder = tempfile.mkdtemp(prefix="nettool-hosts-")
    try:
        with temporary_files(folder):
            file = Path(folder, "hosts")
            file.write_text(f"{added}{text}", errors="surrogateescape")
            file.chmod(0o644)
            bind(file, hosts)
    finally:
        os.rmdir(folder)


@contextlib.contextmanager
def temporary_files(folder: str) -> Iterator[None]:
    """Mount a tmpfs on a folder while the block runs; what was bound to another place remains. Raises OSError."""
    _checked(_libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, b"mode=755"))
    try:
        yield
    finally:
        _checked(_libc.umount2(os.fsencode(folder), _MNT_DETACH))


def bind(source: str | Path, place: Path) -> None:
    """Show `source` in place of another file or folder, as this mount namespace sees it. Raises OSError."""
    _checked(_libc.mount(os.fsencode(source), os.fsencode(place), None, _MS_BIND, None))


def register_netns_names(near: int, far: int) -> list[Path]:
    """Name the namespaces (descriptors) for `ip netns`; root only. Returns the symbolic links made."""
    links = []
    with contextlib.suppress(OSError):  # no write access to /run, as in a container: no names
        NAMES_FOLDER.mkdir(parents=True, exist_ok=True)
        remove_stale_names()
        for end, fd in (("near", near), ("far", far)):
            link = NAMES_FOLDER / f"{_NAME_PREFIX}{os.getpid()}-{end}"
            link.symlink_to(f"/proc/{os.getpid()}/fd/{fd}")
            links.append(link)
    return links


def remove_stale_names() -> None:
    """Remove names whose owner has exited."""
    for link in NAMES_FOLDER.glob(f"{_NAME_PREFIX}*"):
        with contextlib.suppress(OSError):
            if link.is_symlink() and not link.exists():
                link.unlink()


def terminate_processes(namespaces: list[int]) -> None:
    """Terminate every other process inside one of the network namespaces (descriptors).

    Processes get SIGTERM, then SIGKILL after a second. They are found by their namespace, never by name.
    """
    inodes = {os.fstat(fd).st_ino for fd in namespaces}
    deadline = time.monotonic() + _END_GRACE_S
    signal_number = signal.SIGTERM
    while pids := _pids_inside(inodes):
        if time.monotonic() > deadline:
            signal_number = signal.SIGKILL
        for pid in pids:
            _signal_if_inside(pid, inodes, signal_number)
        time.sleep(0.01)


def _pids_inside(inodes: set[int]) -> list[int]:
    own = os.getpid()
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if pid != own and _is_inside(pid, inodes)]


def _is_inside(pid: int, inodes: set[int]) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino in inodes
    except OSError:  # it has exited, is a zombie, or belongs to another user
        return False


def _signal_if_inside(pid: int, inodes: set[int], signal_number: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _is_inside(pid, inodes):  # the pid may have been reused before the handle was opened
            signal.pidfd_send_signal(handle, signal_number)
    except OSError:
        pass
    finally:
        os.close(handle)
