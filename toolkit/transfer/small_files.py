"""Small files at the sender: each is read at once, with few system calls, and sent from memory.

A file that is larger is read while it is sent (sources.py).
"""

import os
from typing import Final

from toolkit.transfer.sources import CHANGED, SIZE_0, FileOrigin, SourceChangedError, os_error_text

SMALL_BYTES: Final = 1 << 16
"""Up to this size, a file is small: what waits for the channel to send it is little more than for a larger file."""


def is_small(origin: FileOrigin) -> bool:
    """Whether the file is sent as a whole, without holes."""
    return origin.identity.size_bytes <= SMALL_BYTES and not origin.is_sparse


def read_small(origin: FileOrigin) -> bytes:
    """The content of a small file. Raises SourceChangedError if it is not the one that was offered, or has changed.

    The identity is compared once, after the last byte was read.
    """
    size_bytes = origin.identity.size_bytes
    descriptor = origin.open_unchecked()
    try:
        content = os.read(descriptor, size_bytes or 1)
        while len(content) < size_bytes:
            more = os.read(descriptor, size_bytes - len(content))
            if not more:
                break
            content += more
        status = os.fstat(descriptor)
    except OSError as error:
        raise SourceChangedError(origin.name, f"cannot be read ({os_error_text(error)})") from error
    finally:
        os.close(descriptor)
    if not origin.is_same(status):
        raise SourceChangedError(origin.name, origin.change_in(status))
    if len(content) != size_bytes:
        raise SourceChangedError(origin.name, CHANGED if size_bytes else SIZE_0)
    return content
