"""A link that runs: two ends on this machine with a path between them, for commands, sockets and tests.

    with Link(LinkSpec(forward=PathSpec(rate_bps=1e8, delay_ns=20_000_000), ...)) as link:
        server = link.popen_far(["iperf3", "-s", "-1"])
        link.start_clock()
        client = link.popen_near(["iperf3", "-c", "far"])
        client.wait()
        print(link.accounting().to_json())

A link needs root, or a machine that lets its user make user namespaces. Commands at the ends are children of this
process; inside, they are root of a network of their own, resolve `far` and `near`, and find the addresses in
$NETTOOL_FAR, $NETTOOL_FAR6 and $NETTOOL_NEAR. The packets are carried by a process of their own
(`toolkit.emulator.link_process`), which ends with this one, even if that is killed.
"""

import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from toolkit.emulator import namespaces
from toolkit.emulator.accounting import LinkAccounting
from toolkit.emulator.interfaces import DEFAULT_NETWORK, Addresses, require_unused
from toolkit.emulator.link_process import FAR, MAX_MESSAGE_BYTES, NEAR, NETEM, TUN, LinkRequest
from toolkit.errors import NettoolError, UsageError, printable
from toolkit.netmodel.spec import LinkSpec

EMULATORS = (TUN, NETEM)
_END_TIMEOUT_S = 10.0


def require_program(arguments: Sequence[str]) -> None:
    """Raise UsageError if there is no such program: sooner than `popen_near`, which does so too."""
    if shutil.which(arguments[0]) is None:
        raise _no_command(arguments)


def _no_command(arguments: Sequence[str]) -> UsageError:
    return UsageError(f"there is no command '{printable(arguments[0], 60)}': check the spelling, or install it")


class Link:
    """Enter it (or call `open`), use its ends, leave it (or call `close`).

    Times of the model and of the accounting count from `open`, or from the newest `start_clock`.
    """

    def __init__(self, spec: LinkSpec, *, emulator: str = TUN, network: str = DEFAULT_NETWORK) -> None:
        """`network` is the IPv4 range of the two ends. Raises UsageError."""
        if emulator not in EMULATORS:
            raise UsageError(f"no emulator '{printable(emulator, 40)}': take one of {', '.join(EMULATORS)}")
        self.spec = spec
        self.addresses = Addresses.of_network(network)
        self._request = LinkRequest(spec, emulator, self.addresses)
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
        """Make the link. Raises UsageError and NettoolError, and then nothing is left of it."""
        require_unused(self.addresses)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "toolkit.emulator.start", str(theirs.fileno())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # a Ctrl-C at the terminal reaches the commands, not the link
                )
            assert self._process.stdin is not None
            with suppress(BrokenPipeError), self._process.stdin as request:  # it says why on the socket
                pickle.dump(self._request, request)
            _, self._descriptors = self._receive(4)
            self.start_clock()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything that runs inside, and take the link away. Idempotent."""
        if self._control is not None:
            self._control.close()
            self._control = None
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        if self._process is not None:
            try:
                self._process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            namespaces.remove_stale_names()

    def start_clock(self, seed: int | None = None) -> None:
        """Drop what is under way and begin again at time 0 in the first state, with `seed` if one is given.

        Every trial that begins so meets the same bad moments.
        """
        self._ask("start", seed)

    def accounting(self) -> LinkAccounting:
        """The account since the clock was started."""
        answer, _ = self._ask("accounting")
        assert isinstance(answer, LinkAccounting)
        return answer

    def popen_near(self, arguments: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """As subprocess.Popen, at the near end. Raises UsageError if there is no such program."""
        return self._popen(NEAR, arguments, options)

    def popen_far(self, arguments: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """As subprocess.Popen, at the far end. Raises UsageError if there is no such program."""
        return self._popen(FAR, arguments, options)

    def socket_near(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this process at the near end; also a raw one, for which a user has no right outside."""
        return self._socket(NEAR, family, kind, protocol)

    def socket_far(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this process at the far end."""
        return self._socket(FAR, family, kind, protocol)

    def environment(self) -> dict[str, str]:
        """What a command at either end finds in its environment, besides that of this process."""
        return {
            "NETTOOL_FAR": str(self.addresses.far),
            "NETTOOL_FAR6": str(self.addresses.far_ipv6),
            "NETTOOL_NEAR": str(self.addresses.near),
        }

    def _popen(self, end: str, arguments: Sequence[str], options: dict[str, Any]) -> "subprocess.Popen[Any]":
        options["env"] = {**options.get("env", os.environ), **self.environment()}
        try:
            return subprocess.Popen(arguments, preexec_fn=self._joining(end), **options)
        except (FileNotFoundError, NotADirectoryError):
            raise _no_command(arguments) from None
        except OSError as error:
            raise UsageError(f"'{printable(arguments[0], 60)}' cannot be run: {error.strerror}") from None

    def _joining(self, end: str) -> Callable[[], None]:
        """What a new child does before it becomes the command."""
        mount, near, far, *user = self._descriptors
        network = near if end == NEAR else far

        def enter() -> None:
            folder = os.getcwd()
            for descriptor in user:
                namespaces.join(descriptor, namespaces.CLONE_NEWUSER)
            namespaces.join(network, namespaces.CLONE_NEWNET)
            namespaces.join(mount, namespaces.CLONE_NEWNS)  # which moves this process to the root folder
            os.chdir(folder)

        return enter

    def _socket(self, end: str, family: int, kind: int, protocol: int) -> socket.socket:
        _, descriptors = self._ask("socket", end, int(family), int(kind), protocol)
        return socket.socket(fileno=descriptors[0])

    def _ask(self, name: str, *arguments: object) -> tuple[object, list[int]]:
        if self._control is None:
            raise UsageError("the link is not open")
        try:
            self._control.send(pickle.dumps((name, *arguments)))
        except OSError:
            raise NettoolError("the link's emulator has ended: start the link anew") from None
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
            raise NettoolError("the link's emulator has ended: start the link anew")
        answer = pickle.loads(data)
        if isinstance(answer, NettoolError):
            raise answer
        return answer, received
