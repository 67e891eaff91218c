"""One family of errors, each with the exit code that the command line ends with.

A message is one line, says what happened and what to do about it, and holds no control characters: whoever puts a
name that came from a peer or from a file system into one passes it through `printable` first.
"""

from typing import ClassVar


class NettoolError(Exception):
    """Anything that nettool reports to its user in one line."""

    exit_code: ClassVar[int] = 4
    result: object = None
    """The TransferResult of the session that failed; None where the error is not about a session."""


class UsageError(NettoolError):
    """What was asked for makes no sense as it stands (exit code 2)."""

    exit_code: ClassVar[int] = 2


class UnreachableError(NettoolError):
    """Nobody answered, a name did not resolve, a port was refused (exit code 3)."""

    exit_code: ClassVar[int] = 3


class RefusedError(NettoolError):
    """The peer is there and said no: another version, a name it will not take, a file that exists (exit code 3)."""

    exit_code: ClassVar[int] = 3


class TransferError(NettoolError):
    """The transfer began and could not be finished (exit code 4)."""

    exit_code: ClassVar[int] = 4


class ProtocolError(TransferError):
    """Bytes from a peer that no correct nettool sends; what every `*_untrusted` decoder raises, and nothing else."""


class PeerClosedError(TransferError):
    """The peer went away in the middle (closed, reset, or silent for longer than the idle timeout)."""


class VerificationError(NettoolError):
    """Everything arrived, and its digest is not the sender's (exit code 5)."""

    exit_code: ClassVar[int] = 5


def printable(text: str, limit: int = 200) -> str:
    """`text` fit for one line of a terminal: escapes for whatever is not printable, cut after `limit` characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
