"""`send` and `receive` with each other over loopback: what they take, what they tell, and how they fail."""

import asyncio
import io
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import toolkit
from tests.support.background import PATIENCE_S, Background, wait_until
from toolkit import aio, events
from toolkit.api.credentials import UnprovenReceiverError, credential_of
from toolkit.api.destinations import OfferedFile
from toolkit.api.results import SessionResult
from toolkit.api.sending import SendRequest
from toolkit.channel import Address, Channel
from toolkit.errors import (
    CredentialRequiredError,
    PeerClosedError,
    RefusedError,
    TransferError,
    UnreachableError,
    UsageError,
)
from toolkit.forwarding_channel import ForwardingChannel
from toolkit.security.key_file import write_new_key
from toolkit.transfer.messages import EntryStatus
from toolkit.transfer.result import DeliveryStatus
from toolkit.transfer.scan import NamedSource
from toolkit.transfer.session_server import SessionServer
from toolkit.transports.keep_alive import KEEP_ALIVES


@pytest.fixture(params=["auto", "tcp"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_everything_that_can_be_sent_arrives_as_bytes(tmp_path: Path, transport: str) -> None:
    (tmp_path / "old name").write_bytes(b"from a path")
    sources = {"a": b"bytes", "b": io.BytesIO(b"from a file object"), "c": tmp_path / "old name"}
    received: dict[str, bytes] = {}
    with toolkit.Receiver(received, port=0) as receiver:
        result = toolkit.send(sources, receiver.address, transport=transport)
    assert received == {"a": b"bytes", "b": b"from a file object", "c": b"from a path"}
    assert result.transport == ("udp" if transport == "auto" else "tcp")
    assert [file.name for file in result.files] == ["a", "b", "c"]
    assert (result.file_count, result.size_bytes) == (3, 34)
    assert result.goodput_bps > 0


def test_a_tree_arrives_in_a_directory_that_is_made(tmp_path: Path) -> None:
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "a").write_bytes(b"x")
    ended: list[events.SessionEnded] = []
    with toolkit.Receiver(tmp_path / "in", port=0, sessions=1, on_event=only(events.SessionEnded, ended)) as receiver:
        toolkit.send(tmp_path / "tree", str(receiver.address))
        receiver.wait()
        result = receiver.result()
    assert result is not None
    assert [file.path for file in result.files] == [tmp_path / "in" / "tree" / "below" / "a"]
    assert (tmp_path / "in" / "tree" / "below" / "a").read_bytes() == b"x"
    assert [event.result for event in ended] == [result]


def test_the_path_of_a_file_is_exact_where_its_name_is_fit_for_a_terminal(tmp_path: Path) -> None:
    name = "a\u200bb"
    with toolkit.Receiver(tmp_path, port=0, sessions=1) as receiver:
        toolkit.send({name: b"x"}, receiver.address)
        receiver.wait()
        result = receiver.result()
    assert result is not None
    assert [(file.name, file.path) for file in result.files] == [("a\\u200bb", tmp_path / name)]


def test_one_file_arrives_in_a_file_object() -> None:
    into = io.BytesIO()
    with toolkit.Receiver(into, port=0, sessions=1) as receiver:
        toolkit.send({"a": b"content"}, receiver.address)
    assert into.getvalue() == b"content"


@pytest.mark.parametrize(("kind", "count"), [(object, 0), (io.RawIOBase, None)])
def test_a_file_object_that_takes_nothing_has_not_got_the_file(kind: type, count: int | None) -> None:
    class Full(kind):  # type: ignore[misc]  # both are classes
        def write(self, _: memoryview) -> int | None:
            return count

    with (
        toolkit.Receiver(Full(), port=0, sessions=1) as receiver,
        pytest.raises(TransferError, match=r"a: the receiver cannot store it .*no room"),
    ):
        toolkit.send({"a": b"content"}, receiver.address)


def test_a_file_that_stays_in_a_full_disks_buffer_has_not_arrived() -> None:
    into = open("/dev/full", "wb", buffering=1 << 16)  # noqa: SIM115 - its close fails, too
    with (
        toolkit.Receiver(into, port=0, sessions=1) as receiver,
        pytest.raises(TransferError, match=r"a: no space left on the receiver's disk"),
    ):
        toolkit.send({"a": b"content"}, receiver.address)
    with pytest.raises(OSError, match="No space left"):
        into.close()


def test_both_ends_tell_what_happens() -> None:
    sent: list[events.Event] = []
    received: list[events.Event] = []
    with toolkit.Receiver({}, port=0, sessions=1, on_event=received.append) as receiver:
        toolkit.send({"a": b"content"}, receiver.address, on_event=sent.append)
        receiver.wait()
    assert [type(event).__name__ for event in sent if not isinstance(event, events.SessionProgress)] == [
        "SessionBegan",
        "FileDone",
    ]
    last = [event for event in sent if isinstance(event, events.SessionProgress)][-1].progress
    assert (last.size_bytes, last.total_bytes) == (7, 7)
    assert [type(event).__name__ for event in received if not isinstance(event, events.SessionProgress)] == [
        "Listening",
        "SessionBegan",
        "FileDone",
        "SessionEnded",
    ]
    for told in (sent, received):
        (done,) = (event for event in told if isinstance(event, events.FileDone))
        assert (done.name, done.status, done.size_bytes) == ("a", EntryStatus.OK, 7)


def test_details_are_left_out_for_those_who_show_none() -> None:
    told: list[events.Event] = []
    with toolkit.Receiver({}, port=0, sessions=1, on_event=told.append, is_detailed=False) as receiver:
        toolkit.send({"a": b"content"}, receiver.address)
        receiver.wait()
    assert [type(event).__name__ for event in told] == ["Listening", "SessionBegan", "SessionEnded"]


class TestHooks:
    @staticmethod
    def transfer(into: Path, **hooks: Any) -> SessionResult:
        with toolkit.Receiver(into, port=0, **hooks) as receiver:
            try:
                return toolkit.send({"a.txt": b"a", "b.bin": b"b"}, receiver.address)
            except RefusedError as error:
                result = error.result
        assert isinstance(result, SessionResult)
        return result

    @pytest.mark.parametrize(("answer", "reason"), [(False, "the receiver does not want it"), ("no text", "no text")])
    def test_a_file_may_be_refused(self, tmp_path: Path, answer: bool | str, reason: str) -> None:
        offered: list[OfferedFile] = []

        def accept(file: OfferedFile) -> bool | str:
            offered.append(file)
            return answer if file.name.endswith(".txt") else True

        result = self.transfer(tmp_path, accept=accept)
        assert [(entry.name, entry.status, entry.reason) for entry in result.undelivered] == [
            ("a.txt", DeliveryStatus.REFUSED, reason)
        ]
        assert [path.name for path in tmp_path.iterdir()] == ["b.bin"]
        assert [(file.name, file.size_bytes, file.is_directory) for file in offered] == [
            ("a.txt", 1, False),
            ("b.bin", 1, False),
        ]

    def test_a_file_may_get_another_name(self, tmp_path: Path) -> None:
        paths: list[Path | None] = []

        def on_event(event: events.Event) -> None:
            if isinstance(event, events.SessionEnded):
                paths.extend(file.path for file in event.result.files)

        self.transfer(tmp_path, rename=lambda file: f"by/{file.name[-3:]}/{file.name}", on_event=on_event)
        assert (tmp_path / "by" / "txt" / "a.txt").read_bytes() == b"a"
        assert paths == [tmp_path / "by" / "txt" / "a.txt", tmp_path / "by" / "bin" / "b.bin"]

    def test_a_new_name_that_the_system_cannot_encode_costs_its_file_only(self, tmp_path: Path) -> None:
        result = self.transfer(tmp_path, rename=lambda file: file.name.replace(".txt", "\ud800"))
        assert [(entry.name, entry.status) for entry in result.undelivered] == [("a.txt", DeliveryStatus.REFUSED)]
        assert [path.name for path in tmp_path.iterdir()] == ["b.bin"]

    def test_what_a_hook_raises_fails_the_session_and_reaches_its_caller(self) -> None:
        def accept(_: OfferedFile) -> bool:
            raise LookupError("a bug")

        address: list[Address] = []
        receiving = Background(lambda: toolkit.receive({}, port=0, accept=accept, on_event=listening(address)))
        with pytest.raises(TransferError):
            toolkit.send({"a": b"x"}, wait_for(address), retry_s=0)
        with pytest.raises(LookupError, match="a bug"):
            receiving.outcome()


def test_an_error_at_either_end_has_the_result_so_far() -> None:
    class Full(dict[str, bytes]):
        def __setitem__(self, name: str, content: bytes) -> None:
            if name == "b":
                raise OSError(28, "No space left on device")
            super().__setitem__(name, content)

    ended: list[events.SessionEnded] = []
    with toolkit.Receiver(Full(), port=0, sessions=1, on_event=only(events.SessionEnded, ended)) as receiver:
        with pytest.raises(TransferError) as sent:
            toolkit.send({"a": b"x", "b": b"y"}, receiver.address)
        receiver.wait()
        with pytest.raises(TransferError) as received:
            receiver.result()
    for error in (sent.value, received.value):
        assert isinstance(error.result, SessionResult)
        assert [file.name for file in error.result.files] == ["a"]
    assert ended[0].error is received.value
    assert ended[0].result is received.value.result


class TestCredentials:
    def test_a_key_file_admits_and_nothing_else_does(self, tmp_path: Path) -> None:
        write_new_key(tmp_path / "key")
        received: dict[str, bytes] = {}
        with toolkit.Receiver(received, port=0, key=tmp_path / "key") as receiver:
            with pytest.raises(CredentialRequiredError):
                toolkit.send({"a": b"x"}, receiver.address)
            toolkit.send({"a": b"x"}, receiver.address, key=tmp_path / "key")
        assert received == {"a": b"x"}

    def test_a_code_admits_one_session_and_another_one_follows(self) -> None:
        told: list[events.Event] = []
        with toolkit.Receiver({}, port=0, code_uses=1, on_event=told.append) as receiver:
            first = receiver.code
            assert first is not None
            toolkit.send({"a": b"x"}, receiver.address, code=first)
            second = receiver.code
        assert second not in (None, first)
        assert [event.code for event in told if isinstance(event, events.Listening | events.NewCode)] == [first, second]
        assert [event.is_used for event in told if isinstance(event, events.CodeEnded)] == [True]
        assert not any(first.partition("-")[2] in repr(event) for event in told)
        assert str(told[0]).endswith(f"code: {first}")

    def test_off_loopback_nothing_is_not_enough(self) -> None:
        with pytest.raises(UnprovenReceiverError, match="a key, or is_open"):
            toolkit.send({"a": b"x"}, "192.0.2.7")

    def test_two_credentials_are_one_too_many(self) -> None:
        with pytest.raises(UsageError, match="use one of code, key and is_open"):
            toolkit.send({"a": b"x"}, "127.0.0.1", code="7-ocean-brick-lunar", is_open=True)


class TestRefusals:
    """What a caller learns before anybody is connected to."""

    @pytest.mark.parametrize(
        "source", [b"content", bytearray(b"content"), io.BytesIO(b"content"), ["a path", b"content"]]
    )
    def test_content_needs_a_name(self, source: Any) -> None:
        with pytest.raises(UsageError, match="need a name"):
            toolkit.send(source, "127.0.0.1")

    def test_there_is_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such file"):
            toolkit.send([tmp_path / "missing"], "127.0.0.1")

    @pytest.mark.parametrize(("into", "message"), [(5, "not to int"), (io.StringIO(), "binary mode, not to StringIO")])
    def test_there_is_nowhere_to_put_files(self, into: Any, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            toolkit.receive(into)

    def test_a_file_is_no_directory(self, tmp_path: Path) -> None:
        (tmp_path / "film").touch()
        with pytest.raises(UsageError, match=r"film: a file, not a directory; choose another directory$"):
            toolkit.receive(tmp_path / "film", port=0)

    def test_no_directory_has_a_name_with_a_null_byte(self) -> None:
        with pytest.raises(UsageError, match=r"^a\\x00b: not a valid name; choose another directory$"):
            toolkit.receive("a\0b", port=0)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"transports": []}, "needs a transport"),
            ({"transports": "sctp"}, "unknown transport sctp"),
            ({"sessions": 0}, "cannot run 0 sessions"),
            ({"code_uses": 0}, "cannot admit 0 sessions"),
        ],
    )
    def test_a_receiver_would_receive_nothing(self, settings: Any, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            toolkit.Receiver({}, **settings)

    @pytest.mark.parametrize("rate_bps", [0, -1.0, 7.9, float("nan")])
    def test_no_rate_is_none_that_could_be_kept_to(self, rate_bps: float) -> None:
        with pytest.raises(UsageError, match="is too low to send anything"):
            toolkit.TransportOptions(rate_bps=rate_bps)

    @pytest.mark.parametrize("rate_bps", [1.1e15, float("inf")])
    def test_no_rate_is_higher_than_any_that_a_user_may_write(self, rate_bps: float) -> None:
        with pytest.raises(UsageError, match="omit `rate_bps`"):
            toolkit.TransportOptions(rate_bps=rate_bps)

    def test_an_unknown_digest_is_found_before_connecting(self) -> None:
        began: list[events.Event] = []
        with toolkit.Receiver({}, port=0, on_event=only(events.SessionBegan, began)) as receiver:
            with pytest.raises(UsageError, match="unknown digest 'md5'"):
                toolkit.send({"a": b"x"}, receiver.address, options=toolkit.SendOptions(digest="md5"))
            toolkit.send({"a": b"x"}, receiver.address)
        assert [event.session for event in began if isinstance(event, events.SessionBegan)] == [1]

    def test_a_file_object_takes_no_second_session(self) -> None:
        with pytest.raises(UsageError, match="one file of one session"):
            toolkit.Receiver(io.BytesIO())

    def test_a_mapping_does_not_take_more_than_the_memory_of_this_machine(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("toolkit.api.receiving.MEMORY_BYTES", 8)
        with toolkit.Receiver({}, port=0) as receiver, pytest.raises(RefusedError, match=r"^a: "):
            toolkit.send({"a": b"x" * 9}, receiver.address)


def test_a_receiver_is_waited_for_in_its_block_only() -> None:
    receiver = toolkit.Receiver({}, port=0)
    with pytest.raises(RuntimeError, match="in its `with` block only"):
        receiver.wait()
    with receiver:
        pass
    with pytest.raises(RuntimeError, match="in its `with` block only"):  # nobody would come any more
        receiver.wait()


def test_a_receiver_whose_block_another_thread_leaves_is_not_waited_for_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, in_wait = SessionServer.run, threading.Barrier(3, timeout=PATIENCE_S)

    def announced(server: SessionServer) -> None:
        in_wait.wait()
        run(server)

    monkeypatch.setattr(SessionServer, "run", announced)
    with toolkit.Receiver({}, port=0) as receiver:
        waiting = [Background(receiver.wait) for _ in range(2)]
        in_wait.wait()
    for call in waiting:
        call.outcome()


def test_every_thread_that_waits_for_a_receiver_sees_its_end() -> None:
    with toolkit.Receiver({}, port=0, sessions=2) as receiver:
        waiting = [Background(receiver.wait) for _ in range(2)]
        for name in ("a", "b"):
            toolkit.send({name: b"x"}, receiver.address)
        for call in waiting:
            call.outcome()
        receiver.wait()  # again: it has ended


class TestCancelling:
    def test_a_receiver_that_nobody_has_come_to(self) -> None:
        cancel = threading.Event()
        receiving = Background(lambda: toolkit.receive({}, port=0, cancel=cancel, on_event=lambda _: cancel.set()))
        with pytest.raises(TransferError, match="no sender has begun"):
            receiving.outcome()

    def test_a_sender_in_the_middle(self) -> None:
        cancel = threading.Event()

        class Endless:
            def read(self, size: int) -> bytes:
                cancel.set()
                return bytes(size)

        with toolkit.Receiver({}, port=0) as receiver, pytest.raises(TransferError, match="was cancelled"):
            toolkit.send({"a": Endless()}, receiver.address, cancel=cancel)


class TestLostConnections:
    """The first connection breaks off as soon as it is there."""

    @pytest.fixture
    def lossy(self) -> Iterator[toolkit.Receiver]:
        sessions = itertools.count()

        def through(channel: Channel) -> Channel:
            if next(sessions) == 0:
                channel.abort()
            return channel

        with toolkit.Receiver({}, port=0, through=through) as receiver:
            yield receiver

    def test_the_sender_comes_back_and_says_so(self, lossy: toolkit.Receiver) -> None:
        told: list[events.Event] = []
        result = toolkit.send({"a": b"x"}, lossy.address, on_event=told.append)
        assert result.file_count == 1
        assert [event.session for event in told if isinstance(event, events.SessionBegan)] == [1, 2]
        assert len([event for event in told if isinstance(event, events.Reconnecting)]) == 1

    def test_a_file_object_is_not_read_a_second_time(self, lossy: toolkit.Receiver) -> None:
        told: list[events.Event] = []
        with pytest.raises(PeerClosedError):
            toolkit.send({"a": io.BytesIO(b"x")}, lossy.address, on_event=told.append)
        assert not any(isinstance(event, events.Reconnecting) for event in told)

    def test_a_caller_who_cancels_meanwhile_does_not_come_back(self, lossy: toolkit.Receiver) -> None:
        cancel = threading.Event()
        told: list[events.Event] = []

        def on_event(event: events.Event) -> None:
            told.append(event)
            if isinstance(event, events.Reconnecting):
                cancel.set()

        with pytest.raises(PeerClosedError):
            toolkit.send({"a": b"x"}, lossy.address, on_event=on_event, cancel=cancel)
        assert [event.session for event in told if isinstance(event, events.SessionBegan)] == [1]

    def test_a_connection_that_was_given_up_and_begins_late_does_not_disturb_the_one_that_the_sender_waits_for(
        self,
    ) -> None:
        """The receiver loses session 1. Its sender gives up session 2, whose thread is held until session 3 runs."""
        numbers, has_started, has_begun, has_ended = itertools.count(1), *(threading.Event() for _ in range(3))
        ended: dict[int, events.SessionEnded] = {}

        class Receiving(ForwardingChannel):
            def __init__(self, channel: Channel) -> None:
                super().__init__(channel)
                self._number, self._messages = next(numbers), 0

            def receive(self, *arguments: Any, **named: Any) -> bytes | None:
                if self._messages and self._number == 1:
                    raise PeerClosedError("the connection was lost")
                if self._messages and self._number == 3:
                    has_begun.set()
                    assert has_ended.wait(PATIENCE_S)
                message = super().receive(*arguments, **named)
                self._messages += message is not None
                return message

        class GivenUp(ForwardingChannel):
            def receive(self, *_: Any, **__: Any) -> bytes | None:
                assert has_started.wait(PATIENCE_S)
                raise PeerClosedError("the connection was lost")

        def on_event(event: events.Event) -> None:
            if isinstance(event, events.SessionBegan) and event.session == 2:
                has_started.set()
                assert has_begun.wait(PATIENCE_S)
            if isinstance(event, events.SessionEnded):
                ended[event.session] = event
                if event.session == 2:
                    has_ended.set()

        received: dict[str, bytes] = {}
        connections = itertools.count(1)
        with toolkit.Receiver(
            received,
            port=0,
            transports="tcp",
            code_uses=1,
            sessions=1,
            retry_s=PATIENCE_S,
            through=Receiving,
            on_event=on_event,
        ) as receiver:
            request = SendRequest(
                sources=[NamedSource("a", b"x")],
                receiver=receiver.address,
                transport="tcp",
                retry_s=PATIENCE_S,
                through=lambda channel: GivenUp(channel) if next(connections) == 2 else channel,
            )
            request.run(credential_of(receiver.code, None, is_open=False))
            wait_until(lambda: len(ended) == 3, "every session has ended")
            assert {session: event.is_continued for session, event in ended.items()} == {1: False, 2: True, 3: False}
            receiver.wait()
            result = receiver.result()
        assert result is not None
        assert result.file_count == 1
        assert received == {"a": b"x"}


class TestAsync:
    def test_both_ends_in_one_loop(self) -> None:
        async def main() -> tuple[dict[str, bytes], int]:
            loop = asyncio.get_running_loop()
            address: asyncio.Future[Address] = loop.create_future()
            received: dict[str, bytes] = {}

            async def on_event(event: events.Event) -> None:
                if isinstance(event, events.Listening):
                    address.set_result(event.address)

            async def accept(file: OfferedFile) -> bool:
                await asyncio.sleep(0)
                return file.name == "a"

            receiving = asyncio.create_task(aio.receive(received, port=0, on_event=on_event, accept=accept))
            sent = await aio.send({"a": b"x"}, await address)
            assert (await receiving).file_count == sent.file_count
            return received, sent.file_count

        assert asyncio.run(main()) == ({"a": b"x"}, 1)

    def test_a_cancelled_call_has_ended_when_it_says_so(self) -> None:
        async def main() -> None:
            listening = asyncio.Event()
            receiving = asyncio.create_task(aio.receive({}, port=0, on_event=lambda _: listening.set(), cancel=None))
            await listening.wait()
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving

        KEEP_ALIVES.start()  # which does not end
        before = threading.active_count()
        asyncio.run(main())
        # Threads of an earlier test may end meanwhile.
        wait_until(lambda: threading.active_count() <= before, "the threads of the receiver have ended")

    def test_a_receiver_whose_wait_is_cancelled_goes_on(self) -> None:
        async def main() -> dict[str, bytes]:
            received: dict[str, bytes] = {}
            ended: list[events.SessionEnded] = []

            async def on_event(event: events.Event) -> None:
                if isinstance(event, events.SessionEnded):
                    ended.append(event)

            async with aio.Receiver(received, port=0, sessions=1, on_event=on_event) as receiver:
                waiting = asyncio.create_task(receiver.wait())
                await asyncio.sleep(0)  # it waits
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                await aio.send({"a": b"x"}, receiver.address)
                await receiver.wait()
            assert [event.result for event in ended] == [receiver.result()]
            return received

        assert asyncio.run(main()) == {"a": b"x"}

    def test_a_task_that_waits_for_a_receiver_ends_with_its_block(self) -> None:
        async def main() -> None:
            async with aio.Receiver({}, port=0) as receiver:
                waiting = asyncio.create_task(receiver.wait())
                await asyncio.sleep(0)
            await waiting

        asyncio.run(main())

    def test_a_receiver_that_cannot_listen_says_so(self) -> None:
        async def main() -> None:
            async with aio.Receiver({}, port=0) as first:
                with pytest.raises(UnreachableError, match="in use"):
                    async with aio.Receiver({}, port=first.address.port):
                        pass
            with pytest.raises(RuntimeError, match="in its `with` block only"):
                await aio.Receiver({}, port=0).wait()

        asyncio.run(main())

    @pytest.mark.parametrize("is_hook", [True, False])
    def test_no_stop_iteration_is_lost(self, is_hook: bool) -> None:
        class Raising(dict[str, bytes]):
            def __setitem__(self, *_: object) -> None:
                raise StopIteration

        def raising(_: OfferedFile) -> bool:
            raise StopIteration

        async def main() -> None:
            address: asyncio.Future[Address] = asyncio.get_running_loop().create_future()

            def on_event(event: events.Event) -> None:
                if isinstance(event, events.Listening):
                    address.set_result(event.address)

            accept = raising if is_hook else None
            receiving = asyncio.create_task(aio.receive(Raising(), port=0, accept=accept, on_event=on_event))
            with pytest.raises(TransferError, match="its program has raised an error"):
                await aio.send({"a": b"x"}, await address)
            with pytest.raises(RuntimeError, match="raised StopIteration"):
                await asyncio.wait_for(receiving, PATIENCE_S)

        asyncio.run(main())

    def test_a_call_that_is_cancelled_twice_ends_its_session_all_the_same(self) -> None:
        async def main() -> None:
            is_listening, may_go_on = asyncio.Event(), asyncio.Event()

            async def on_event(_: events.Event) -> None:
                is_listening.set()
                await may_go_on.wait()

            receiving = asyncio.create_task(aio.receive({}, port=0, on_event=on_event))
            await is_listening.wait()
            for _ in range(2):
                receiving.cancel()
                for _ in range(10):  # as many turns of the loop as its end could take
                    await asyncio.sleep(0)
            assert not receiving.done()
            may_go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await receiving

        asyncio.run(main())


def only(kind: type, into: list[Any]) -> events.EventCallback:
    """Collect the events of one kind."""
    return lambda event: into.append(event) if isinstance(event, kind) else None


def listening(into: list[Address]) -> events.EventCallback:
    """Keep where a receiver listens."""
    return lambda event: into.append(event.address) if isinstance(event, events.Listening) else None


def wait_for(address: list[Address]) -> Address:
    wait_until(lambda: bool(address), "the receiver listens")
    return address[0]
