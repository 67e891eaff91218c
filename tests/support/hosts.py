"""Hosts made of network namespaces: each is a thread of this process in a namespace of its own."""

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
    """A thread in a network namespace of its own, where it does what it is told."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.call(lambda: unshare(CLONE_NEWNET))
        self.thread_id = self.call(threading.get_native_id)
        self.run("ip link set lo up")
        # Addresses may be used at once.
        self.run("sysctl -q -w net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def call(self, function: Callable[[], T]) -> T:
        """The function's result, from inside."""
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
        self.call(lambda: subprocess.run(command.split(), check=True, capture_output=True))

    def end(self) -> None:
        self._work.put(None)
        self._thread.join(PATIENCE_S)


def make_hosts(cleanup: ExitStack) -> tuple[Host, Host, Host]:
    """near, router and far, with nothing between them. Skips the test where they cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("needs the rights of root to make network namespaces")
    try:
        hosts = Host(), Host(), Host()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    for host in hosts:
        cleanup.callback(host.end)
    hosts[1].run("sysctl -q -w net.ipv4.ip_forward=1")
    return hosts
