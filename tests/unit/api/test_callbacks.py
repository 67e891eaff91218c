"""What hooks and callbacks raise ends the session, and reaches the caller unchanged.

Some of it is what a channel or a disk raises, too, and must not be taken for that.
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest

import toolkit
from tests.support.background import PATIENCE_S, Background
from toolkit import events
from toolkit.api.events import Event, EventCallback
from toolkit.channel import Address, Channel
from toolkit.errors import NettoolError, PeerClosedError, RefusedError, TransferError, UnreachableError
from toolkit.transports.registry import transport

FAILED = "failed: its program has raised an error"
ERRORS = [
    OSError(28, "no space of its own"),
    PeerClosedError("its own connection was lost"),
    RefusedError("its own"),
    StopIteration(),
    LookupError("a bug"),
]


@pytest.fixture(params=ERRORS, ids=lambda error: type(error).__name__)
def error(request: pytest.FixtureRequest) -> Exception:
    found: Exception = request.param
    found.__traceback__ = None
    return found


def raising(error: Exception, when: type | None = None) -> Callable[[Any], Any]:
    """A hook that raises this error, as an `on_event` at an event of this kind."""

    def hook(argument: Any) -> None:
        if when is None or isinstance(argument, when):
            raise error

    return hook


class RaisingMapping(dict[str, bytes]):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def __setitem__(self, *_: object) -> None:
        raise self._error


class Paused:
    """A file object that has something to read, and then pauses until the end of the test."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self._content = [b"content"]

    def read(self, _size: int) -> bytes:
        if self._content:
            return self._content.pop()
        self.may_end.wait(PATIENCE_S)
        return b""


class Receiving:
    """A call of `receive` in another thread."""

    def __init__(self, into: Any, on_event: EventCallback = lambda _: None, **hooks: Any) -> None:
        self._address: list[Address] = []
        self._is_listening = threading.Event()
        self._on_event = on_event
        self.call = Background(lambda: toolkit.receive(into, port=0, on_event=self._on, **hooks))

    def _on(self, event: Event) -> None:
        if isinstance(event, events.Listening):
            self._address.append(event.address)
            self._is_listening.set()
        self._on_event(event)

    @property
    def address(self) -> Address:
        assert self._is_listening.wait(PATIENCE_S)
        return self._address[0]

    def error(self) -> BaseException | None:
        self.call.join(PATIENCE_S)
        return self.call.error


@pytest.mark.parametrize("transport_name", ["tcp", "udp"])
@pytest.mark.parametrize(
    "hooks",
    [
        lambda error: {"accept": raising(error)},
        lambda error: {"rename": raising(error)},
        lambda error: {"on_event": raising(error, events.SessionBegan)},
        lambda error: {"on_event": raising(error, events.SessionProgress)},
        lambda error: {"on_event": raising(error, events.FileDone)},
    ],
    ids=["accept", "rename", "SessionBegan", "SessionProgress", "FileDone"],
)
def test_what_a_receivers_hook_raises_reaches_its_caller_and_the_sender_learns_that_it_failed(
    hooks: Callable[[Exception], dict[str, Any]], error: Exception, transport_name: str
) -> None:
    receiving = Receiving({}, **hooks(error))
    with pytest.raises(TransferError, match="the receiver " + FAILED):
        toolkit.send({"a": b"x"}, receiving.address, transport=transport_name)
    assert receiving.error() is error


def test_the_error_of_a_hook_keeps_its_cause_and_context() -> None:
    def accept(_: object) -> bool:
        try:
            raise KeyError("first")
        except KeyError:
            raise LookupError("second")  # noqa: B904 - what a hook may do

    receiving = Receiving({}, accept=accept)
    with pytest.raises(TransferError):
        toolkit.send({"a": b"x"}, receiving.address)
    found = receiving.error()
    assert isinstance(found, LookupError)
    assert (found.__cause__, type(found.__context__)) == (None, KeyError)


@pytest.mark.parametrize("error", ERRORS[1:], ids=lambda error: type(error).__name__)
def test_a_mapping_that_raises_reaches_its_caller(error: Exception) -> None:
    receiving = Receiving(RaisingMapping(error))
    with pytest.raises(TransferError, match="the receiver " + FAILED):
        toolkit.send({"a": b"x"}, receiving.address)
    assert receiving.error() is error


def test_a_new_name_that_is_no_text_reaches_its_caller() -> None:
    receiving = Receiving({}, rename=lambda _: 7)
    with pytest.raises(TransferError, match="the receiver " + FAILED):
        toolkit.send({"a": b"x"}, receiving.address)
    assert isinstance(receiving.error(), TypeError)


@pytest.mark.parametrize("event", [events.SessionBegan, events.SessionProgress])
def test_what_a_senders_callback_raises_reaches_its_caller_and_the_receiver_learns_that_it_failed(
    event: type, error: Exception
) -> None:
    source, receiving = Paused(), Receiving({})
    with pytest.raises(type(error)) as raised:
        toolkit.send({"a": source}, receiving.address, on_event=raising(error, event))
    source.may_end.set()
    assert raised.value is error
    assert "the sender " + FAILED in str(receiving.error())


def test_what_a_sender_is_told_of_a_file_may_raise(error: Exception) -> None:
    with toolkit.Receiver({}, port=0) as receiver, pytest.raises(type(error)) as raised:
        toolkit.send({"a": b"x"}, receiver.address, on_event=raising(error, events.FileDone))
    assert raised.value is error


def test_a_callback_that_is_told_of_blocked_udp_may_raise(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Channel] = []  # so that none is closed only because nobody has it

    class BlockedUdp:
        def __init__(self, name: str) -> None:
            self._name = name

        def connect(self, *arguments: Any) -> Channel:
            if self._name == "udp":
                raise UnreachableError("silence")
            kept.append(transport(self._name).connect(*arguments))
            return kept[-1]

    monkeypatch.setattr("toolkit.api.connecting.transport", BlockedUdp)
    receiving = Receiving({})
    with pytest.raises(type(error)) as raised:
        toolkit.send({"a": b"x"}, receiving.address, on_event=raising(error, events.UdpBlocked))
    assert raised.value is error
    assert "the sender " + FAILED in str(receiving.error())


@pytest.mark.parametrize("event", [events.CodeEnded, events.NewCode, events.SessionEnded])
def test_what_an_event_of_the_receiver_raises_ends_the_receiver_and_not_the_session(
    event: type, error: Exception
) -> None:
    received: dict[str, bytes] = {}
    with toolkit.Receiver(received, port=0, code_uses=1, on_event=raising(error, event)) as receiver:
        toolkit.send({"a": b"x"}, receiver.address, code=receiver.code)
        with pytest.raises(type(error)) as raised:
            receiver.wait()
    assert raised.value is error
    assert received == {"a": b"x"}


def test_a_channel_for_which_there_is_no_other_is_aborted() -> None:
    kept: list[Channel] = []

    def through(channel: Channel) -> Channel:
        kept.append(channel)
        raise LookupError("a bug")

    with toolkit.Receiver({}, port=0, through=through) as receiver:
        with pytest.raises(NettoolError):
            toolkit.send({"a": b"x"}, receiver.address, retry_s=0)
        with pytest.raises(LookupError, match="a bug"):
            receiver.wait()
