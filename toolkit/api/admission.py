"""Whom a receiver admits: everyone, whoever has a key, or, off loopback, whoever has its code."""

import socket
from collections.abc import Callable, Sequence
from typing import Final

from toolkit.channel import Address
from toolkit.errors import UsageError, printable
from toolkit.security.admission import Admission, KeyAdmission, OpenAdmission
from toolkit.security.code_admission import CodeAdmission, CodeEnd
from toolkit.security.code_words import Code
from toolkit.security.reconnections import Reconnections

EVERY_IPV4: Final = "0.0.0.0"


class AdmissionRule:
    """The rule of one receiver.

    admission:     what a listener asks
    reconnections: by which senders that a code has admitted come back; a receiver adds to it
    is_loopback:   whether only this machine reaches the receiver. A name is looked up once; see `check_bound`
    """

    def __init__(
        self,
        bind: str,
        *,
        key: bytes | None = None,
        is_open: bool = False,
        code_uses: int | None = None,
        is_once: bool = False,
        session_key: bytes | None = None,
        on_code: Callable[[Code], None] = lambda _: None,
        on_code_ended: Callable[[Code, CodeEnd], None] = lambda _code, _end: None,
    ) -> None:
        """Choose the rule.

        key:           of a key file: whoever has it is admitted, and nobody else
        is_open:       admit everyone
        code_uses:     number of sessions that a code admits; with it, there are codes even on loopback
        is_once:       the receiver takes one session, so no code follows the first
        session_key:   a key that the receiver gives to clients that it admitted by code, for further connections
        on_code:       called with each code but the first, which is `code`
        on_code_ended: called with each code that is no longer valid

        Raises UsageError if the arguments contradict each other.
        """
        if (key is not None) + is_open + (code_uses is not None) > 1:
            raise UsageError("use one of key, is_open and code_uses: a receiver has one rule")
        if code_uses is not None and code_uses < 1:
            raise UsageError(f"a code cannot admit {code_uses} sessions: give 1 or more")
        self.reconnections = Reconnections()
        self.is_loopback = is_loopback(bind)
        self._bind = bind
        self._codes: CodeAdmission | None = None
        self.admission: Admission
        if key is not None:
            self.admission = KeyAdmission(key)
        elif is_open or (self.is_loopback and code_uses is None):
            self.admission = OpenAdmission()
        else:
            self._codes = self.admission = CodeAdmission(
                on_code_ended,
                on_code,
                uses=code_uses or 1,
                is_renewed=not is_once,
                session_key=session_key,
                reconnections=self.reconnections,
            )

    @property
    def code(self) -> Code | None:
        """The code that is valid now; None if the rule is another, or the only code has been used."""
        return None if self._codes is None else self._codes.code

    def check_bound(self, listening: Sequence[Address]) -> Address:
        """Return where the receiver listens, as its user has said it.

        listening: the addresses of its listeners, all on one port

        Raises UsageError if they are of another kind than the rule was chosen for: a name has changed its address.
        """
        for address in listening:
            if self.is_loopback and not address.is_loopback:
                raise UsageError(
                    f"{printable(self._bind)} was an address of this machine alone, and now is {address.host}: "
                    "bind to an IP address"
                )
        return Address(self._bind or EVERY_IPV4, listening[0].port)


def is_loopback(host: str) -> bool:
    """Return whether `host` has addresses, and all of them are loopback addresses."""
    try:
        found = socket.getaddrinfo(host or None, None)
    except (OSError, UnicodeError):
        return False
    return bool(host) and all(Address(str(name[0]), 0).is_loopback for *_, name in found)
