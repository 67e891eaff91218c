"""Admission by codes: which code is valid now, when it ends, and how often it may be tried.

Three things protect a code of 33 bits. Each try needs the receiver to take part, so words cannot be tested offline
(PAKE). The third wrong try ends the code, and the receiver's user sees why. The rate of tries is limited, for each host
and for all hosts together, because each try costs the receiver about 20 ms of processor time.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, auto

from toolkit.security.admission import Method
from toolkit.security.code_words import Code, first_nameplate, new_code, next_nameplate
from toolkit.security.reconnections import Reconnections

MAX_WRONG_TRIES = 3
"""Enough for typing errors; someone who guesses has one chance in 2.8 billion before the code ends."""

_SECOND_NS = 1_000_000_000
_HOST_TRIES = 20
"""Tries that one host has at once. An attempt counts twice (both flights of the handshake), or more with losses, so a
person who mistypes a code three times can still use the next one."""
_HOST_INTERVAL_NS = 5 * _SECOND_NS
"""After that, a host gets one more try every 5 s."""
_WRONG_COST = 3
"""Additional cost of a wrong try, so that one host ends at most one code a minute. Someone who guesses can leave out
the first flight, so the second must cost enough."""
_ALL_TRIES = 40
_ALL_INTERVAL_NS = _SECOND_NS // 10
"""10 tries a second take at most a fifth of one core, whatever the number of hosts."""
_REMEMBERED_CODES = 64
_MAX_HOSTS = 1024
"""Hosts that are remembered, 100 KiB of memory; beyond that, the one that has tried least recently is forgotten."""


class CodeEnd(Enum):
    """Why a code is no longer valid."""

    USED = auto()
    WRONG_TRIES = auto()


@dataclass(slots=True)
class _Allowance:
    """Tries that are left, refilled one by one (a token bucket)."""

    capacity: int
    interval_ns: int
    left: float
    counted_ns: int

    @classmethod
    def full(cls, capacity: int, interval_ns: int, now_ns: int) -> "_Allowance":
        return cls(capacity, interval_ns, capacity, now_ns)

    def refill(self, now_ns: int) -> None:
        gained = max(0, now_ns - self.counted_ns) / self.interval_ns
        self.left = min(self.capacity, self.left + gained)
        self.counted_ns = max(now_ns, self.counted_ns)


class _Attempts:
    """Limits tries for each host and in all. Not thread-safe."""

    def __init__(self) -> None:
        self._all: _Allowance | None = None
        self._hosts: OrderedDict[bytes, _Allowance] = OrderedDict()

    def take(self, network: bytes, now_ns: int) -> bool:
        """Count one try; False if there is none left."""
        if self._all is None:
            self._all = _Allowance.full(_ALL_TRIES, _ALL_INTERVAL_NS, now_ns)
        own = self._hosts.pop(network, None) or _Allowance.full(_HOST_TRIES, _HOST_INTERVAL_NS, now_ns)
        self._hosts[network] = own
        if len(self._hosts) > _MAX_HOSTS:
            self._hosts.popitem(last=False)
        for allowance in (own, self._all):
            allowance.refill(now_ns)
        if own.left < 1 or self._all.left < 1:
            return False
        own.left -= 1
        self._all.left -= 1
        return True

    def penalise(self, network: bytes) -> None:
        """Count a wrong try in addition."""
        own = self._hosts.get(network)
        if own is not None:
            own.left -= _WRONG_COST


class CodeAdmission:
    """Admits clients that know the current code. Thread-safe.

    Callbacks run in the thread that ends a code, without the lock of this object.
    """

    method = Method.CODE

    def __init__(
        self,
        on_code_ended: Callable[[Code, CodeEnd], None],
        on_new_code: Callable[[Code], None],
        *,
        uses: int = 1,
        is_renewed: bool = True,
        session_key: bytes | None = None,
        reconnections: Reconnections | None = None,
        make_code: Callable[[int], Code] = new_code,
    ) -> None:
        """Make the first code, without a callback; read it from `code`.

        on_code_ended, on_new_code: called when a code ends, and with the one that replaces it, in this order
        uses:        sessions that one code admits
        is_renewed:  whether another code follows one that was used; one always follows wrong tries
        session_key: a key of 32 bytes that admits as well; the receiver gives it to clients that it admitted by code
        reconnections: the keys by which clients that were admitted come back; None if they may not
        make_code:   makes a code with this nameplate; a test may replace it
        """
        self._on_code_ended, self._on_new_code = on_code_ended, on_new_code
        self._uses, self._is_renewed = uses, is_renewed
        self._session_key = session_key
        self._reconnections = reconnections
        self._make_code = make_code
        self.trying: AbstractContextManager[object] = threading.Lock()
        self._lock = threading.Lock()  # guards everything below
        self._attempts = _Attempts()
        self._code: Code | None = make_code(first_nameplate())
        self._uses_left, self._wrong_tries = uses, 0
        self._ended: OrderedDict[bytes, None] = OrderedDict()

    @property
    def code(self) -> Code | None:
        """The code that is valid now; None after the last one was used."""
        with self._lock:
            return self._code

    def admits(self, method: Method) -> bool:
        """Return whether a client may use this method."""
        if method == Method.RECONNECTION:
            return self._reconnections is not None
        return method == Method.CODE or (method == Method.KEY and self._session_key is not None)

    def psk(self) -> bytes:
        """Return the session key. Raises ValueError if there is none."""
        if self._session_key is None:
            raise ValueError("this receiver admits by code only")
        return self._session_key

    def reconnection_psk(self, key_id: bytes) -> bytes | None:
        """Return the pre-shared key of the reconnection key with this id, or None if no such key is valid."""
        return None if self._reconnections is None else self._reconnections.psk(key_id)

    def next_number(self, key_id: bytes) -> int | None:
        """Return Admitted.number for a handshake that is answered now, or None if the reconnection key has ended."""
        return None if self._reconnections is None else self._reconnections.next_number(key_id)

    def password(self, nameplate: bytes) -> bytes | None:
        """Return the password of the code with this nameplate, or None if it is not valid."""
        with self._lock:
            code = self._code
            return code.credential.password if code is not None and self._is_current(nameplate) else None

    def has_ended(self, nameplate: bytes) -> bool:
        """Return whether the code with this nameplate was valid once."""
        with self._lock:
            return nameplate in self._ended

    def may_try(self, network: bytes, now_ns: int) -> bool:
        """Count one attempt with a code; return whether the limits allow it."""
        with self._lock:
            return self._attempts.take(network, now_ns)

    def record_wrong(self, nameplate: bytes, network: bytes) -> None:
        """Count a wrong try of the code with this nameplate, and end it with the third; b"" for a reconnection key.

        Wrong tries end no reconnection key: nobody guesses 256 bits, and whoever saw its id could end it.
        """
        with self._lock:
            self._attempts.penalise(network)
            if not self._is_current(nameplate):
                return
            self._wrong_tries += 1
            if self._wrong_tries < MAX_WRONG_TRIES:
                return
            ended, follows = self._end(CodeEnd.WRONG_TRIES)
        self._tell(ended, CodeEnd.WRONG_TRIES, follows)

    def record_success(self, nameplate: bytes) -> bool:
        """Use the code once. Return False if it has ended meanwhile, so that this use is not allowed."""
        with self._lock:
            if not self._is_current(nameplate):
                return False
            self._uses_left -= 1
            if self._uses_left:
                return True
            ended, follows = self._end(CodeEnd.USED)
        self._tell(ended, CodeEnd.USED, follows)
        return True

    def _is_current(self, nameplate: bytes) -> bool:
        return self._code is not None and nameplate == self._code.credential.nameplate

    def _end(self, reason: CodeEnd) -> tuple[Code, Code | None]:
        """End the current code; return it, and the one that follows."""
        assert self._code is not None
        ended = self._code
        self._ended[ended.credential.nameplate] = None
        if len(self._ended) > _REMEMBERED_CODES:
            self._ended.popitem(last=False)
        is_last = reason is CodeEnd.USED and not self._is_renewed
        self._code = None if is_last else self._make_code(next_nameplate(ended.nameplate))
        self._uses_left, self._wrong_tries = self._uses, 0
        return ended, self._code

    def _tell(self, ended: Code, reason: CodeEnd, follows: Code | None) -> None:
        self._on_code_ended(ended, reason)
        if follows is not None:
            self._on_new_code(follows)
