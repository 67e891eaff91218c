"""Links for the tests: when they can be had, what runs on them, and an ordinary user to have them."""

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
NOBODY = 65534
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
_CLONE_NEWUSER, _PR_CAPBSET_DROP, _CAP_SYS_ADMIN = 0x10000000, 24, 21
_SOL_UDP, _UDP_SEGMENT = 17, 103
_libc = ctypes.CDLL(None, use_errno=True)

needs_tun = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="not root: other tests have the link of an ordinary user"),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="this machine has no /dev/net/tun"),
]


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def simple(rate_bps: float | None, rtt_ms: float, loss: float = 0.0, seed: int = 1) -> LinkSpec:
    delay_ns = round(rtt_ms * MS / 2)
    return LinkSpec(
        PathSpec(rate_bps=rate_bps, delay_ns=delay_ns, loss=loss),
        PathSpec(rate_bps=rate_bps, delay_ns=delay_ns),
        seed=seed,
    )


def iperf(link: Link, *options: str) -> dict[str, Any]:
    """iperf3 from near to far; its JSON."""
    with link.popen_far(["iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if b"listening" in line:
                break
        link.start_clock()
        with link.popen_near(["iperf3", "-c", "far", "-J", *options], stdout=subprocess.PIPE) as client:
            output, _ = client.communicate(timeout=60)
        server.communicate(timeout=10)
    result = json.loads(output)
    assert "error" not in result, result["error"]
    return dict(result)


def datagrams(link: Link, family: int = socket.AF_INET) -> tuple[socket.socket, socket.socket]:
    """A connected UDP socket near, and the one far that it sends to."""
    near, far = link.socket_near(family, socket.SOCK_DGRAM), link.socket_far(family, socket.SOCK_DGRAM)
    far.bind((str(link.addresses.far_ipv6 if family == socket.AF_INET6 else link.addresses.far), 0))
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    near.connect(far.getsockname())
    return near, far


def numbered(link: Link, packets: int, *, payload_bytes: int = 1000, segments: int = 40) -> list[int]:
    """Send numbered datagrams as super-packets, and return the numbers that arrived, in their order.

    No more than a few hundred are under way at a time: what overflowed in the host would be no loss of the link's.
    """
    near, far = datagrams(link)
    came: list[int] = []
    with near, far:
        near.setsockopt(_SOL_UDP, _UDP_SEGMENT, payload_bytes)
        far.setblocking(False)
        for first in range(0, packets, segments):
            count = min(segments, packets - first)
            near.send(b"".join(struct.pack("!I", first + i).ljust(payload_bytes, b"\0") for i in range(count)))
            came += _taken(far, 0)
            while max(came, default=0) < first - 400 and (more := _taken(far, 0.05)):
                came += more
        settled(link)
        came += _taken(far, 0.05)
    return came


def _taken(receiver: socket.socket, pause_s: float) -> list[int]:
    """What is there by now, or comes within a pause."""
    came = []
    while select.select([receiver], [], [], pause_s)[0]:
        with suppress(BlockingIOError):  # what was there had a wrong checksum
            came.append(struct.unpack_from("!I", receiver.recv(2000))[0])
        pause_s = 0
    return came


def settled(link: Link) -> LinkAccounting:
    """The accounting when nothing is under way any more."""
    deadline = time.monotonic() + 20
    while True:
        before, accounting = link.accounting(), link.accounting()
        is_idle = before.forward == accounting.forward and before.backward == accounting.backward
        if is_idle and accounting.forward.in_flight == accounting.backward.in_flight == 0:
            return accounting
        assert time.monotonic() < deadline, accounting
        select.select([], [], [], 0.02)


@contextmanager
def becoming_nobody(device_mode: int | None = 0o666) -> Iterator[Callable[[], None]]:
    """What a child of root calls to go on as `nobody`.

    In a mount namespace of its own: /dev/net/tun has `device_mode` (that of most machines; None: there is none), and
    the interpreter and this project are reachable even where they lie in a folder of root's.
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
    """What a child of root calls to go on where nobody may make a namespace: in one of users that allows no more."""
    _checked(_libc.unshare(_CLONE_NEWUSER))
    Path("/proc/self/uid_map").write_text("0 0 1")
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    _checked(_libc.prctl(_PR_CAPBSET_DROP, _CAP_SYS_ADMIN, 0, 0, 0))


def _closed_parents(path: Path) -> list[Path]:
    """The topmost folder on the way to `path` that not everybody may pass, if there is one."""
    closed = [parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001]
    return closed[:1]


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
