"""The three functions for asyncio: the same arguments, results and errors as those of `toolkit`, awaited.

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
from typing import Any, ParamSpec, TypeVar, cast

from toolkit.api import comparing, receiving, sending

__all__ = ["compare", "receive", "send"]

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


async def _in_thread(call: Callable[[], _T], cancel: threading.Event) -> _T:
    """Return what `call` returns in a thread of its own; if this is cancelled, set `cancel` and wait for its end."""
    executor = ThreadPoolExecutor(1, "nettool")
    running = asyncio.get_running_loop().run_in_executor(executor, call)
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
