"""Serves several listeners and several senders in one process: a bounded number of sessions, one thread each.

The thread that runs the server only waits, so that it handles a signal at once. It cannot end the sessions itself,
because a channel belongs to one thread. It sets `closing` instead, which every session takes as its `cancel`; each
session then ends in its own thread and cleans up there.

No peer can use up all sessions, and a session that cannot be started, for lack of threads or descriptors, is refused
without harm to the others.
"""

import errno
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic

from toolkit.channel import Address, Channel, Listener, Transport, TransportOptions
from toolkit.errors import NettoolError, PeerClosedError, UnreachableError
from toolkit.security.admission import Method
from toolkit.transfer.messages import ErrorMessage, ErrorReason

_PORT_ATTEMPTS = 20
_MAX_REFUSALS = 8  # concurrent refusals with a reason, which take a round trip; further channels are aborted
_SHORTAGE_PAUSE_S = 0.1
_CANCEL_INTERVAL_S = 0.25
_SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN))


@dataclass(frozen=True, slots=True)
class ConcurrencyLimits:
    """How many sessions a server runs at a time.

    sessions:          in all. Each takes a thread, two or more sockets, and memory as docs/protocol.md says.
    sessions_per_host: of one host (Address.network): half of them, so that one host leaves room for others. This
                       machine is exempt: a user who can run programs on it can do more harm than this.
    """

    sessions: int = 32
    sessions_per_host: int = 16


class _Over:
    """Follows the last end that a server waits for."""


def listen_on_one_port(
    transports: Mapping[str, Transport], address: Address, options: TransportOptions
) -> dict[str, Listener]:
    """A listener for each transport, all on the same port. Raises UnreachableError.

    For port 0 the system chooses a port that is free for the first transport. If it is taken for another transport,
    this function tries again with a new one.
    """
    for attempt in range(_PORT_ATTEMPTS):
        listeners: dict[str, Listener] = {}
        port = address.port
        try:
            for name, transport in transports.items():
                listeners[name] = transport.listen(Address(address.host, port), options)
                port = listeners[name].address.port
        except BaseException as error:
            for listener in listeners.values():
                listener.close()
            is_taken = isinstance(error, UnreachableError) and listeners and not address.port
            if not is_taken or attempt == _PORT_ATTEMPTS - 1:
                raise
        else:
            break
    return listeners


class SessionServer:
    """Runs `session` for each accepted channel, in a thread of its own.

    listeners:     by name
    session:       called with the name of the listener and the channel, which it closes. Returns for how many seconds
                   to wait for a sender that comes back after its connection was lost, 0 if it is back, None if it does
                   not come back. An exception that it raises ends the server
    concurrency:   how many may run at a time; the peers of further channels are refused with a reason
    limit:         how many sessions to run in all; None for no limit. A session and those that continue it count as
                   one. If its sender does not come back in time, and nobody else does either, the server ends
    cancel:        lets `run` return when it is set
    limit_refusal: the reason that the peers of channels beyond `limit` receive

    Call order: start -> run -> close; `run` starts what is not started. Several threads may call `run`, and any of them
    `close`.
    """

    def __init__(
        self,
        listeners: Mapping[str, Listener],
        session: Callable[[str, Channel], float | None],
        concurrency: ConcurrencyLimits = ConcurrencyLimits(),
        limit: int | None = None,
        limit_refusal: str = "the receiver accepts no more sessions; start it again",
        cancel: threading.Event | None = None,
    ) -> None:
        self.closing = threading.Event()
        self._listeners = listeners
        self._session = session
        self._concurrency = concurrency
        self._limit_refusal = limit_refusal
        self._cancel = cancel
        self._lock = threading.Lock()  # guards the next four, and the time to give up
        self._remaining = self._unended = limit
        self._hosts: Counter[bytes] = Counter()  # running sessions by Address.network
        self._running: set[threading.Thread] = set()
        self._give_up_s: float | None = None  # when to stop waiting for a sender to come back, if none does
        # What sessions have returned or raised. An exception and _Over end `run`, and stay for its other callers.
        self._ended: SimpleQueue[BaseException | float | _Over | None] = SimpleQueue()
        self._refusals = threading.BoundedSemaphore(_MAX_REFUSALS)
        self._is_started = False

    def start(self) -> None:
        """Accept sessions from now on. Idempotent."""
        if self._is_started:
            return
        self._is_started = True
        for name, listener in self._listeners.items():
            threading.Thread(target=self._accept, args=(name, listener), daemon=True).start()

    def run(self) -> None:
        """Accept until the last session has ended, `cancel` is set, or another thread has closed the server.

        Raises what a listener or a session raises.
        """
        self.start()
        while True:
            try:
                end = self._ended.get(timeout=self._wait_s())
            except Empty:
                if self._gives_up():
                    self._ended.put(_Over())  # others may wait without a limit since a session was running
                    return
                if self._cancel is not None and self._cancel.is_set():
                    return
                continue
            if isinstance(end, BaseException | _Over):
                self._ended.put(end)
                if isinstance(end, _Over):
                    return
                raise end

    def fail(self, error: Exception) -> None:
        """End `run`, which raises this error."""
        self._ended.put(error)

    def _wait_s(self) -> float | None:
        """How long to wait for the end of a session, or for one to begin; None without limit."""
        longest_s = None if self._cancel is None else _CANCEL_INTERVAL_S
        with self._lock:
            if self._running or self._give_up_s is None:
                return longest_s
            left_s = max(0.0, self._give_up_s - monotonic())
            return left_s if longest_s is None else min(left_s, longest_s)

    def _gives_up(self) -> bool:
        """Let nobody in any more if a sender has not come back in time; return whether that is so."""
        with self._lock:
            if self._running or self._give_up_s is None or monotonic() < self._give_up_s:
                return False
            self._remaining = 0
            return True

    def close(self, grace_s: float) -> None:
        """Stop listening, cancel the sessions, and wait for them for at most `grace_s`. Idempotent."""
        self.closing.set()
        for listener in self._listeners.values():
            listener.close()
        deadline_s = monotonic() + grace_s
        with self._lock:
            running = list(self._running)
        try:
            for thread in running:
                thread.join(max(0.0, deadline_s - monotonic()))
        finally:
            self._ended.put(_Over())

    def _accept(self, name: str, listener: Listener) -> None:
        try:
            while True:
                try:
                    channel = listener.accept()
                except OSError as error:
                    if error.errno not in _SHORTAGES:
                        raise
                    self.closing.wait(_SHORTAGE_PAUSE_S)
                    continue
                if channel is not None:
                    self._start(name, channel)
        except BaseException as error:
            if not (self.closing.is_set() and isinstance(error, PeerClosedError)):
                self._ended.put(error)

    def _start(self, name: str, channel: Channel) -> None:
        with self._lock:
            refusal = self._refusal(channel) or self._start_session(name, channel)
        if not refusal:
            return
        if self._refusals.acquire(blocking=False):
            try:
                threading.Thread(target=self._refuse, args=(channel, refusal), daemon=True).start()
            except RuntimeError:  # no thread is left to say so
                self._refusals.release()
            else:
                return
        channel.abort()

    def _refusal(self, channel: Channel) -> str:
        """Why a new session is refused; "" if it is not.

        A sender may come back before this end has noticed that its connection was lost.
        """
        peer = channel.peer
        most = self._concurrency
        if self.closing.is_set():
            return "the receiver is shutting down"
        if self._remaining is not None and self._remaining <= 0 and not _continues_a_session(channel):
            return self._limit_refusal
        if len(self._running) >= most.sessions:
            return f"the receiver is busy with {most.sessions} sessions; try again later"
        if self._hosts[peer.network] >= most.sessions_per_host and not peer.is_loopback:
            return f"the receiver is busy with {most.sessions_per_host} sessions of this host; try again later"
        return ""

    def _start_session(self, name: str, channel: Channel) -> str:
        """Start the thread of a session; returns why it is refused if the system has no thread left."""
        thread = threading.Thread(target=self._run_session, args=(name, channel), daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return "the receiver has no thread left; try again later"
        if self._remaining is not None:
            self._remaining -= 1
        self._hosts[channel.peer.network] += 1
        self._running.add(thread)
        self._give_up_s = None
        return ""

    def _run_session(self, name: str, channel: Channel) -> None:
        end: BaseException | float | None = None
        try:
            end = self._session(name, channel)
        except BaseException as error:
            end = error
        finally:
            with self._lock:
                self._running.discard(threading.current_thread())
                self._hosts -= Counter([channel.peer.network])
                self._count_end(end)
                is_last = self._unended == 0
            self._ended.put(end)
            if is_last:
                self._ended.put(_Over())

    def _count_end(self, end: BaseException | float | None) -> None:
        if self._remaining is None or self._unended is None or isinstance(end, BaseException):
            return
        if end is None:
            self._unended -= 1
            return
        self._remaining += 1
        if end > 0:
            self._give_up_s = max(self._give_up_s or 0.0, monotonic() + end)

    def _refuse(self, channel: Channel, reason: str) -> None:
        try:
            channel.send_message(ErrorMessage(ErrorReason.REFUSED, reason).encode())
            channel.close()
        except NettoolError:  # the peer has gone
            channel.abort()
        finally:
            self._refusals.release()


def _continues_a_session(channel: Channel) -> bool:
    return channel.admitted.method is Method.RECONNECTION
