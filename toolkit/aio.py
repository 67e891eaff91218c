"""The API for asyncio: the same arguments, results and errors as in `toolkit`, awaited.

    from toolkit import aio

    result = await aio.send({"notes.txt": b"hello"}, "192.0.2.7", code="7-ocean-brick-lunar")

Each call has a thread of its own, so that the event loop stays free. `on_event`, `on_record`, `accept` and `rename` are
called in the event loop, and may be coroutine functions; the transfer waits for them.

A cancelled call ends its session as an interrupted one ends, tells the peer, and cleans up; only then is
asyncio.CancelledError raised. Until it has connected, that takes the rest of the connect timeout at most; a campaign
finishes the trial that runs.
"""

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from toolkit.api import comparing, receiving, sending
from toolkit.api.results import SessionResult
from toolkit.channel import Address

__all__ = ["Receiver", "compare", "receive", "send"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_CALLBACKS = ("accept", "on_event", "on_record", "rename")


def _awaited(function: Callable[_P, _T]) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """The same function as a coroutine function."""

    @functools.wraps(function)
    async def awaited(*arguments: _P.args, **settings: _P.kwargs) -> _T:
        cancel = cast("threading.Event | None", settings.get("cancel")) or threading.Event()
        settings["cancel"] = cancel
        call = functools.partial(function, *arguments, **_in_loop(settings))
        return await _in_thread(call, cancel)

    return awaited


send = _awaited(sending.send)
receive = _awaited(receiving.receive)
compare = _awaited(comparing.compare)


def _with_arguments_of(
    function: Callable[_P, object],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, _P], None]]:
    """The decorator of an `__init__` that takes what `function` takes, for type checkers."""
    del function
    return lambda init: init


class AsyncReceiver:
    """`toolkit.Receiver` for asyncio: the same arguments, and it receives while its `async with` block runs.

    >>> async def main():
    ...     received = {}
    ...     async with toolkit.aio.Receiver(received, port=0, sessions=2) as receiver:
    ...         for name in ("a", "b"):
    ...             await toolkit.aio.send({name: b"content"}, receiver.address)
    ...         await receiver.wait()
    ...     return receiver.result().file_count, received
    >>> asyncio.run(main())
    (1, {'a': b'content', 'b': b'content'})

    Make it in the event loop, in which callbacks are called. A `wait` that is cancelled ends nothing but itself; the
    sessions that run end with the block.
    """

    @_with_arguments_of(receiving.Receiver)
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        """Raises UsageError."""
        self._receiver = receiving.Receiver(*arguments, **_in_loop(settings))
        self._ended: asyncio.Future[None] | None = None

    @property
    def address(self) -> Address:
        """See toolkit.Receiver."""
        return self._receiver.address

    @property
    def code(self) -> str | None:
        """See toolkit.Receiver."""
        return self._receiver.code

    def result(self) -> SessionResult | None:
        """See toolkit.Receiver."""
        return self._receiver.result()

    async def __aenter__(self) -> Self:
        """Listen, and accept sessions from now on. Raises UsageError, UnreachableError."""
        try:
            await _in_thread(self._receiver.__enter__, threading.Event())
        except asyncio.CancelledError:
            await _in_thread(self._receiver.__exit__, threading.Event())
            raise
        executor = ThreadPoolExecutor(1, "nettool")
        self._ended = asyncio.get_running_loop().run_in_executor(executor, _as_coroutine(self._receiver.wait))
        executor.shutdown(wait=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, and end the sessions that run."""
        await _in_thread(self._receiver.__exit__, threading.Event())
        if self._ended is not None:
            await asyncio.wait([self._ended])
            self._ended.exception()  # `wait` has raised it

    async def wait(self) -> None:
        """Wait until the last session or the block has ended, or `cancel` is set.

        Raises what has ended the receiver itself.
        """
        if self._ended is None:
            raise RuntimeError(receiving.NOT_ENTERED)
        await asyncio.shield(self._ended)


Receiver = AsyncReceiver


def _in_loop(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with callbacks that are called in the running loop, whichever thread calls them."""
    loop = asyncio.get_running_loop()

    def bridge(callback: Callable[..., Any]) -> Callable[..., Any]:
        async def call(argument: Any) -> Any:
            answer = callback(argument)
            return await answer if inspect.isawaitable(answer) else answer

        return lambda argument: asyncio.run_coroutine_threadsafe(call(argument), loop).result()

    bridged = {name: bridge(settings[name]) for name in _CALLBACKS if settings.get(name) is not None}
    return settings | bridged


def _as_coroutine(call: Callable[[], _T]) -> Callable[[], _T]:
    """The same call, which raises StopIteration as a coroutine does (PEP 479): no asyncio.Future can hold it."""

    def called() -> _T:
        try:
            return call()
        except StopIteration as error:
            raise RuntimeError("a callback raised StopIteration") from error

    return called


async def _in_thread(call: Callable[[], _T], cancel: threading.Event) -> _T:
    """Return what `call` returns in a thread of its own; if this is cancelled, set `cancel` and wait for its end."""
    executor = ThreadPoolExecutor(1, "nettool")
    running = asyncio.get_running_loop().run_in_executor(executor, _as_coroutine(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        cancel.set()
        while not running.done():
            with suppress(asyncio.CancelledError):  # again: the session still ends first
                await asyncio.wait([running])
        running.exception()  # it is of no interest any more
        raise
    finally:
        executor.shutdown(wait=False)
