"""From a code that people type to a key: SPAKE2 with edwards25519 and SHA-256. RFC 9382 describes it; the package
`spake2` is older, and does not interoperate with the RFC.

Both sides know the password and send one element each. An attacker who sees or alters the exchange learns nothing about
the password. One who takes part in it can test one password, and the other side notices a wrong one.

`spake2` is plain Python: each side takes 5 to 20 ms of CPU time, which depends slightly on the password. A responder
therefore limits the attempts, and a code ends after a few.
"""

import hmac
from typing import Any

from toolkit.errors import ProtocolError
from toolkit.security.keys import SECRET_BYTES, expand_label
from toolkit.security.noise import RandomBytes

ELEMENT_BYTES = 33
"""A byte that names the side, and a compressed point."""

_IDENTITIES = (b"nettool 2 initiator", b"nettool 2 responder")


class PakeInitiator:
    """The side that begins, with a new secret for each handshake."""

    def __init__(self, password: bytes, random_bytes: RandomBytes) -> None:
        """Draw the secret."""
        self._password = password
        self._seed = random_bytes(SECRET_BYTES)
        self.element = self._start()[1]
        """The element to send."""

    def finish_untrusted(self, element: bytes) -> bytes:
        """Return the key of 32 bytes that the responder has too if it knows the password.

        Raises ProtocolError if `element` is invalid. A caller must not test more than one element of an unknown peer,
        because each tests one password.
        """
        return _finish_untrusted(self._start()[0], element)

    def _start(self) -> tuple[Any, bytes]:
        from spake2 import SPAKE2_A

        return _start(SPAKE2_A, self._password, self._seed)


class PakeResponder:
    """The side that answers. It keeps nothing: the same secret, context and element make the same answer again."""

    def __init__(self, secret: bytes) -> None:
        """Take a secret of SECRET_BYTES bytes that never leaves this process."""
        self._secret = secret

    def answer_untrusted(self, password: bytes, element: bytes, context: bytes) -> bytes:
        """Return the element that answers `element`. Raises ProtocolError if that has the wrong form."""
        _check_untrusted(element)
        return self._start(password, element, context)[1]

    def finish_untrusted(self, password: bytes, element: bytes, context: bytes) -> tuple[bytes, bytes]:
        """Return the element that `answer_untrusted` returned, and the key of 32 bytes. Raises ProtocolError."""
        _check_untrusted(element)
        side, answer = self._start(password, element, context)
        return answer, _finish_untrusted(side, element)

    def _start(self, password: bytes, element: bytes, context: bytes) -> tuple[Any, bytes]:
        """Begin with a scalar that differs for each password, element and context, so that none is used twice."""
        from spake2 import SPAKE2_B

        parts = [len(part).to_bytes(4) + part for part in (password, element, context)]
        return _start(SPAKE2_B, password, hmac.digest(self._secret, b"".join(parts), "sha256"))


def _start(side_class: Any, password: bytes, seed: bytes) -> tuple[Any, bytes]:
    def entropy(length: int) -> bytes:
        return expand_label(seed, "spake2 scalar", length=length)

    side = side_class(password, *_IDENTITIES, entropy_f=entropy)
    return side, side.start()


def _check_untrusted(element: bytes) -> None:
    if len(element) != ELEMENT_BYTES:
        raise ProtocolError(f"a SPAKE2 element has {ELEMENT_BYTES} bytes, not {len(element)}")


def _finish_untrusted(side: Any, element: bytes) -> bytes:
    from spake2 import SPAKEError
    from spake2.ed25519_basic import NotOnCurve

    _check_untrusted(element)
    try:
        key: bytes = side.finish(element)
    except (SPAKEError, NotOnCurve, ValueError, AssertionError):  # the side, the point, its subgroup, a reflection
        raise ProtocolError("a malformed SPAKE2 element") from None
    return expand_label(key, "psk")
