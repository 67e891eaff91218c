"""The exit codes, and one family of errors that carry them.

A message is one line, says what happened and what to do about it, and holds no control characters: pass names that come
from a peer or a file system through `printable` first. It names a parameter as programs write it, in backticks; the
command line shows its option there (toolkit/cli/option_names.py).
"""

import errno
import sys
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
    FOUND = 6
    """`diff --fail-if` applies."""
    INCOMPLETE = 7
    """Everything that was sent is verified, but something in a tree was left out: a symbolic link, a device."""
    INTERRUPTED = 130


class NettoolError(Exception):
    """Anything that nettool reports to its user in one line."""

    exit_code: ClassVar[int] = ExitCode.FAILED
    result: object = None
    """The result so far of the session that failed; None if the error does not concern a session.

    The functions for programs set a SessionResult, `toolkit.transfer` sets a TransferResult.
    """


class UsageError(NettoolError):
    """The command, an option or its value is impossible as given (exit code 2)."""

    exit_code: ClassVar[int] = ExitCode.USAGE


class UnreachableError(NettoolError):
    """Nothing answers, a name does not resolve, or a port cannot be bound (exit code 3)."""

    exit_code: ClassVar[int] = ExitCode.UNREACHABLE


class IncompleteHandshakeError(UnreachableError):
    """The peer answers, but no connection comes about."""


class RefusedError(NettoolError):
    """The peer declines: its version differs, it rejects a name, or a file exists (exit code 3)."""

    exit_code: ClassVar[int] = ExitCode.UNREACHABLE


class CredentialRequiredError(RefusedError):
    """The peer requires a code or a key, and none was given (exit code 3).

    is_code: whether the peer asks for a code, which a person can type; otherwise for a key file
    """

    def __init__(self, message: str, *, is_code: bool) -> None:
        super().__init__(message)
        self.is_code = is_code


class TransferError(NettoolError):
    """The transfer started but could not be completed (exit code 4)."""

    exit_code: ClassVar[int] = ExitCode.FAILED


class ProtocolError(TransferError):
    """The peer sent bytes that no correct nettool sends. Every `*_untrusted` decoder raises this, and nothing else."""


class PeerClosedError(TransferError):
    """The connection ended early: the peer closed or reset it, or was silent for the idle timeout."""


class PeerAbortedError(PeerClosedError):
    """The peer has ended the connection early and said so, which a lost connection does not."""


class LateRefusalError(PeerClosedError):
    """The peer has refused the session after its handshake: another sender has used the code, say (exit code 3)."""

    exit_code: ClassVar[int] = ExitCode.UNREACHABLE


class VerificationError(NettoolError):
    """Everything arrived, but its digest differs from the sender's (exit code 5)."""

    exit_code: ClassVar[int] = ExitCode.UNVERIFIED


def closed_by_peer(code: int, reason: str) -> PeerClosedError:
    """Return the error for a peer that has closed the connection with this code, an ExitCode, and this reason."""
    text = printable(reason) or "the peer has closed the connection"
    kinds: dict[int, type[PeerClosedError]] = {
        ExitCode.UNREACHABLE: LateRefusalError,
        ExitCode.INTERRUPTED: PeerAbortedError,
    }
    return kinds.get(code, PeerClosedError)(text)


def error_name(error: OSError) -> str:
    """Return the name of an error number, such as ECONNREFUSED; the name of its class for an error without one."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def printable(text: str, limit: int = 200) -> str:
    """Return `text` safe for one line of a terminal: escapes unprintable characters, and cuts at `limit` characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def printable_path(path: object, limit: int = 100) -> str:
    """Return a path safe for one line of a terminal; one of more than `limit` characters loses its beginning."""
    shown = printable(str(path), sys.maxsize)
    return shown if len(shown) <= limit else f"…{shown[1 - limit :]}"
