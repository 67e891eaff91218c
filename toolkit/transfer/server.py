"""One process, several listeners, several senders at once: a thread for each session, and a bound on them.

The thread that runs the server only waits, so that a signal finds it at once. It cannot reach into the
sessions, since a channel belongs to one thread; so it sets `closing`, which a session takes as its `cancel`,
and what then unwinds in the session's own thread leaves nothing half done.
"""

import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from time import monotonic

from toolkit.channel import Address, Channel, Listener, Transport, TransportOptions
from toolkit.errors import NettoolError, PeerClosedError, UnreachableError
from toolkit.transfer.messages import ErrorMessage, ErrorReason

_PORT_ATTEMPTS = 20
_MAX_REFUSALS = 8  # being told why takes a moment; beyond that many at a time, who is refused is only cut off


def listen_on_one_port(
    transports: Mapping[str, Transport], address: Address, options: TransportOptions
) -> dict[str, Listener]:
    """A listener a transport, all on the same port, also where that is 0. Raises UnreachableError.

    The system picks a port that is free for the first transport; where another has it taken, a new one is
    asked for.
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
    """Hands each accepted channel to `session`, in a thread of its own.

    session:       called with the listener's name and the channel, which it ends; what it raises ends the
                   server
    max_sessions:  how many may run at a time; who comes on top of that is refused, and told so
    limit:         how many sessions there are in all; None for no end

    Call order: run -> close.
    """

    def __init__(
        self,
        listeners: Mapping[str, Listener],
        session: Callable[[str, Channel], None],
        max_sessions: int,
        limit: int | None = None,
    ) -> None:
        self.closing = threading.Event()
        self._listeners = listeners
        self._session = session
        self._max_sessions = max_sessions
        self._lock = threading.Lock()  # of the next two
        self._left = limit
        self._running: set[threading.Thread] = set()
        self._ended: SimpleQueue[BaseException | None] = SimpleQueue()
        self._limit = limit
        self._refusals = threading.BoundedSemaphore(_MAX_REFUSALS)

    def run(self) -> None:
        """Accept until the last session has ended. Raises what a listener or a session raises."""
        for name, listener in self._listeners.items():
            threading.Thread(target=self._accept, args=(name, listener), daemon=True).start()
        ended = 0
        while ended != self._limit:
            failure = self._ended.get()
            if failure is not None:
                raise failure
            ended += 1

    def close(self, grace_s: float) -> None:
        """Stop listening, interrupt the sessions, and wait for them, at most `grace_s`. Idempotent."""
        self.closing.set()
        for listener in self._listeners.values():
            listener.close()
        deadline = monotonic() + grace_s
        with self._lock:
            running = list(self._running)
        for thread in running:
            thread.join(max(0.0, deadline - monotonic()))

    def _accept(self, name: str, listener: Listener) -> None:
        try:
            while True:
                channel = listener.accept()
                if channel is not None:
                    self._start(name, channel)
        except BaseException as error:
            if not (self.closing.is_set() and isinstance(error, PeerClosedError)):
                self._ended.put(error)

    def _start(self, name: str, channel: Channel) -> None:
        with self._lock:
            if self.closing.is_set():
                refusal = "the receiver is going away"
            elif self._left == 0:
                refusal = "the receiver takes no more sessions; start it without --once"
            elif len(self._running) >= self._max_sessions:
                refusal = f"the receiver is busy with {self._max_sessions} sessions; try again later"
            else:
                refusal = ""
                if self._left is not None:
                    self._left -= 1
                thread = threading.Thread(target=self._serve, args=(name, channel), daemon=True)
                self._running.add(thread)
                thread.start()
        if refusal and self._refusals.acquire(blocking=False):
            threading.Thread(target=self._refuse, args=(channel, refusal), daemon=True).start()
        elif refusal:
            channel.abort()

    def _serve(self, name: str, channel: Channel) -> None:
        failure: BaseException | None = None
        try:
            self._session(name, channel)
        except BaseException as error:
            failure = error
        finally:
            with self._lock:
                self._running.discard(threading.current_thread())
            self._ended.put(failure)

    def _refuse(self, channel: Channel, text: str) -> None:
        try:
            channel.send_message(ErrorMessage(ErrorReason.REFUSED, text).encode())
            channel.close()
        except NettoolError:  # it has gone away by itself
            channel.abort()
        finally:
            self._refusals.release()
