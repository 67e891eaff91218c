"""From the keys of a handshake to the protection of packets, and to what a channel reports about both."""

from typing import NamedTuple

from toolkit.rudp.aead_protection import AeadProtection
from toolkit.rudp.protection import PacketProtection, Unprotected
from toolkit.security.admission import Admitted
from toolkit.security.keylog import with_key_log
from toolkit.security.keys import FORGERY_LIMITS, SessionKeys, TrafficKeys


class SessionSecurity(NamedTuple):
    """How a session is protected, as the statistics of its channel name it, and how its client was admitted."""

    encryption: str
    admitted: Admitted

    @classmethod
    def of(cls, keys: SessionKeys | None, admitted: Admitted) -> "SessionSecurity":
        """Return that of a session with these keys; None is plaintext."""
        return cls("none" if keys is None else str(keys.client.aead_name), admitted)


def protect(keys: tuple[TrafficKeys, TrafficKeys] | None, local_id: int, peer_id: int) -> PacketProtection:
    """Return the protection of a connection: `keys` are those for sending and those for receiving; None is plaintext.

    Packets that this side sends carry `peer_id`, those that it receives `local_id`.
    """
    if keys is None:
        return Unprotected()
    send, receive = (
        with_key_log("udp", connection_id.to_bytes(8, "big"), one)
        for connection_id, one in zip((peer_id, local_id), keys, strict=True)
    )
    return AeadProtection(send, receive, forgery_limit=FORGERY_LIMITS[receive.aead_name])
