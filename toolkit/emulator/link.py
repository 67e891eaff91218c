"""A live link: two network ends on this machine with an emulated path between them, for commands, sockets and tests.

    with Link(LinkSpec(forward=PathSpec(rate_bps=1e8, delay_ns=20_000_000), ...)) as link:
        server = link.popen_far(["iperf3", "-s", "-1"])
        link.start_clock()
        client = link.popen_near(["iperf3", "-c", "far"])
        client.wait()
        print(link.accounting().to_json())

A link needs root or permission to make user namespaces. Commands at the ends are children of this process. They are
root of a private network, resolve `far` and `near`, and find the addresses in $NETTOOL_FAR, $NETTOOL_FAR6 and
$NETTOOL_NEAR. A separate process carries the packets (`toolkit.emulator.link_process`). It ends with this process, even
if this process is killed.
"""

import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from toolkit.emulator import namespaces
from toolkit.emulator.accounting import NETEM, SWITCH, TUN, Bottleneck, LinkAccounting
from toolkit.emulator.interfaces import DEFAULT_NETWORK, FAR, NEAR, Addresses, require_unused
from toolkit.emulator.link_process import MAX_MESSAGE_BYTES, LinkRequest
from toolkit.emulator.switch import SwitchError, can_switch
from toolkit.emulator.tun_device import TunError
from toolkit.errors import NettoolError, UsageError, printable
from toolkit.netmodel.spec import LinkSpec

EMULATORS = (TUN, SWITCH, NETEM)
_END_TIMEOUT_S = 10.0


def require_program(arguments: Sequence[str]) -> None:
    """Raise UsageError if there is no such program, before a link is made for it."""
    if shutil.which(arguments[0]) is None:
        raise _command_not_found(arguments)


def _command_not_found(arguments: Sequence[str]) -> UsageError:
    return UsageError(f"command '{printable(arguments[0], 60)}' not found: check the spelling, or install it")


class Link:
    """A context manager: enter it or call `open`, use the ends, leave it or call `close`.

    Times of the model and of the accounting count from the last `start_clock`, or from `open`.
    """

    def __init__(self, spec: LinkSpec, *, emulator: str | None = None, network: str = DEFAULT_NETWORK) -> None:
        """`network` is the IPv4 range of the two ends. Raises UsageError.

        `emulator` is one of EMULATORS. The default is TUN; where this user has no TUN device, SWITCH carries what it
        can, and `notice` says why.
        """
        if emulator is not None and emulator not in EMULATORS:
            raise UsageError(f"unknown emulator '{printable(emulator, 40)}': choose from {', '.join(EMULATORS)}")
        if emulator == SWITCH and not can_switch(spec):
            raise UsageError("a switch carries a LAN with a rate and a plain queue: use nettool's own emulator")
        self.spec = spec
        self.addresses = Addresses.of_network(network)
        self.notice: str | None = None
        self._can_switch = emulator is None and can_switch(spec)
        self._request = LinkRequest(spec, emulator or TUN, self.addresses)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._descriptors: list[int] = []

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Make the link. Raises UsageError and NettoolError; nothing remains after a failure."""
        require_unused(self.addresses)
        try:
            self._open()
        except TunError as error:
            if not self._can_switch:
                raise
            self._request = replace(self._request, emulator=SWITCH)
            try:
                self._open()
            except SwitchError as second:
                raise NettoolError(f"{error}; {second}") from None
            self.notice = f"{error}. Until then, queues of the kernel emulate this LAN and cost its ends processor time"

    def _open(self) -> None:
        self._control, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with child:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "toolkit.emulator.start", str(child.fileno())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[child.fileno()],
                    start_new_session=True,  # Ctrl-C at a terminal must reach the commands only
                )
            assert self._process.stdin is not None
            with suppress(BrokenPipeError), self._process.stdin as request:  # it reports failures on the socket
                pickle.dump(self._request, request)
            _, self._descriptors = self._receive(4)
            self.start_clock()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Terminate every process inside and remove the link. Idempotent."""
        if self._control is not None:
            self._control.close()
            self._control = None
        while self._descriptors:  # each once, also if this is interrupted and called again
            os.close(self._descriptors.pop())
        if self._process is not None:
            try:
                self._process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            namespaces.remove_stale_names()

    def start_clock(self, seed: int | None = None) -> None:
        """Discard packets in flight and restart the model at time 0, with `seed` or the previous seed.

        Trials that start with the same seed meet the same bad periods.
        """
        self._call("start", seed)

    def accounting(self) -> LinkAccounting:
        """The packet counters since the start of the clock."""
        answer, _ = self._call("accounting")
        assert isinstance(answer, LinkAccounting)
        return answer

    def popen_near(self, arguments: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Run a command at the near end; `options` are those of subprocess.Popen. Raises UsageError."""
        return self._popen(NEAR, arguments, options)

    def popen_far(self, arguments: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Run a command at the far end; `options` are those of subprocess.Popen. Raises UsageError."""
        return self._popen(FAR, arguments, options)

    def socket_near(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this process at the near end. Raw sockets work for every user."""
        return self._socket(NEAR, family, kind, protocol)

    def socket_far(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this process at the far end."""
        return self._socket(FAR, family, kind, protocol)

    def mtu_and_queue_near(self) -> tuple[int, str]:
        """The MTU of the near end's device in bytes, and the kind of its root queueing discipline."""
        answer, _ = self._call("device")
        assert isinstance(answer, tuple)
        mtu_bytes, queue = answer
        return mtu_bytes, queue

    def bottleneck(self) -> Bottleneck | None:
        """What the kernel of a SWITCH has installed to limit the way from near to far; None with another emulator."""
        answer, _ = self._call("bottleneck")
        assert answer is None or isinstance(answer, Bottleneck)
        return answer

    def environment(self) -> dict[str, str]:
        """The environment variables that commands at the ends get in addition to those of this process."""
        return {
            "NETTOOL_FAR": str(self.addresses.far),
            "NETTOOL_FAR6": str(self.addresses.far_ipv6),
            "NETTOOL_NEAR": str(self.addresses.near),
        }

    def _popen(self, end: str, arguments: Sequence[str], options: dict[str, Any]) -> "subprocess.Popen[Any]":
        options["env"] = {**options.get("env", os.environ), **self.environment()}
        try:
            folder = options.get("cwd") or os.getcwd()
        except OSError:
            raise UsageError("the current folder no longer exists: change to another one") from None
        try:
            return subprocess.Popen(arguments, preexec_fn=self._mover_to(end), **options)
        except subprocess.SubprocessError:  # the function above has failed, in the child
            raise UsageError(
                f"programs behind the link cannot enter {printable(str(folder), 80)}: change to another folder"
            ) from None
        except (FileNotFoundError, NotADirectoryError):
            raise _command_not_found(arguments) from None
        except OSError as error:
            raise UsageError(f"cannot run '{printable(arguments[0], 60)}': {error.strerror}") from None

    def _mover_to(self, end: str) -> Callable[[], None]:
        """A function that moves a new child process to `end`, and there to the folder that it starts in."""
        mount, near, far, *user = self._descriptors
        network = near if end == NEAR else far

        def enter() -> None:
            folder = os.getcwd()
            for descriptor in user:
                namespaces.join(descriptor, namespaces.CLONE_NEWUSER)
            namespaces.join(network, namespaces.CLONE_NEWNET)
            namespaces.join(mount, namespaces.CLONE_NEWNS)  # setns changes the working directory to /
            os.chdir(folder)

        return enter

    def _socket(self, end: str, family: int, kind: int, protocol: int) -> socket.socket:
        _, descriptors = self._call("socket", end, int(family), int(kind), protocol)
        return socket.socket(fileno=descriptors[0])

    def _call(self, name: str, *arguments: object) -> tuple[object, list[int]]:
        if self._control is None:
            raise UsageError("the link is not open")
        try:
            self._control.send(pickle.dumps((name, *arguments)))
        except OSError:
            raise _emulator_exited() from None
        return self._receive(1)

    def _receive(self, descriptors: int) -> tuple[object, list[int]]:
        assert self._control is not None
        try:
            data, received, _, _ = socket.recv_fds(
                self._control, MAX_MESSAGE_BYTES, descriptors, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            data, received = b"", []
        if not data:
            raise _emulator_exited()
        answer = pickle.loads(data)
        if isinstance(answer, NettoolError):
            raise answer
        return answer, received


def _emulator_exited() -> NettoolError:
    return NettoolError("the emulator of the link has exited: open the link again")
