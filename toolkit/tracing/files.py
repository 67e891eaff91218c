"""Calls of `os` that report what happens to the files of a transfer: a file that `toolkit.transfer` opens is followed
until it is closed. Calls on other descriptors pass through unreported.

`TracedFiles` makes the calls that it is asked for. `TextbookFiles` makes those of a textbook in their place: `read` and
`write` from where the file stands, `lseek` if that is not the place, and no `sendfile`.
"""

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from toolkit.errors import printable
from toolkit.tracing.call import Call, CallTrace
from toolkit.transfer.names import is_partial

GETS_ITS_NAME: Final = "complete and verified: it gets its name"
_HIDDEN: Final = "no later session looks for it under this name, to go on with it"
_OPENERS: Final = "toolkit.transfer"
_UNINTERESTING: Final = os.O_DIRECTORY | os.O_PATH
_MODES: Final = {os.O_RDONLY: "O_RDONLY", os.O_WRONLY: "O_WRONLY", os.O_RDWR: "O_RDWR"}


class TracedFiles:
    """Replacements for functions of `os`. The originals are those that `os` has when this object is made."""

    def __init__(self, trace: CallTrace) -> None:
        self._trace = trace
        self._os = {name: getattr(os, name) for name in _NAMES}
        self._lock = threading.Lock()
        self._names: dict[int, str] = {0: "standard input"}  # of open files, by descriptor

    @property
    def replacements(self) -> Mapping[str, Callable[..., Any]]:
        """The name of each function of `os`, and what to call in its place."""
        return {name: getattr(self, name) for name in _NAMES}

    def _made(self, name: str, fd: int, shown: str, *arguments: Any, **keywords: Any) -> tuple[float, Any]:
        """Make a call of `os`; return when it began, and its result. One that fails is reported."""
        began_s = time.monotonic()
        try:
            return began_s, self._os[name](*arguments, **keywords)
        except OSError as error:
            self._trace.add_failed(began_s, name, fd, shown, error)
            raise

    def _call(self, name: str, shown: str, meaning: str, *arguments: Any, fd: int = -1, **keywords: Any) -> Any:
        """Make a call of `os` and report it; a result that is no number is shown as 0, as C returns it."""
        began_s, result = self._made(name, fd, shown, *arguments, **keywords)
        shown_result = str(result) if isinstance(result, int) else "0"
        self._trace.add(Call(began_s, name, fd, shown, shown_result, meaning))
        return result

    def _data(self, name: str, fd: int, size_bytes: int, offset: int | None, *arguments: Any) -> Any:
        """Make a call that moves data, and report it."""
        shown = f"{fd}, {size_bytes} bytes" + (f", from {offset}" if offset is not None else "")
        began_s, result = self._made(name, fd, shown, *arguments)
        count = len(result) if isinstance(result, bytes) else int(result)
        is_end = not count and size_bytes and "write" not in name
        verb = "into" if "write" in name else "from"
        time_s = began_s if verb == "into" else time.monotonic()  # a read of a pipe or terminal waits for others
        meaning = "0 bytes: the end of the file" if is_end else f"{verb} {self._names.get(fd, 'a pipe')}"
        self._trace.add(Call(time_s, name, fd, shown, str(count), meaning, count, "end" if is_end else "file"))
        return result

    def open(self, path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        """open(2); the file is followed if a module of the transfer opens it."""
        if flags & _UNINTERESTING or not sys._getframe(1).f_globals.get("__name__", "").startswith(_OPENERS):
            return int(self._os["open"](path, flags, *arguments, **keywords))
        name = printable(os.path.basename(os.fsdecode(path)), 60)
        mode = _MODES[flags & os.O_ACCMODE] + (" | O_CREAT" if flags & os.O_CREAT else "")
        if flags & os.O_ACCMODE == os.O_RDONLY:
            purpose = "to read"
        else:
            purpose = "to write: it is new" if flags & os.O_CREAT else "to write: it was begun before"
        descriptor = int(
            self._call("open", f"{name}, {mode}", f"this file is open {purpose}", path, flags, *arguments, **keywords)
        )
        with self._lock:
            self._names[descriptor] = name
        return descriptor

    def close(self, fd: int) -> None:
        """close(2)."""
        with self._lock:
            name = self._names.pop(fd, None)
        if name is None:
            self._os["close"](fd)
        else:
            self._call("close", str(fd), f"of {name}", fd, fd=fd)

    def dup(self, fd: int) -> int:
        """dup(2)."""
        copy = int(self._os["dup"](fd))
        with self._lock:
            if fd in self._names:
                self._names[copy] = self._names[fd]
        return copy

    def read(self, fd: int, size_bytes: int) -> bytes:
        """read(2)."""
        if fd not in self._names:
            return bytes(self._os["read"](fd, size_bytes))
        return bytes(self._data("read", fd, size_bytes, None, fd, size_bytes))

    def readv(self, fd: int, buffers: Sequence[Any]) -> int:
        """readv(2)."""
        if fd not in self._names:
            return int(self._os["readv"](fd, buffers))
        return int(self._data("readv", fd, sum(map(len, buffers)), None, fd, buffers))

    def pread(self, fd: int, size_bytes: int, offset: int) -> bytes:
        """pread(2)."""
        if fd not in self._names:
            return bytes(self._os["pread"](fd, size_bytes, offset))
        return bytes(self._data("pread", fd, size_bytes, offset, fd, size_bytes, offset))

    def preadv(self, fd: int, buffers: Sequence[Any], offset: int) -> int:
        """preadv(2)."""
        if fd not in self._names:
            return int(self._os["preadv"](fd, buffers, offset))
        return int(self._data("preadv", fd, sum(map(len, buffers)), offset, fd, buffers, offset))

    def write(self, fd: int, data: Any) -> int:
        """write(2)."""
        if fd not in self._names:
            return int(self._os["write"](fd, data))
        return int(self._data("write", fd, len(data), None, fd, data))

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        """pwrite(2)."""
        if fd not in self._names:
            return int(self._os["pwrite"](fd, data, offset))
        return int(self._data("pwrite", fd, len(data), offset, fd, data, offset))

    def sendfile(self, out_fd: int, in_fd: int, offset: int, count: int) -> int:
        """sendfile(2)."""
        return int(self._data("sendfile", in_fd, count, offset, out_fd, in_fd, offset, count))

    def splice(self, src: int, dst: int, count: int, **keywords: Any) -> int:
        """splice(2): from the socket into a pipe, and from the pipe into the file."""
        shown = f"{src}, {dst}, {count} bytes"
        began_s, moved = self._made("splice", dst, shown, src, dst, count, **keywords)
        meaning = f"into {self._names[dst]}, without a copy" if dst in self._names else "from the socket into a pipe"
        self._trace.add(Call(began_s, "splice", dst, shown, str(moved), meaning, moved, "file"))
        return int(moved)

    def fsync(self, fd: int) -> None:
        """fsync(2)."""
        if fd in self._names:
            self._call("fsync", str(fd), "the content is on the disk now", fd, fd=fd)
        else:
            self._os["fsync"](fd)

    def link(self, old: Any, new: Any, **keywords: Any) -> None:
        """link(2)."""
        source, name = printable(os.fsdecode(old), 60), printable(os.path.basename(os.fsdecode(new)), 60)
        self._call("link", f"{source}, {name}", GETS_ITS_NAME, old, new, **keywords)

    def rename(self, old: Any, new: Any, **keywords: Any) -> None:
        """rename(2)."""
        names = [printable(os.path.basename(os.fsdecode(path)), 60) for path in (old, new)]
        meaning = _HIDDEN if is_partial(os.path.basename(os.fsencode(new))) else GETS_ITS_NAME
        self._call("rename", ", ".join(names), meaning, old, new, **keywords)


class TextbookFiles(TracedFiles):
    """Makes the calls of a textbook in place of those that are faster."""

    def __init__(self, trace: CallTrace) -> None:
        super().__init__(trace)
        self._moves = threading.Lock()  # between lseek and the call that it is for

    def _go_to(self, fd: int, offset: int) -> None:
        if os.lseek(fd, 0, os.SEEK_CUR) != offset:  # asked each time: `read`, or a duplicate, may have moved it
            began_s = time.monotonic()
            os.lseek(fd, offset, os.SEEK_SET)
            self._trace.add(
                Call(began_s, "lseek", fd, f"{fd}, {offset}, SEEK_SET", str(offset), "the next call starts there")
            )

    def pread(self, fd: int, size_bytes: int, offset: int) -> bytes:
        """lseek(2) if needed, and read(2)."""
        if fd not in self._names:
            return super().pread(fd, size_bytes, offset)
        with self._moves:
            self._go_to(fd, offset)
            return self.read(fd, size_bytes)

    def preadv(self, fd: int, buffers: Sequence[Any], offset: int) -> int:
        """lseek(2) if needed, and read(2) into the first buffer."""
        if fd not in self._names:
            return super().preadv(fd, buffers, offset)
        data = self.pread(fd, len(buffers[0]), offset)
        memoryview(buffers[0])[: len(data)] = data
        return len(data)

    def readv(self, fd: int, buffers: Sequence[Any]) -> int:
        """read(2) into the first buffer."""
        if fd not in self._names:
            return super().readv(fd, buffers)
        data = self.read(fd, len(buffers[0]))
        memoryview(buffers[0])[: len(data)] = data
        return len(data)

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        """lseek(2) if needed, and write(2)."""
        if fd not in self._names:
            return super().pwrite(fd, data, offset)
        with self._moves:
            self._go_to(fd, offset)
            return self.write(fd, data)

    def sendfile(self, *_arguments: int) -> int:
        """Refuse, as for a file that sendfile(2) cannot read: the sender then reads and sends."""
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


_NAMES: Final = (
    *("open", "close", "dup", "fsync", "link", "rename"),
    *("read", "readv", "pread", "preadv", "write", "pwrite", "sendfile", "splice"),
)
