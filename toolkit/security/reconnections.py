"""Reconnection keys: how a sender whose code is used up comes back after its connection was lost.

The sender draws a random key and gives it to the receiver inside the encrypted session. The receiver keeps it in memory
while that session runs, and for a while after its connection was lost. By the key it admits this sender again, in an
ordinary handshake with a pre-shared key. A session that ends in any other way ends its key, unless a newer session has
continued it.

The receiver numbers sessions when it answers their handshakes. That is the order in which their sender made them: it
completes a handshake by the receiver's answer, and begins the next one after it has given up that connection. Their
last messages of the handshake and their BEGINs may come, or be handled, in another order.
"""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from toolkit.security.keys import expand_label

RECONNECTION_KEY_BYTES = 32
KEY_ID_BYTES = 16

MAX_KEYS = 64
KEPT_S = 3600.0
"""How long a sender may come back after its connection was lost. A user who waits longer is at hand, and reads a code
aloud again."""


def key_id(key: bytes) -> bytes:
    """Return what names a key in the clear: KEY_ID_BYTES from which the key cannot be found."""
    return expand_label(key, "reconnection id", length=KEY_ID_BYTES)


def reconnection_psk(key: bytes) -> bytes:
    """Return the pre-shared key of the handshake."""
    return expand_label(key, "reconnection psk")


@dataclass(slots=True)
class _Entry:
    psk: bytes
    newest: int
    """The number of the newest session with this key. It continues the one before, which may end later."""
    forgotten_s: float | None = None
    """When it is forgotten; None while the newest session runs."""


class Reconnections:
    """The keys of one receiver. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[bytes, _Entry] = {}  # by key_id
        self._numbers = itertools.count(1)

    def psk(self, identifier: bytes) -> bytes | None:
        """Return the pre-shared key that belongs to a key_id; None if there is none, or its time is over."""
        with self._lock:
            self._forget_old()
            entry = self._entries.get(identifier)
            return None if entry is None else entry.psk

    def add(self, key: bytes) -> int | None:
        """Keep the key of a session that something else has admitted; return the session's number.

        Return None if there is no room, so that its sender may not come back.
        """
        with self._lock:
            self._forget_old()
            identifier = key_id(key)
            if identifier not in self._entries and not self._has_room():
                return None
            number = next(self._numbers)
            self._entries[identifier] = _Entry(reconnection_psk(key), number)
            return number

    def next_number(self, identifier: bytes) -> int | None:
        """Return a number, larger than all earlier ones, for a handshake by this key; None if the key has ended.

        The session counts only if it starts: a receiver that is busy refuses it.
        """
        with self._lock:
            self._forget_old()
            return next(self._numbers) if identifier in self._entries else None

    def start(self, identifier: bytes, number: int) -> None:
        """A session that the key has admitted starts. It is the newest unless one with a higher number has started."""
        with self._lock:
            entry = self._entries.get(identifier)
            if entry is not None and number > entry.newest:
                entry.newest, entry.forgotten_s = number, None

    def is_newest(self, identifier: bytes, number: int) -> bool:
        """Return whether the session with this number is the newest with the key, and the key has not ended."""
        with self._lock:
            return self._entry_of_newest(identifier, number) is not None

    def lose(self, identifier: bytes, number: int) -> bool:
        """The connection of the session with this number was lost. Return whether it is the newest with the key."""
        with self._lock:
            entry = self._entry_of_newest(identifier, number)
            if entry is None:
                return False
            entry.forgotten_s = self._clock() + KEPT_S
            return True

    def end(self, identifier: bytes, number: int) -> bool:
        """The session with this number has ended otherwise. Return whether it is the newest with the key.

        The key is then worth nothing from now on. The end of an older session changes nothing: a receiver that was held
        up may still read content from an old connection, and fails because a newer session has taken the file over.
        """
        with self._lock:
            if self._entry_of_newest(identifier, number) is None:
                return False
            del self._entries[identifier]
            return True

    def _entry_of_newest(self, identifier: bytes, number: int) -> _Entry | None:
        """The entry of a key if this is the newest session with it, and has not ended."""
        entry = self._entries.get(identifier)
        return entry if entry is not None and entry.newest == number else None

    def _forget_old(self) -> None:
        now_s = self._clock()
        for name, forgotten_s in self._lost():
            if forgotten_s <= now_s:
                del self._entries[name]

    def _has_room(self) -> bool:
        """Make room by forgetting the key that would be forgotten next; False if the newest sessions of all run."""
        if len(self._entries) < MAX_KEYS:
            return True
        lost = self._lost()
        if lost:
            del self._entries[min(lost, key=lambda each: each[1])[0]]
        return bool(lost)

    def _lost(self) -> list[tuple[bytes, float]]:
        """The ids of the keys whose senders are away, and when they are forgotten."""
        return [(name, entry.forgotten_s) for name, entry in self._entries.items() if entry.forgotten_s is not None]
