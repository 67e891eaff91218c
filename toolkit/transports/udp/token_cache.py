"""The tokens that servers have given to this user's clients for their next connections: they save a round trip.

A token is used once. It says which two addresses have talked, which the file system knows as well, and it opens
nothing: the key exchange follows. Without one, the connection takes a round trip more.
"""

from pathlib import Path

from toolkit.channel import Address
from toolkit.rudp.handshake_packets import MAX_TOKEN_BYTES
from toolkit.transports.udp.cache_folder import CacheFolder


class TokenCache:
    """The tokens in the folder `path`, which need not exist."""

    def __init__(self, path: Path | None = None) -> None:
        self._folder = CacheFolder("tokens", path)

    def take(self, server: Address) -> bytes:
        """Return the token for this server, and forget it; b"" if there is none."""
        token = self._folder.read(str(server), MAX_TOKEN_BYTES)
        # If another process was first, it uses the token.
        return token if self._folder.drop(str(server)) else b""

    def put(self, server: Address, token: bytes) -> None:
        """Keep the token for the next connection to this server."""
        self._folder.put(str(server), token)
