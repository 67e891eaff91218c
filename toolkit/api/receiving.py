"""Receiving: listen, admit senders, run their sessions, and wait for those that come back."""

import itertools
import os
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from toolkit import transfer
from toolkit.api.admission import AdmissionRule
from toolkit.api.callbacks import CallbackError, callers_code, callers_code_before_session
from toolkit.api.destinations import AcceptHook, Into, RenameHook, SessionDestination, check_into, prepare_directory
from toolkit.api.events import (
    CodeEnded,
    Event,
    EventCallback,
    Listening,
    NewCode,
    SessionBegan,
    SessionEnded,
    SessionProgress,
    file_done,
)
from toolkit.api.results import SessionResult
from toolkit.api.returning import ReturningSender, Whereabouts
from toolkit.api.target import DEFAULT_PORT
from toolkit.channel import Address, Channel, TransportOptions
from toolkit.errors import NettoolError, PeerAbortedError, PeerClosedError, TransferError, UsageError
from toolkit.security.code_admission import CodeEnd
from toolkit.security.code_words import Code
from toolkit.security.key_file import read_key
from toolkit.security.rehearsal import rehearse
from toolkit.transfer import TransferResult
from toolkit.transfer.handed_over import SingleFile
from toolkit.transfer.receiver import ReceiveOptions
from toolkit.transfer.result import EntryResult, Progress
from toolkit.transfer.session import closing
from toolkit.transfer.session_server import ConcurrencyLimits, SessionServer, listen_on_one_port
from toolkit.transports.registry import transport

LOOPBACK = "127.0.0.1"
BOTH = ("tcp", "udp")
DEFAULT_RETRY_S = 10.0
"""Longer than a sender tries: the receiver may notice the loss first."""
SHUTDOWN_GRACE_S = 5.0
"""How long running sessions may clean up when a receiver is closed."""
NOT_ENTERED = "a receiver listens in its `with` block only"
MEMORY_BYTES = 1 << 30
"""What a session may bring into a mapping, unless the limits say otherwise."""


class Receiver:
    """Receives sessions, several at once, while its `with` block runs.

    >>> received = {}
    >>> with toolkit.Receiver(received, port=0) as receiver:
    ...     for name in ("a", "b"):
    ...         result = toolkit.send({name: b"content of " + name.encode()}, receiver.address)
    >>> received
    {'a': b'content of a', 'b': b'content of b'}

    into:       a directory, which is made if it is missing; or a mapping, which gets each file as bytes, by its name;
                or, for one session, a file object in binary mode, which gets the content of a single file. Nothing
                gets there before it is verified
    bind, port: where to listen: by default for this machine only. "0.0.0.0" is every IPv4 address of this machine, "::"
                also every IPv6 address; with port 0 the system chooses one
    transports: which to accept, on the same port
    key:        admit senders that have this key file
    is_open:    admit anyone who can reach the port. Without it and `key`, a receiver off loopback asks for a code
    code_uses:  how many sessions a code admits; with it, a receiver on loopback asks for one, too
    sessions:   how many to run in all; None for no limit. One and those that continue it count as one
    options:    what may be replaced, which names and modes are taken, limits. A mapping takes 1 GiB a session unless
                they say otherwise
    accept:     asked about each file and directory: True takes it; False, or a reason, refuses it
    rename:     asked for the name of each, relative to `into`; the directories in it are made
    retry_s:    how long to wait for a sender whose connection was lost, if `sessions` is limited
    connection: time limits, number of TCP connections, segmentation offload, whether plaintext is allowed
    concurrency: how many sessions may run at a time
    on_event:   gets Listening, NewCode, CodeEnded, SessionBegan, SessionProgress, FileDone and SessionEnded of
                toolkit.events, from the threads of receiver and sessions
    cancel:     lets `wait` return when it is set; the sessions that run end with the block
    is_detailed: whether SessionProgress and FileDone are wanted
    rule:       whom to admit, in place of `key`, `is_open` and `code_uses`
    through:    given each channel, returns the one to use in its place

    Call order: with -> wait -> result. `address` and `code` may be read in the block only.
    """

    def __init__(
        self,
        into: Into,
        *,
        bind: str = LOOPBACK,
        port: int = DEFAULT_PORT,
        transports: str | Sequence[str] = BOTH,
        key: str | os.PathLike[str] | None = None,
        is_open: bool = False,
        code_uses: int | None = None,
        sessions: int | None = None,
        options: ReceiveOptions = ReceiveOptions(),  # noqa: B008 - frozen
        accept: AcceptHook | None = None,
        rename: RenameHook | None = None,
        retry_s: float = DEFAULT_RETRY_S,
        connection: TransportOptions = TransportOptions(),  # noqa: B008 - frozen
        concurrency: ConcurrencyLimits = ConcurrencyLimits(),  # noqa: B008 - frozen
        on_event: EventCallback | None = None,
        cancel: threading.Event | None = None,
        is_detailed: bool = True,
        rule: AdmissionRule | None = None,
        through: Callable[[Channel], Channel] = lambda channel: channel,
    ) -> None:
        """Raises UsageError."""
        check_into(into, takes_many=sessions != 1)
        names = [transports] if isinstance(transports, str) else transports
        if not names:
            raise UsageError("a receiver needs a transport to listen on: tcp, udp, or both")
        if sessions is not None and sessions < 1:
            raise UsageError(f"a receiver cannot run {sessions} sessions: give 1 or more, or None for no limit")
        self._into, self._single, self._accept, self._rename = into, SingleFile(), accept, rename
        if isinstance(into, MutableMapping) and options.limits.max_bytes is None:
            options = replace(options, limits=replace(options.limits, max_bytes=MEMORY_BYTES))
        self._options = options
        self._on_event, self._on_detail, self._cancel = on_event, on_event if is_detailed else None, cancel
        self._rule = rule or AdmissionRule(
            bind,
            key=None if key is None else read_key(Path(key)),
            is_open=is_open,
            code_uses=code_uses,
            is_once=sessions == 1,
            on_code=self._on_code,
            on_code_ended=self._on_code_ended,
        )
        self._wanted = Address(bind, port)
        self._transports = {name: transport(name) for name in names}
        self._connection = replace(connection, admission=self._rule.admission)
        self._concurrency, self._sessions, self._through = concurrency, sessions, through
        self._retry_s = retry_s if sessions is not None else 0.0
        self._numbers = itertools.count(1)
        self._last: SessionResult | Exception | None = None
        self._open = ExitStack()
        self._server: SessionServer | None = None
        self._bound: Address | None = None

    @property
    def address(self) -> Address:
        """Where it listens, as given to `bind`, with the port that the system chose if port 0 was given."""
        if self._bound is None:
            raise RuntimeError(NOT_ENTERED)
        return self._bound

    @property
    def code(self) -> str | None:
        """What the next sender has to give; None if it needs nothing, or if no other is admitted."""
        return None if self._rule.code is None else str(self._rule.code)

    def __enter__(self) -> Self:
        """Listen, and accept sessions from now on. Raises UsageError, UnreachableError."""
        if isinstance(self._into, (str, os.PathLike)):
            prepare_directory(Path(self._into), is_durable=self._options.durable)
        rehearse(self._rule.admission.method)
        listeners = listen_on_one_port(self._transports, self._wanted, self._connection)
        self._server = SessionServer(
            listeners,
            self._run_session,
            self._concurrency,
            limit=self._sessions,
            cancel=self._cancel,
        )
        self._open.callback(self._server.close, SHUTDOWN_GRACE_S)
        try:
            self._bound = self._rule.check_bound([listener.address for listener in listeners.values()])
            self._tell(Listening(self._bound, tuple(self._transports), self.code))
            self._server.start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening, and end the sessions that run."""
        self._open.close()

    def wait(self) -> None:
        """Wait until the last session has ended, `cancel` is set, or another thread has left the block.

        Raises what has ended the receiver itself.
        """
        if self._server is None or self._server.closing.is_set():
            raise RuntimeError(NOT_ENTERED)
        self._server.run()

    def result(self) -> SessionResult | None:
        """The result of the session that has ended last; None before. Raises what it failed with."""
        if isinstance(self._last, Exception):
            raise self._last
        return self._last

    def receive_one(self) -> SessionResult:
        """Listen until a session has ended, and return its result: the whole of `receive`. Raises as that does."""
        with self:
            self.wait()
        result = self.result()
        if result is None:
            raise TransferError("no sender has begun a session, or it was cancelled")
        return result

    def _run_session(self, transport_name: str, channel: Channel) -> float | None:
        """Run one session, and close its channel. What `through` and SessionEnded raise ends the receiver.

        Return for how long to wait for a sender that comes back after a lost connection; None if it does not.
        """
        assert self._server is not None
        try:
            channel = self._through(channel)
        except BaseException:
            channel.abort()
            raise
        number, is_closing = next(self._numbers), self._server.closing
        sender = ReturningSender(channel, self._rule.reconnections)
        destination = SessionDestination(self._into, self._options, self._single, self._accept, self._rename)
        session = _Session(number, transport_name, channel, destination, self._on_detail)
        error: Exception | None = None
        try:
            with closing(channel, self._connection.idle_timeout_s):
                with callers_code_before_session(channel):
                    self._tell(SessionBegan(number, transport_name, channel.peer, channel.statistics))
                session.run(replace(self._options, on_begin=sender.on_begin), is_closing)
        except Exception as failure:
            error = failure
        is_lost = isinstance(error, PeerClosedError) and not isinstance(error, PeerAbortedError)
        whereabouts = sender.end(is_lost=is_lost)
        if isinstance(error, CallbackError):
            error = error.error
        if error is not None and is_closing.is_set():
            return None
        is_continued = whereabouts is Whereabouts.BACK
        retry_s = self._retry_s if whereabouts is Whereabouts.AWAITED else 0.0
        result = session.result
        if isinstance(error, NettoolError) and isinstance(error.result, TransferResult):
            error.result = result
        if not is_continued:
            self._last = error or result
        self._tell(SessionEnded(number, result, error, is_continued, retry_s))
        return 0.0 if is_continued else retry_s or None

    def _tell(self, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(event)

    def _on_code(self, code: Code) -> None:
        if self._bound is not None:  # else Listening will name it
            self._tell_of_code(NewCode(str(code)))

    def _on_code_ended(self, code: Code, end: CodeEnd) -> None:
        self._tell_of_code(CodeEnded(code.nameplate, is_used=end is CodeEnd.USED))

    def _tell_of_code(self, event: NewCode | CodeEnded) -> None:
        """Tell the program of a code. What `on_event` raises ends the receiver, and not the handshake that uses it."""
        try:
            self._tell(event)
        except Exception as error:
            if self._server is None:
                raise
            self._server.fail(error)


class _Session:
    """One session of a receiver; `result` is what it has brought so far, once `run` has returned or failed."""

    def __init__(
        self,
        number: int,
        transport_name: str,
        channel: Channel,
        destination: SessionDestination,
        on_detail: EventCallback | None,
    ) -> None:
        self._number, self._transport_name, self._channel = number, transport_name, channel
        self._destination, self._on_detail = destination, on_detail
        self._result = TransferResult("")
        self._seconds = self._cpu_seconds = 0.0

    def run(self, options: ReceiveOptions, cancel: threading.Event) -> None:
        """Receive. Raises what transfer.receive does."""
        started_cpu_s, started_s = time.process_time(), time.monotonic()
        progress = None
        if self._on_detail is not None:
            options = replace(options, on_result=self._on_result)
            progress = self._on_progress
        try:
            self._result = transfer.receive(self._channel, self._destination.open, options, progress, cancel)
        except NettoolError as error:
            if isinstance(error.result, TransferResult):
                self._result = error.result
            raise
        finally:
            self._seconds, self._cpu_seconds = time.monotonic() - started_s, time.process_time() - started_cpu_s

    @property
    def result(self) -> SessionResult:
        """The result so far."""
        files = [
            file._replace(path=None if file.path is None else self._destination.path_of(file.path))
            for file in self._result.delivered
        ]
        result = replace(self._result, delivered=files)
        return SessionResult.of(self._transport_name, self._channel, result, self._seconds, self._cpu_seconds)

    def _on_progress(self, progress: Progress) -> None:
        assert self._on_detail is not None
        with callers_code():
            self._on_detail(SessionProgress(self._number, progress))

    def _on_result(self, result: EntryResult) -> None:
        assert self._on_detail is not None
        if (event := file_done(self._number, result)) is not None:
            with callers_code():
                self._on_detail(event)


def receive(
    into: Into,
    *,
    bind: str = LOOPBACK,
    port: int = DEFAULT_PORT,
    transports: str | Sequence[str] = BOTH,
    key: str | os.PathLike[str] | None = None,
    is_open: bool = False,
    options: ReceiveOptions = ReceiveOptions(),  # noqa: B008 - frozen
    accept: AcceptHook | None = None,
    rename: RenameHook | None = None,
    retry_s: float = DEFAULT_RETRY_S,
    connection: TransportOptions = TransportOptions(),  # noqa: B008 - frozen
    on_event: EventCallback | None = None,
    cancel: threading.Event | None = None,
) -> SessionResult:
    """Receive one session, and return once everything in it is verified and stored; the arguments are Receiver's.

    In this example another thread is the sender, as soon as the receiver listens; usually that is another program.

    >>> def on_event(event):
    ...     if isinstance(event, toolkit.events.Listening):
    ...         threading.Thread(target=toolkit.send, args=({"notes.txt": b"hello"}, event.address)).start()
    >>> received = {}
    >>> result = toolkit.receive(received, port=0, on_event=on_event)
    >>> received, result.file_count
    ({'notes.txt': b'hello'}, 1)

    Raises UsageError for arguments that make no sense, UnreachableError if the address cannot be bound,
    VerificationError and TransferError if the session failed, and what a hook raises. What this end refused is no
    error: `undelivered` of the result lists it.
    """
    receiver = Receiver(
        into,
        bind=bind,
        port=port,
        transports=transports,
        key=key,
        is_open=is_open,
        sessions=1,
        options=options,
        accept=accept,
        rename=rename,
        retry_s=retry_s,
        connection=connection,
        on_event=on_event,
        cancel=cancel,
    )
    return receiver.receive_one()
