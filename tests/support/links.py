"""Emulated links for the tests: when they are available, traffic over them, and an unprivileged user to make them."""

import ctypes
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import toolkit
from toolkit.emulator.accounting import LinkAccounting
from toolkit.emulator.link import Link
from toolkit.netmodel.spec import LinkSpec, PathSpec

MS = 1_000_000
PATIENCE_S = 120.0  # for an event that an overloaded machine delays
NOBODY = 65534
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
_CLONE_NEWUSER, _PR_CAPBSET_DROP, _CAP_SYS_ADMIN = 0x10000000, 24, 21
_SOL_UDP, _UDP_SEGMENT = 17, 103
_SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES = 33, 32 << 20
_libc = ctypes.CDLL(None, use_errno=True)

needs_tun = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="not root (other tests run a link as an unprivileged user)"),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="this machine has no /dev/net/tun"),
]


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def eventually(condition: Callable[[], bool], pause_s: float = 0.0) -> bool:
    """Whether `condition` becomes true. For what sends no event, and for figures that other load can only worsen."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(pause_s)
    return True


def processes() -> dict[int, str]:
    """Pid -> command line, of all processes."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    return found


def link_processes(owner: int) -> set[int]:
    """The pids of the processes behind the links of `owner`."""
    found = set()
    for pid, line in processes().items():
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == owner and "toolkit.emulator.start" in line:
            found.add(pid)
    return found


def simple(rate_bps: float | None, rtt_ms: float, loss: float = 0.0) -> LinkSpec:
    """A link with the same rate and half the RTT in each direction, and loss from near to far."""
    delay_ns = round(rtt_ms * MS / 2)
    return LinkSpec(
        PathSpec(rate_bps=rate_bps, delay_ns=delay_ns, loss=loss),
        PathSpec(rate_bps=rate_bps, delay_ns=delay_ns),
    )


def iperf(link: Link, *options: str) -> dict[str, Any]:
    """Run iperf3 from near to far; return its JSON."""
    with link.popen_far(["iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if b"listening" in line:
                break
        link.start_clock()
        with link.popen_near(["iperf3", "-c", "far", "-J", *options], stdout=subprocess.PIPE) as client:
            output, _ = client.communicate(timeout=PATIENCE_S)
        server.communicate(timeout=PATIENCE_S)
    result = json.loads(output)
    assert "error" not in result, result["error"]
    return dict(result)


def enlarge_receive_buffer(sock: socket.socket) -> None:
    """Give a socket room for every packet of a test, so that the host loses none when this process is held up."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)


def datagrams(link: Link) -> tuple[socket.socket, socket.socket]:
    """A UDP socket at the near end, connected to one at the far end."""
    near = link.socket_near(socket.AF_INET, socket.SOCK_DGRAM)
    far = link.socket_far(socket.AF_INET, socket.SOCK_DGRAM)
    far.bind((str(link.addresses.far), 0))
    enlarge_receive_buffer(far)
    near.connect(far.getsockname())
    return near, far


def send_at_once(sender: socket.socket, packets: int, payload_bytes: int, segments: int = 40) -> None:
    """Send numbered datagrams as super-packets of up to `segments` datagrams."""
    sender.setsockopt(_SOL_UDP, _UDP_SEGMENT, payload_bytes)
    for first in range(0, packets, segments):
        count = min(segments, packets - first)
        sender.send(b"".join(struct.pack("!I", first + i).ljust(payload_bytes, b"\0") for i in range(count)))


def send_numbered(link: Link, packets: int) -> list[int]:
    """Send numbered datagrams of 1,000 bytes from near to far; return the numbers in the order of arrival.

    At most 5,000: more could overflow a buffer of the host, which would not be a loss of the link.
    """
    near, far = datagrams(link)
    arrived: list[int] = []
    with near, far:
        send_at_once(near, packets, 1000)
        idle_accounting(link)
        while select.select([far], [], [], 0)[0]:
            with suppress(BlockingIOError):  # a wrong checksum: the kernel discarded the datagram
                arrived.append(struct.unpack_from("!I", far.recv(2000, socket.MSG_DONTWAIT))[0])
    return arrived


def idle_accounting(link: Link) -> LinkAccounting:
    """The counters once nothing is in flight."""
    while True:
        before, accounting = link.accounting(), link.accounting()
        is_idle = before.forward == accounting.forward and before.backward == accounting.backward
        if is_idle and accounting.forward.in_flight == accounting.backward.in_flight == 0:
            return accounting
        time.sleep(0.02)


@contextmanager
def becoming_nobody(device_mode: int | None = 0o666) -> Iterator[Callable[[], None]]:
    """A function that a child of root calls to continue as `nobody`.

    It enters a mount namespace in which /dev/net/tun has `device_mode` (the default is that of most machines; None
    removes the device), and in which the interpreter and this project are reachable even inside a folder of root.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        devices = Path(folder) / "net"
        devices.mkdir(0o755)
        if device_mode is not None:
            os.mknod(devices / "tun", 0o20000, os.makedev(10, 200))
            os.chmod(devices / "tun", device_mode)
        reachable = {
            Path(os.path.realpath(sys.executable)).parents[1],
            Path(sys.prefix),
            Path(toolkit.__file__).parents[1],
        }
        closed = {top: [p for p in reachable if p.is_relative_to(top)] for p in reachable for top in _closed_parents(p)}

        def become() -> None:
            _checked(_libc.unshare(_CLONE_NEWNS))
            _checked(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
            _checked(_libc.mount(os.fsencode(devices), b"/dev/net", None, _MS_BIND, None))
            for top, inside in closed.items():
                kept = [(os.open(path, os.O_PATH), path) for path in inside]
                _checked(_libc.mount(b"none", os.fsencode(top), b"tmpfs", 0, b"mode=755"))
                for fd, path in kept:
                    path.mkdir(parents=True)
                    _checked(
                        _libc.mount(f"/proc/self/fd/{fd}".encode(), os.fsencode(path), None, _MS_BIND | _MS_REC, None)
                    )
            os.chdir("/")
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

        yield become


def without_namespaces() -> None:
    """Called by a child of root: continue inside a user namespace that permits no further namespaces."""
    _checked(_libc.unshare(_CLONE_NEWUSER))
    Path("/proc/self/uid_map").write_text("0 0 1")
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    _checked(_libc.prctl(_PR_CAPBSET_DROP, _CAP_SYS_ADMIN, 0, 0, 0))


def without_network_namespaces() -> None:
    """Called by a child of root: continue inside a user namespace that permits no further network namespaces."""
    _checked(_libc.unshare(_CLONE_NEWUSER))
    Path("/proc/self/uid_map").write_text("0 0 1")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text("0 0 1")
    Path("/proc/sys/user/max_net_namespaces").write_text("0")


def _closed_parents(path: Path) -> list[Path]:
    """The topmost parent of `path` that other users cannot traverse, if any."""
    closed = [parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001]
    return closed[:1]


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
