"""From the keys of a handshake to the protection of packets, and to what a channel reports about both."""

from typing import NamedTuple

from toolkit.rudp.aead_protection import Aead, AeadProtection
from toolkit.rudp.protection import PacketProtection, Unprotected
from toolkit.security.admission import Method
from toolkit.security.credentials import CodeCredential, Credential, KeyCredential
from toolkit.security.keylog import log_keys
from toolkit.security.keys import SessionKeys, TrafficKeys


class SessionSecurity(NamedTuple):
    """How a session is protected, by the names of `Channel.statistics`."""

    encryption: str
    authentication: str

    @classmethod
    def of(cls, keys: SessionKeys | None, method: Method) -> "SessionSecurity":
        """Return that of a session with these keys; None is plaintext."""
        return cls("none" if keys is None else str(keys.client.aead_name), method.name.lower())


def method_of(credential: Credential) -> Method:
    """Return by which method this credential lets a client in."""
    if isinstance(credential, CodeCredential):
        return Method.CODE
    return Method.KEY if isinstance(credential, KeyCredential) else Method.NONE


class LoggedKeys:
    """One generation of the keys of one direction, which are written to the key log if there is one.

    Implements `toolkit.rudp.protection.PacketKeys`.
    """

    def __init__(self, keys: TrafficKeys, connection_id: int) -> None:
        """`connection_id` is that in the packets of this direction."""
        self._keys = keys
        self._connection_id = connection_id
        log_keys("udp", connection_id.to_bytes(8, "big"), keys)

    @property
    def aead(self) -> Aead:
        return self._keys.aead

    @property
    def iv(self) -> bytes:
        return self._keys.iv

    def next(self) -> "LoggedKeys":
        return LoggedKeys(self._keys.next(), self._connection_id)


def protect(keys: tuple[TrafficKeys, TrafficKeys] | None, local_id: int, peer_id: int) -> PacketProtection:
    """Return the protection of a connection: `keys` are those for sending and those for receiving; None is plaintext.

    Packets that this side sends carry `peer_id`, those that it receives `local_id`.
    """
    if keys is None:
        return Unprotected()
    return AeadProtection(LoggedKeys(keys[0], peer_id), LoggedKeys(keys[1], local_id))
