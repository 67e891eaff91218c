"""Nothing of a link stays: after its end, after a Ctrl-C, and after `kill -9` of whoever had it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.cli_process import NETTOOL
from tests.support.link_ends import needs_tun
from toolkit.emulator.link import Link
from toolkit.errors import NettoolError
from toolkit.netmodel.spec import LinkSpec

pytestmark = needs_tun
LIMIT_S = 20.0
# Whoever leaves something behind can be told by this argument: a time that nobody else sleeps for.
MARK = f"4711.{os.getpid()}"
# One child that has lost its parent, one in a session of its own, and the namespace that they are in.
STRAGGLERS = f"readlink /proc/self/ns/net; (sleep {MARK} &); setsid sleep {MARK} & "


def start(then: str, far: str = "true") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*NETTOOL, "link", "--rtt", "1ms", "--far", far, "--", "sh", "-c", STRAGGLERS + then],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def processes() -> dict[int, str]:
    """Number -> command line of all there are."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    return found


def holders(owner: int) -> set[int]:
    """The processes that carry the links of `owner`."""
    found = set()
    for pid, line in processes().items():
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == owner and "toolkit.emulator.start" in line:
            found.add(pid)
    return found


def leftovers(pids: set[int], namespaces: set[str]) -> list[str]:
    """Whatever there still is of the links that `pids` have carried."""
    left = [f"{pid}: {line}" for pid, line in processes().items() if MARK in line or (pid in pids and line)]
    names = Path("/run/netns")
    if names.exists():
        left += [name for name in os.listdir(names) if any(name.startswith(f"nettool-{pid}-") for pid in pids)]
    for pid in processes():
        try:
            if os.readlink(f"/proc/{pid}/ns/net") in namespaces:
                left.append(f"{pid} is in a namespace of the link")
        except OSError:
            continue
    left += [line for line in Path("/proc/self/mounts").read_text().splitlines() if "nettool" in line]
    left += [name for name in os.listdir("/sys/class/net") if name == "link0"]
    return left


def await_nothing_left(pids: set[int], namespaces: set[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while left := leftovers(pids, namespaces):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_fifty_starts_and_stops_leave_nothing() -> None:
    """Five at a time; of each five one is killed, half of those while it is still at the making."""
    mounts = Path("/proc/self/mounts").read_text()
    pids: set[int] = set()
    namespaces: set[str] = set()
    ends = 0
    for batch in range(10):
        ready = batch % 2 == 0
        running = [start("echo ready") for _ in range(4)]
        victim = start(f"echo ready; exec sleep {MARK}", f"sh -c '{STRAGGLERS} exec sleep {MARK}'")
        assert victim.stdout is not None
        if ready:
            lines = [victim.stdout.readline().decode().strip() for _ in range(2)]
            assert "ready" in lines
            namespaces |= {line for line in lines if line.startswith("net:")}
        else:
            time.sleep(0.1 * batch)  # seeded by nothing: wherever in its making it is by then
        pids |= holders(victim.pid)
        victim.kill()
        for process in (*running, victim):
            pids |= holders(process.pid)
            output, errors = process.communicate(timeout=LIMIT_S)
            namespaces |= {line for line in output.decode().split() if line.startswith("net:")}
            ends += process is not victim and b"ready" in output
            assert process.returncode == (-signal.SIGKILL if process is victim else 0), errors
    assert ends == 40
    await_nothing_left(pids, namespaces)
    assert Path("/proc/self/mounts").read_text() == mounts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_command_and_the_link(number: signal.Signals) -> None:
    process = start(f"echo ready; exec sleep {MARK}")
    assert process.stdout is not None
    lines = [process.stdout.readline().decode().strip() for _ in range(2)]
    pids = holders(process.pid)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    await_nothing_left(pids, {line for line in lines if line.startswith("net:")})


def test_a_killed_emulator_is_noticed_and_its_names_go() -> None:
    with Link(LinkSpec()) as link:
        (pid,) = holders(os.getpid())
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(NettoolError, match="has exited"):
            link.accounting()
    await_nothing_left({pid}, set())


def test_an_owner_whose_child_keeps_the_socket_is_missed_all_the_same(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(
        "import os, time\n"
        "from toolkit.emulator.link import Link\n"
        "from toolkit.netmodel.spec import LinkSpec\n"
        "link = Link(LinkSpec())\n"
        "link.open()\n"
        "if os.fork() == 0:\n"
        "    time.sleep(60)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        pids = holders(owner.pid)
        assert len(pids) == 1
        owner.kill()
        await_nothing_left(pids, set())
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        owner.communicate()
