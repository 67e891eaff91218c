"""Puts traced sockets and files in the place of the system's own, as LD_PRELOAD does for a C program.

The names that nettool's modules look up, `socket.socket` and functions of `os` such as `os.pwrite`, stand for traced
ones while the block runs. So every call that is shown is a call that was made, and no other module knows of tracing: it
costs nothing while it is off.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from toolkit.errors import printable
from toolkit.tracing.call import Call, CallTrace
from toolkit.tracing.files import GETS_ITS_NAME, TextbookFiles, TracedFiles
from toolkit.tracing.sockets import TextbookSocket, TracedSocket
from toolkit.transfer import tree
from toolkit.transports.tcp import splice
from toolkit.transports.udp import mmsg


@contextmanager
def interposed(trace: CallTrace, is_textbook: bool = False) -> Iterator[None]:
    """Report the calls of every socket that the block makes, and of every file that a transfer opens in it.

    is_textbook: make a textbook's calls in place of those that are faster: one for each datagram, and no `sendfile`
    """
    base = TextbookSocket if is_textbook else TracedSocket
    files = TextbookFiles(trace) if is_textbook else TracedFiles(trace)
    with ExitStack() as stack:
        stack.enter_context(_replaced(socket, "socket", type("socket", (base,), {"trace": trace})))
        for name, function in files.replacements.items():
            stack.enter_context(_replaced(os, name, function))
        stack.enter_context(_replaced(tree, "rename_new", _traced_rename(trace)))
        if is_textbook:
            stack.enter_context(_replaced(splice, "is_available", False))
        for name in ("recvmmsg", "sendmmsg"):
            stack.enter_context(_replaced(mmsg, name, None if is_textbook else _traced_mmsg(trace, name)))
        yield


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def _traced_rename(trace: CallTrace) -> Callable[[int, bytes, bytes], None]:
    """Return a `rename_new`, which calls renameat2(2), that reports it."""
    rename = tree.rename_new

    def traced(directory: int, old: bytes, new: bytes) -> None:
        began_s = time.monotonic()
        arguments = f"{printable(os.fsdecode(old), 60)}, {printable(os.fsdecode(new), 60)}"
        try:
            rename(directory, old, new)
        except OSError as error:
            trace.add_failed(began_s, "renameat2", -1, arguments, error)
            raise
        trace.add(Call(began_s, "renameat2", -1, arguments, "0", GETS_ITS_NAME))

    return traced


def _traced_mmsg(trace: CallTrace, name: str) -> Callable[..., int] | None:
    """Return a function that calls recvmmsg(2) or sendmmsg(2) and reports it; None if the system lacks it."""
    function = getattr(mmsg, name)
    if function is None:
        return None
    verb = "taken from" if name == "recvmmsg" else "handed to"

    def traced(fd: int, messages: Any, limit: int, *rest: Any) -> int:
        began_s = time.monotonic()
        count = int(function(fd, messages, limit, *rest))
        if count < 0:
            trace.count(f"{name}() that found nothing to do yet")
        else:
            meaning = f"{count} datagram{'' if count == 1 else 's'} {verb} the kernel in one call"
            time_s = time.monotonic() if name == "recvmmsg" else began_s
            trace.add(Call(time_s, name, fd, f"{fd}, {limit} datagrams at most", str(count), meaning))
        return count

    return traced
