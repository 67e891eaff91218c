"""Nothing of a link remains: not after its end, not after Ctrl-C, not after `kill -9` of its owner."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.cli_process import NETTOOL
from tests.support.forked_cli import ForkedCli
from tests.support.interrupted_close import assert_closes_each_descriptor_once
from tests.support.links import PATIENCE_S, eventually, link_processes, needs_tun, processes
from tests.support.warm_starts import FRESH
from toolkit.emulator.link import Link
from toolkit.errors import NettoolError
from toolkit.netmodel.spec import LinkSpec

pytestmark = needs_tun
# Processes that a link leaves behind are recognised by this argument: nothing else sleeps for that time.
MARK = f"4711.{os.getpid()}"
# Print the network namespace; start an orphan, and a child in a session of its own.
STRAGGLERS = f"readlink /proc/self/ns/net; (sleep {MARK} &); setsid sleep {MARK} & "


def hosts_mounts() -> list[str]:
    """The mounts of this namespace of which a link makes some, in a namespace of its own."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in mounts if line.split()[1] == "/etc/hosts" or "/nettool-hosts-" in line]


MOUNTS_BEFORE = hosts_mounts()


def arguments(then: str, far: str = "true") -> list[str]:
    """The arguments of a link whose command leaves processes behind and then runs `then`."""
    return ["link", "--rtt", "1ms", "--far", far, "--", "sh", "-c", STRAGGLERS + then]


def start(then: str) -> subprocess.Popen[bytes]:
    """Start `nettool link` in a session of its own, as a terminal does."""
    return subprocess.Popen(
        [*NETTOOL, *arguments(then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def leftovers(pids: set[int], namespaces: set[str]) -> list[str]:
    """What remains of the links that the processes `pids` carried."""
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
    left += [line for line in hosts_mounts() if line not in MOUNTS_BEFORE]
    left += [name for name in os.listdir("/sys/class/net") if name == "link0"]
    return left


def assert_nothing_remains(pids: set[int], namespaces: set[str]) -> None:
    assert eventually(lambda: not leftovers(pids, namespaces), 0.05), leftovers(pids, namespaces)


@pytest.mark.long
def test_many_starts_and_stops_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at a time. One of each three is killed, in every other batch while it is still starting."""
    monkeypatch.setenv(FRESH, "toolkit")  # `link_processes` recognises a process by its command line
    pids: set[int] = set()
    namespaces: set[str] = set()
    for batch in range(4):
        running = [ForkedCli(arguments("echo ready")) for _ in range(2)]
        victim = ForkedCli(arguments(f"echo ready; exec sleep {MARK}", f"sh -c '{STRAGGLERS} exec sleep {MARK}'"))
        if batch % 2 == 0:
            lines = [victim.stdout.readline().decode().strip() for _ in range(2)]
            assert "ready" in lines
            namespaces |= {line for line in lines if line.startswith("net:")}
        else:
            time.sleep(0.2 * batch)  # any moment of its start is as good as another
        pids |= link_processes(victim.pid)
        victim.kill()
        for process in (*running, victim):
            pids |= link_processes(process.pid)
            output, errors = process.communicate(timeout=PATIENCE_S)
            namespaces |= {line for line in output.decode().split() if line.startswith("net:")}
            if process is victim:
                assert process.returncode == -signal.SIGKILL
            else:
                assert process.returncode == 0, errors
                assert b"ready" in output
    assert_nothing_remains(pids, namespaces)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_command_and_the_link(number: signal.Signals) -> None:
    process = start(f"echo ready; exec sleep {MARK}")
    assert process.stdout is not None
    lines = [process.stdout.readline().decode().strip() for _ in range(2)]
    pids = link_processes(process.pid)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert_nothing_remains(pids, {line for line in lines if line.startswith("net:")})


def test_a_killed_emulator_is_reported_and_its_names_are_removed() -> None:
    with Link(LinkSpec()) as link:
        (pid,) = link_processes(os.getpid())
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(NettoolError, match="has exited"):
            link.accounting()
    assert_nothing_remains({pid}, set())


def test_the_death_of_an_owner_is_noticed_although_a_child_keeps_the_socket(tmp_path: Path) -> None:
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
        pids = link_processes(owner.pid)
        assert len(pids) == 1
        owner.kill()
        assert_nothing_remains(pids, set())
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        owner.communicate()


def test_an_interrupted_end_closes_no_descriptor_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(LinkSpec())
    link.open()
    assert_closes_each_descriptor_once(monkeypatch, link.close)
