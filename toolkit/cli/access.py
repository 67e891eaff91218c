"""Admission on the command line: what receivers require and announce, and what senders present.

A receiver on loopback requires nothing. Any other prints a code for each session, unless the user chose a key file or
--open. A sender takes its code from --code, from NETTOOL_CODE or from a prompt; the latter two keep it out of argv,
where other users of the machine can read it. Off loopback it connects without a code or key only with --open: otherwise
whoever answers in the receiver's place would have to ask for nothing.
"""

import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from toolkit.api.admission import AdmissionRule
from toolkit.api.credentials import (
    UnprovenReceiverError,
    check_before_connecting,
    check_connected,
    credential_of,
)
from toolkit.api.target import DEFAULT_PORT
from toolkit.channel import Address
from toolkit.cli.command import flag, number, option
from toolkit.cli.output import in_columns, print_status, print_warning, stderr_columns
from toolkit.cli.prompt import Terminal, user_terminal
from toolkit.cli.reachability import reachable_address, sender_lines
from toolkit.errors import CredentialRequiredError, UsageError
from toolkit.security.code_admission import CodeEnd
from toolkit.security.code_words import Code, parse_code
from toolkit.security.credentials import Credential
from toolkit.security.key_file import read_key

SECURITY = "Security"
CODE_VARIABLE = "NETTOOL_CODE"
_QR_LINES, _QR_COLUMNS = 40, 100
"""On a smaller terminal, the picture would scroll the other output away."""
_PROMPTS = 3
NO_CREDENTIAL = "add --code (or set NETTOOL_CODE), --key, or --open if the receiver runs with --open"
_T = TypeVar("_T")

Plaintext = Annotated[
    bool, flag("--plaintext", text="Ask for a session without encryption, to measure its cost.", panel=SECURITY)
]


@dataclass(frozen=True, slots=True)
class CredentialArguments:
    """What a sender and `bench remote` accept."""

    PANEL: ClassVar[str] = SECURITY

    code: Annotated[
        str | None,
        option(
            "--code", metavar="CODE", text="Code that the other machine shows. Without it: NETTOOL_CODE, or a prompt."
        ),
    ] = None
    key: Annotated[Path | None, option("--key", metavar="FILE", text="Key file, the same as the other machine's.")] = (
        None
    )
    is_open: Annotated[
        bool,
        flag(
            "--open",
            text="Use neither: the other machine runs with --open, and anybody on the path can answer in its place.",
        ),
    ] = False

    def credential(self) -> Credential:
        """Return what the user has given; --open wins over NETTOOL_CODE.

        Raises UsageError for a malformed code, a key file that cannot be used, or options that contradict each other.
        """
        if self.code is not None and self.key is not None:
            raise UsageError("use either --code or --key: the receiver asks for one of them")
        if self.is_open and (self.code is not None or self.key is not None):
            other = "--code" if self.code is not None else "--key"
            raise UsageError(f"use either --open or {other}: a receiver that runs with --open asks for neither")
        code = self.code
        if code is None and self.key is None and not self.is_open:
            code = os.environ.get(CODE_VARIABLE)
        return credential_of(code or None, self.key)

    def credential_for(self, receiver: Address) -> Credential:
        """Return what to present to `receiver`; without --open, ask for a code if it is not on this machine.

        Raises UsageError as `credential` does, and if there is no code; UnreachableError for a name without addresses.
        """
        given = self.credential()
        with suppress(UnprovenReceiverError):
            check_before_connecting(given, receiver, is_open=self.is_open)
            return given
        with user_terminal() as user:
            if user is None:
                raise UsageError(NO_CREDENTIAL)
            code = _ask_for_code(user)
        if code is None:
            raise UsageError(f"no valid code was entered: {NO_CREDENTIAL}")
        return code.credential


@dataclass(frozen=True, slots=True)
class AdmissionArguments:
    """What a receiver and `serve` accept."""

    PANEL: ClassVar[str] = SECURITY

    key: Annotated[
        Path | None, option("--key", metavar="FILE", text="Admit senders that have this key file; print no code.")
    ] = None
    is_open: Annotated[bool, flag("--open", text="Admit anyone who can reach the port.")] = False
    code_uses: Annotated[
        int | None,
        number(
            "--code-uses",
            low=1,
            high=1000,
            text="Number of sessions that a code admits; turns codes on even on loopback.",
            default="1",
        ),
    ] = None
    plaintext: Annotated[bool, flag("--plaintext", text="Allow sessions without encryption, to measure its cost.")] = (
        False
    )

    def check(self, is_once: bool = False) -> None:
        """Raises UsageError if the options contradict each other. is_once: whether one session is accepted."""
        if self.is_open and self.key is not None:
            raise UsageError("use either --open or --key: --open admits everyone, --key only those who have the file")
        if self.code_uses is not None and (self.is_open or self.key is not None):
            other = "--open" if self.is_open else "--key"
            raise UsageError(f"with {other} there is no code: leave --code-uses out")
        if is_once and (self.code_uses or 1) > 1:
            raise UsageError("--once accepts one session, so its code admits one: leave --code-uses out")


class Doorkeeper:
    """The rule by which a receiver admits senders, and what its user is told about it."""

    def __init__(
        self,
        arguments: AdmissionArguments,
        bind: str,
        sender_command: str,
        *,
        is_once: bool = False,
        quiet: bool = False,
        session_key: bytes | None = None,
    ) -> None:
        """Choose the rule; `announce` tells the user.

        sender_command: what the other machine runs, without the address, for example "nettool tcp-send FILE"
        quiet:          print warnings and the code only
        session_key:    a key that the receiver gives to clients that it admitted by code, for further connections

        Raises UsageError.
        """
        arguments.check(is_once)
        self._arguments, self._bind, self._sender_command, self._quiet = arguments, bind, sender_command, quiet
        self._is_once = is_once
        self._bound: Address | None = None
        self.rule = AdmissionRule(
            bind,
            key=None if arguments.key is None else read_key(arguments.key),
            is_open=arguments.is_open,
            code_uses=arguments.code_uses,
            is_once=is_once,
            session_key=session_key,
            on_code=self._on_new_code,
            on_code_ended=self._on_code_ended,
        )

    def announce(self, bound: Address, what_anyone_can_do: str) -> None:
        """Print the code, or a warning, once the receiver listens on `bound`."""
        self._bound = bound
        if self._arguments.is_open and not self.rule.is_loopback:
            print_warning(f"warning: anyone who can reach port {bound.port} can {what_anyone_can_do}")
        if self._arguments.plaintext:
            print_warning(
                "warning: with --plaintext, a sender can turn encryption off; others can then read and change its files"
            )
        if self.rule.code is not None:
            self._print_code(self.rule.code)
        elif not self._quiet:
            print_status("\n".join(self._sender_lines(bound, asks_for_code=False)))

    def _sender_lines(self, bound: Address, *, asks_for_code: bool) -> Sequence[str]:
        host = reachable_address(self._bind)
        target = host if bound.port == DEFAULT_PORT else str(Address(host, bound.port))
        options = ""
        if self._arguments.key is not None:
            options = f" --key {shlex.quote(self._arguments.key.name)}"
        elif self._arguments.is_open and not self.rule.is_loopback:
            options = " --open"
        command = f"{self._sender_command}{options} {shlex.quote(target)}"
        return sender_lines(command, is_loopback=self.rule.is_loopback, asks_for_code=asks_for_code)

    def _on_code_ended(self, code: Code, reason: CodeEnd) -> None:
        if reason is CodeEnd.WRONG_TRIES:
            print_status(
                f"code {code.nameplate} has ended after three wrong tries: a sender mistyped it, or someone is guessing"
            )
        elif not (self._quiet or self._is_once):
            print_status(f"code {code.nameplate} has been used; the next session needs the next code")

    def _on_new_code(self, code: Code) -> None:
        if self._bound is not None:  # else `announce` will print it
            self._print_code(code)

    def _print_code(self, code: Code) -> None:
        assert self._bound is not None
        uses = self._arguments.code_uses or 1
        lines = [f"code: {code}"]
        if not self._quiet:
            sessions = "one session" if uses == 1 else f"{uses} sessions"
            lines[0] += f" (for {sessions})"
            lines += self._sender_lines(self._bound, asks_for_code=True)
            lines += _qr_code(str(code))
        print_status("\n".join(lines))


def with_credential(given: Credential, attempt: Callable[[Credential], _T]) -> _T:
    """Return `attempt(given)`. If nothing is given and the receiver asks for a code, ask the user, and try once more.

    Raises what `attempt` raises; CredentialRequiredError also if there is no terminal to ask at.
    """
    try:
        return attempt(given)
    except CredentialRequiredError as error:
        if not error.is_code:
            raise
        with user_terminal() as user:
            code = None if user is None else _ask_for_code(user)
        if code is None:
            raise CredentialRequiredError(f"{error}, or set {CODE_VARIABLE}", is_code=True) from error
    return attempt(code.credential)


def check_receiver(access: CredentialArguments, given: Credential, receiver: Address) -> None:
    """Print a warning if nothing shows who the connected receiver is: another machine may have answered in its place.

    Raises UsageError if the user has not allowed that with --open: a name had addresses of this machine only when
    `credential_for` looked, and another one when it was connected to.
    """
    try:
        is_proven = check_connected(given, receiver, is_open=access.is_open)
    except UnprovenReceiverError:
        raise UsageError(NO_CREDENTIAL) from None
    if not is_proven:
        warn_of(receiver)


def warn_of(receiver: Address) -> None:
    """Print a warning: nothing shows who the connected receiver is."""
    print_warning(
        f"warning: {receiver} asks for no code and no key, so it may be another machine: "
        "if it should have asked, stop this command and check the address"
    )


def _ask_for_code(user: Terminal) -> Code | None:
    """Read a code from the terminal; None if the user enters nothing, or fails to type one _PROMPTS times."""
    for _ in range(_PROMPTS):
        line = user.ask("code that the receiver shows: ")
        if not line:
            return None
        try:
            return parse_code(line)
        except UsageError as error:
            user.show(in_columns(str(error), stderr_columns()) + "\n")
    return None


def _qr_code(text: str) -> Sequence[str]:
    """Return the lines of a QR code, which a phone can read instead of a person; [] if the terminal is small."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # not a terminal; without a descriptor; closed by the parent
        return []
    if size.columns < _QR_COLUMNS or size.lines < _QR_LINES:
        return []
    import segno  # takes a twentieth of a second, and most receivers print no picture

    picture = io.StringIO()
    segno.make(text, micro=False).terminal(picture, border=2, compact=True)
    return picture.getvalue().rstrip("\n").split("\n")
