"""Hosts for the tests: threads of this process, each in a network namespace of its own."""

import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from queue import SimpleQueue

import pytest

from tests.support.background import PATIENCE_S, T
from toolkit.emulator.namespaces import CLONE_NEWNET, unshare


class Host:
    """A thread in its own network namespace that runs functions and commands there."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.call(lambda: unshare(CLONE_NEWNET))
        self.thread_id = self.call(threading.get_native_id)
        self.run("ip link set lo up")
        # Without duplicate address detection, addresses are usable at once.
        self.run("sysctl -q -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` inside and return its result, or raise its error."""
        results: SimpleQueue[T | BaseException] = SimpleQueue()

        def work() -> None:
            try:
                results.put(function())
            except BaseException as error:
                results.put(error)

        self._work.put(work)
        result = results.get(timeout=PATIENCE_S)
        if isinstance(result, BaseException):
            raise result
        return result

    def run(self, command: str) -> None:
        """Run a command inside. Raises CalledProcessError."""
        self.call(lambda: subprocess.run(command.split(), check=True, capture_output=True))

    def end(self) -> None:
        """Stop the thread; the kernel removes the namespace."""
        self._work.put(None)
        self._thread.join(PATIENCE_S)


def make_hosts(cleanup: ExitStack) -> tuple[Host, Host, Host]:
    """Near host, router and far host, not connected yet. Skips the test where namespaces are unavailable."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make network namespaces")
    try:
        hosts = Host(), Host(), Host()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces are unavailable: {error}")
    for host in hosts:
        cleanup.callback(host.end)
    hosts[1].run("sysctl -q -w net.ipv4.ip_forward=1")
    return hosts
