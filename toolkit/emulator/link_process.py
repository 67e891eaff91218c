"""The process behind a link: it makes the namespaces and devices, carries the packets, and cleans up.

`toolkit.emulator.link` starts it through `toolkit.emulator.start` and sends it requests over one socket. When that
socket closes, because the link was closed or its owner was killed, this process terminates every process inside the
namespaces and then exits; the kernel removes everything it made. It ignores Ctrl-C, which is for its owner to handle.
"""

import gc
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from types import FrameType
from typing import Protocol

from pyroute2 import IPRoute

from toolkit.emulator import interfaces, namespaces
from toolkit.emulator.accounting import SWITCH, TUN, Bottleneck, LinkAccounting
from toolkit.emulator.interfaces import FAR, NEAR, Addresses
from toolkit.emulator.netem import KernelBackend
from toolkit.emulator.ssh_files import copy_ssh_configuration
from toolkit.emulator.switch import SwitchBackend, make_switch, set_offloads
from toolkit.emulator.tun import Emulator
from toolkit.emulator.tun_device import open_tun
from toolkit.errors import NettoolError
from toolkit.netmodel.spec import LinkSpec

MAX_MESSAGE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """The link to make; `emulator` is TUN, SWITCH or NETEM."""

    spec: LinkSpec
    emulator: str
    addresses: Addresses


class _Backend(Protocol):
    """Carries the packets."""

    def start(self, spec: LinkSpec) -> None:
        """Restart at time 0."""

    def run(self, control: int) -> None:
        """Carry packets until `control` is readable."""

    def accounting(self) -> LinkAccounting:
        """The packet counters since `start`."""


class _TunBackend:
    """The emulator, and the packets that the kernel drops at its devices."""

    def __init__(self, emulator: Emulator, near: IPRoute, far: IPRoute) -> None:
        self._emulator = emulator
        self._netlinks = (near, far)
        self._dropped_before = self._dropped()
        self.run = emulator.run

    def start(self, spec: LinkSpec) -> None:
        self._emulator.start(spec)
        self._dropped_before = self._dropped()

    def accounting(self) -> LinkAccounting:
        accounting = self._emulator.accounting()
        for path, dropped, before in zip(
            (accounting.forward, accounting.backward), self._dropped(), self._dropped_before, strict=True
        ):
            path.host_dropped += dropped - before
        return accounting

    def _dropped(self) -> list[int]:
        return [interfaces.statistics(netlink)["tx_dropped"] for netlink in self._netlinks]


class LinkProcess:
    """The namespaces, devices and backend of one link: `make`, then `serve`, then `close`."""

    def __init__(self) -> None:
        self._resources = ExitStack()
        self._networks: dict[str, int] = {}
        self._user = self._mount = -1

    def make(self, request: LinkRequest, is_user: bool) -> None:
        """Make everything. Raises NettoolError; call `close` in that case too."""
        self._spec = request.spec
        addresses = request.addresses
        names = {NEAR: str(addresses.near), FAR: str(addresses.far), "far6": str(addresses.far_ipv6)}
        namespaces.add_hosts_entries(names)
        if is_user:
            with suppress(OSError):  # a link is useful without ssh
                copy_ssh_configuration()
        near, far, make_backend = self._make_ends(request)
        self._near_netlink = near
        ends = ((NEAR, near, addresses.near, addresses.near_ipv6), (FAR, far, addresses.far, addresses.far_ipv6))
        for end, netlink, address, ipv6 in ends:
            namespaces.join(self._networks[end], namespaces.CLONE_NEWNET)  # sysctls apply to the current namespace
            if request.emulator == SWITCH:
                set_offloads(interfaces.DEVICE, is_merging=True)
            interfaces.configure(netlink, address, ipv6, addresses.prefix, request.spec.mtu_bytes)
        if request.emulator != TUN or request.spec.is_bare:
            interfaces.introduce(near, far, addresses.far, addresses.far_ipv6)
            interfaces.introduce(far, near, addresses.near, addresses.near_ipv6)
        self._backend = make_backend()
        if not is_user:
            for link in namespaces.register_netns_names(self._networks[NEAR], self._networks[FAR]):
                self._resources.callback(link.unlink, missing_ok=True)
        self._user = self._keep(os.open("/proc/self/ns/user", os.O_RDONLY)) if is_user else -1
        self._mount = self._keep(os.open("/proc/self/ns/mnt", os.O_RDONLY))

    def _make_ends(self, request: LinkRequest) -> tuple[IPRoute, IPRoute, Callable[[], _Backend]]:
        """Make the namespaces, their devices and what connects them.

        Returns the netlink sockets of near and far, and what makes the backend when the devices are configured.
        """
        is_tun = request.emulator == TUN and not request.spec.is_bare
        devices, netlinks = [], []
        for end in (NEAR, FAR):
            self._networks[end] = self._keep(namespaces.new_network())
            netlinks.append(self._resources.enter_context(IPRoute()))
            if is_tun:
                devices.append(self._keep(open_tun(interfaces.DEVICE)))
        near, far = netlinks
        if is_tun:
            return near, far, lambda: _TunBackend(Emulator(devices[0], devices[1]), near, far)
        if request.emulator == SWITCH:
            switch = self._resources.enter_context(
                make_switch(self._networks[NEAR], self._networks[FAR], request.spec.mtu_bytes)
            )
            return near, far, lambda: SwitchBackend(request.spec, switch, near, far)
        interfaces.make_veth(near, self._networks[FAR])
        return near, far, lambda: KernelBackend(request.spec, near, far)

    def _keep(self, descriptor: int) -> int:
        self._resources.callback(os.close, descriptor)
        return descriptor

    @property
    def descriptors(self) -> list[int]:
        """Descriptors of the namespaces: mount, near, far, and user if there is one."""
        kept = [self._mount, self._networks[NEAR], self._networks[FAR]]
        return kept if self._user < 0 else [*kept, self._user]

    def serve(self, control: socket.socket) -> None:
        """Serve requests until the owner closes `control`."""
        handlers: dict[str, Callable[..., object]] = {
            "start": self._start,
            "accounting": self._backend.accounting,
            "socket": self._socket,
            "bottleneck": self._bottleneck,
            "device": lambda: interfaces.mtu_and_queue(self._near_netlink, interfaces.DEVICE),
        }
        while True:
            self._backend.run(control.fileno())
            message = control.recv(MAX_MESSAGE_BYTES)
            if not message:
                return
            name, *arguments = pickle.loads(message)
            answer = handlers[name](*arguments)
            if isinstance(answer, socket.socket):
                socket.send_fds(control, [pickle.dumps(None)], [answer.fileno()])
                answer.close()
            else:
                control.send(pickle.dumps(answer))

    def _start(self, seed: int | None) -> None:
        if seed is not None:
            self._spec = replace(self._spec, seed=seed)
        gc.collect()
        self._backend.start(self._spec)

    def _bottleneck(self) -> Bottleneck | None:
        return self._backend.bottleneck() if isinstance(self._backend, SwitchBackend) else None

    def _socket(self, end: str, family: int, kind: int, protocol: int) -> socket.socket:
        namespaces.join(self._networks[end], namespaces.CLONE_NEWNET)
        return socket.socket(family, kind, protocol)

    def close(self) -> None:
        """Terminate the processes inside and release every resource."""
        namespaces.terminate_processes(list(self._networks.values()))
        self._resources.close()


def serve_link(control: socket.socket, is_user: bool) -> None:
    """Make the link that is requested, pickled, on standard input, and serve it until its owner is gone.

    This process has called `namespaces.enter_private_namespaces` already, which returned `is_user`.
    """
    owner = os.getppid()

    def end_if_orphaned(_signal: int, _frame: FrameType | None) -> None:
        # The signal also arrives when only the thread that started this process has exited, and a child of the owner
        # may keep the socket open. Raising here could interrupt the clean-up, so the socket is shut down instead.
        if os.getppid() != owner:
            with suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)

    signal.signal(signal.SIGTERM, end_if_orphaned)
    namespaces.set_parent_death_signal(signal.SIGTERM)
    process = LinkProcess()
    try:
        with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the owner has exited
            try:
                process.make(pickle.load(sys.stdin.buffer), is_user)
            except NettoolError as error:
                control.send(pickle.dumps(error))
                return
            except OSError as error:
                refusal = NettoolError(f"this machine does not permit a part of a link ({error.strerror}): run as root")
                control.send(pickle.dumps(refusal))
                return
            socket.send_fds(control, [pickle.dumps(None)], process.descriptors)
            namespaces.raise_scheduling_priority()
            gc.freeze()
            gc.disable()
            process.serve(control)
    finally:
        process.close()
