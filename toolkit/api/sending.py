"""Sending: connect over UDP or TCP, run a session, and go on after a lost connection."""

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit import transfer
from toolkit.api.callbacks import CallbackError, callers_code, callers_code_before_session
from toolkit.api.connecting import AUTO, connect, load
from toolkit.api.credentials import check_before_connecting, check_connected, credential_of
from toolkit.api.events import EventCallback, Reconnecting, SessionBegan, SessionProgress, UdpBlocked, file_done
from toolkit.api.reconnecting import with_reconnects
from toolkit.api.results import SessionResult
from toolkit.api.resume_key import resume_key
from toolkit.api.target import parse_target
from toolkit.channel import Address, Channel, TransportOptions
from toolkit.errors import NettoolError, PeerClosedError, UsageError
from toolkit.output_files import check_output
from toolkit.security.admission import Method
from toolkit.security.credentials import Credential, ReconnectionCredential
from toolkit.security.reconnections import RECONNECTION_KEY_BYTES
from toolkit.security.rehearsal import rehearse
from toolkit.transfer import Comparison, Progress, SendOptions, TransferResult
from toolkit.transfer.digest import algorithm_by_name
from toolkit.transfer.result import EntryResult
from toolkit.transfer.scan import STANDARD_INPUT, Content, NamedSource, Source, check_sources
from toolkit.transfer.session import closing

Sources = str | os.PathLike[str] | Sequence[Source] | Mapping[str, Content]

DEFAULT_RETRY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRequest:
    """Everything about a transfer but its credential.

    sources:    what to send
    receiver:   where to
    transport:  a name of the registry, or AUTO
    options:    how to send; those of reconnecting and resuming, and the callbacks, are set here
    connection: how to connect; the credential is set here
    is_open:    whether the receiver may be one that proves nothing
    retry_s:    how long to try to reconnect after a lost connection; 0 if a source can be read only once
    on_event:   gets UdpBlocked, SessionBegan, SessionProgress, FileDone and Reconnecting
    cancel:     ends the session when it is set
    is_detailed: whether SessionProgress and FileDone are wanted; for the former, trees are scanned a second time
    through:    given each channel, returns the one to use in its place
    """

    sources: Sequence[Source]
    receiver: Address
    transport: str = AUTO
    options: SendOptions = SendOptions()  # noqa: RUF009 - frozen
    connection: TransportOptions = TransportOptions()  # noqa: RUF009 - frozen
    is_open: bool = False
    retry_s: float = DEFAULT_RETRY_S
    on_event: EventCallback | None = None
    cancel: threading.Event | None = None
    is_detailed: bool = True
    through: Callable[[Channel], Channel] = lambda channel: channel

    def check(self) -> None:
        """Raises UsageError for sources that cannot be sent, an unknown digest, and a log that would replace a file."""
        algorithm_by_name(self.options.digest)
        check_sources(self.sources, self.options.recursive, self.options.stream_name)
        if self.connection.qlog is not None:
            from toolkit.transports.udp.qlog_files import MARK, OPTION  # imports numpy, which TCP does not need

            paths = [source for source in self.sources if not isinstance(source, NamedSource)]
            check_output(Path(self.connection.qlog), OPTION, MARK, inputs=paths)

    def run(self, credential: Credential) -> SessionResult:
        """Send. Raises NettoolError as `send` does, and what `on_event` raises."""
        rehearse(credential.method)
        load(self.transport, self.connection)
        import toolkit.transfer.sender  # noqa: F401 - only senders need it

        retry_s = 0.0 if any(map(_is_read_once, self.sources)) else self.retry_s
        options = replace(
            self.options,
            resume_key=resume_key(self.receiver.host),
            reconnection_key=secrets.token_bytes(RECONNECTION_KEY_BYTES) if retry_s > 0 else None,
        )
        try:
            return with_reconnects(_Sessions(self, credential, options), retry_s, self._pause)
        except CallbackError as failed:
            error = failed.error
        raise error  # outside of the `except` block, which would give it another context

    def _pause(self, lost: PeerClosedError, pause_s: float) -> None:
        """Wait before reconnecting. Raises the error if the caller does not want that."""
        if self.on_event is not None:
            self.on_event(Reconnecting(lost, pause_s))
        if self.cancel is None:
            time.sleep(pause_s)
        elif self.cancel.wait(pause_s):
            raise lost


class _Sessions:
    """The sessions of a transfer: the first, and those that continue it."""

    def __init__(self, request: SendRequest, credential: Credential, options: SendOptions) -> None:
        self._request, self._credential, self._options = request, credential, options
        self._count = 0

    def __call__(self, is_reconnected: bool, on_accepted: Callable[[], None]) -> SessionResult:
        """Connect, and run a session; see reconnecting.Attempt."""
        request = self._request
        self._count += 1
        proof = self._proof(is_reconnected)
        # The clock starts here because every module is loaded by now.
        cpu_s, started_s = time.process_time(), time.monotonic()
        options = replace(request.connection, credential=proof)
        used, channel = connect(request.transport, request.receiver, options)
        try:
            channel = request.through(channel)
        except BaseException:
            channel.abort()
            raise
        with closing(channel):
            if request.transport == AUTO and used == "tcp":
                self._tell(channel, UdpBlocked(request.receiver))
            is_proven = check_connected(proof, channel.peer, is_open=request.is_open)
            self._tell(channel, SessionBegan(self._count, used, channel.peer, channel.statistics, is_proven))

            def result_of(result: TransferResult) -> SessionResult:
                seconds, cpu_seconds = time.monotonic() - started_s, time.process_time() - cpu_s
                return SessionResult.of(used, channel, result, seconds, cpu_seconds)

            try:
                return result_of(self._send(channel, is_reconnected, on_accepted))
            except NettoolError as error:
                if isinstance(error.result, TransferResult):
                    error.result = result_of(error.result)
                raise

    def _send(self, channel: Channel, is_reconnected: bool, on_accepted: Callable[[], None]) -> TransferResult:
        """Run a session; one that goes on after a lost connection leaves out what has arrived."""
        request = self._request
        options = replace(self._options, on_accepted=on_accepted)
        progress = None
        if request.on_event is not None and request.is_detailed:
            options = replace(options, on_result=self._on_result)
            progress = self._on_progress
        if is_reconnected:
            options = replace(options, is_reconnected=True, update=options.update or Comparison.TIME)
        return transfer.send(channel, request.sources, options, progress, request.cancel)

    def _proof(self, is_reconnected: bool) -> Credential:
        """What to present: the first session uses up a code, so the reconnection key takes its place.

        In plaintext others could have read that key, and the receiver does not keep it.
        """
        key = self._options.reconnection_key
        given, is_plaintext = self._credential, self._request.connection.plaintext
        if key is None or not is_reconnected or is_plaintext or given.method is not Method.CODE:
            return given
        return ReconnectionCredential(key)

    def _tell(self, channel: Channel, event: SessionBegan | UdpBlocked) -> None:
        if self._request.on_event is not None:
            with callers_code_before_session(channel):
                self._request.on_event(event)

    def _on_progress(self, progress: Progress) -> None:
        assert self._request.on_event is not None
        with callers_code():
            self._request.on_event(SessionProgress(self._count, progress))

    def _on_result(self, result: EntryResult) -> None:
        assert self._request.on_event is not None
        if (event := file_done(self._count, result)) is not None:
            with callers_code():
                self._request.on_event(event)


def send(
    sources: Sources,
    to: str | Address,
    *,
    transport: str = AUTO,
    code: str | None = None,
    key: str | os.PathLike[str] | None = None,
    is_open: bool = False,
    options: SendOptions = SendOptions(),  # noqa: B008 - frozen
    retry_s: float = DEFAULT_RETRY_S,
    connection: TransportOptions = TransportOptions(),  # noqa: B008 - frozen
    on_event: EventCallback | None = None,
    cancel: threading.Event | None = None,
) -> SessionResult:
    """Send files to a receiver, and return once it has verified every one and stored it under its name.

    >>> received = {}
    >>> with toolkit.Receiver(received, port=0) as receiver:
    ...     result = toolkit.send({"notes.txt": b"hello"}, receiver.address)
    >>> received, result.file_count, result.size_bytes
    ({'notes.txt': b'hello'}, 1, 5)

    sources:    a path, or several; or a mapping from the name at the receiver to a path, to bytes, or to a file object
                in binary mode, which is read from where it stands. Directories are sent with everything in them; "-" is
                the standard input
    to:         "HOST", "HOST:PORT", or an Address
    transport:  "auto" is UDP, and TCP where UDP does not get through; or "tcp", "udp", or a name of the registry
    code, key:  the code that the receiver shows, or the key file that it has. Off loopback it takes one of them, or
                `is_open`: the receiver asks for neither, and anybody on the path may answer in its place
    options:    digest, what of directories is sent, what the receiver has already
    retry_s:    how long to try to reconnect after the connection is lost; a file object is never sent twice
    connection: congestion control, rate, number of TCP connections, time limits
    on_event:   gets UdpBlocked, SessionBegan, SessionProgress, FileDone and Reconnecting of toolkit.events
    cancel:     ends the session when it is set

    Raises UsageError for arguments that make no sense, UnreachableError if nobody answers, CredentialRequiredError if a
    code or a key is missing, TransferError for most that happens later; once everything else is sent, RefusedError for
    an entry that was refused, and VerificationError for one that arrived damaged. `error.result` is the SessionResult
    so far, or None.
    """
    request = SendRequest(
        sources=named_sources(sources),
        receiver=parse_target(to) if isinstance(to, str) else Address(*to),
        transport=transport,
        options=replace(options, recursive=True),
        connection=connection,
        is_open=is_open,
        retry_s=retry_s,
        on_event=on_event,
        cancel=cancel,
    )
    request.check()
    credential = credential_of(code, key, is_open=is_open)
    check_before_connecting(credential, request.receiver, is_open=is_open)
    return request.run(credential)


def named_sources(sources: Sources) -> Sequence[Source]:
    """Return the sources one by one. Raises UsageError for content without a name."""
    if isinstance(sources, Mapping):
        return [NamedSource(name, content) for name, content in sources.items()]
    if isinstance(sources, (str, os.PathLike)):
        return [sources]
    if _is_content(sources) or any(map(_is_content, several := list(sources))):
        raise UsageError("bytes and file objects need a name: send({'name': content}, ...)")
    return several


def _is_content(source: object) -> bool:
    return isinstance(source, (bytes, bytearray, memoryview)) or hasattr(source, "read")


def _is_read_once(source: Source) -> bool:
    if isinstance(source, NamedSource):
        return hasattr(source.content, "read")
    return os.fspath(source) == STANDARD_INPUT
