"""The exit codes, and one family of errors that carry them.

A message is one line, says what happened and what to do about it, and holds no control characters: pass names that come
from a peer or a file system through `printable` first.
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Every exit code of nettool. `nettool link` alone also returns those of the command that it runs."""

    OK = 0
    USAGE = 2
    UNREACHABLE = 3
    """Unreachable or refused."""
    FAILED = 4
    UNVERIFIED = 5
    INTERRUPTED = 130


class NettoolError(Exception):
    """Anything that nettool reports to its user in one line."""

    exit_code: ClassVar[int] = ExitCode.FAILED
    result: object = None
    """The TransferResult of the session that failed; None where the error is not about a session."""


class UsageError(NettoolError):
    """What was asked for makes no sense as it stands (exit code 2)."""

    exit_code: ClassVar[int] = ExitCode.USAGE


class UnreachableError(NettoolError):
    """Nobody answered, a name did not resolve, a port was refused (exit code 3)."""

    exit_code: ClassVar[int] = ExitCode.UNREACHABLE


class RefusedError(NettoolError):
    """The peer is there and said no: another version, a name it will not take, a file that exists (exit code 3)."""

    exit_code: ClassVar[int] = ExitCode.UNREACHABLE


class TransferError(NettoolError):
    """The transfer began and could not be finished (exit code 4)."""

    exit_code: ClassVar[int] = ExitCode.FAILED


class ProtocolError(TransferError):
    """Bytes from a peer that no correct nettool sends; what every `*_untrusted` decoder raises, and nothing else."""


class PeerClosedError(TransferError):
    """The peer went away in the middle (closed, reset, or silent for longer than the idle timeout)."""


class VerificationError(NettoolError):
    """Everything arrived, and its digest is not the sender's (exit code 5)."""

    exit_code: ClassVar[int] = ExitCode.UNVERIFIED


def printable(text: str, limit: int = 200) -> str:
    """`text` fit for one line of a terminal: escapes for whatever is not printable, cut after `limit` characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
