"""Admission, as far as it can be decided without a socket."""

import io
import socket
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from toolkit.channel import Address
from toolkit.cli.access import (
    AdmissionArguments,
    CredentialArguments,
    Doorkeeper,
    check_receiver,
    with_credential,
)
from toolkit.errors import CredentialRequiredError, RefusedError, UsageError
from toolkit.security.admission import KeyAdmission, Method
from toolkit.security.code_admission import CodeAdmission
from toolkit.security.code_words import parse_code
from toolkit.security.credentials import CodeCredential, Credential, KeyCredential, NoCredential
from toolkit.security.key_file import read_key, write_new_key

CODE = "7-ocean-brick-lunar"


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key file."""
    path = tmp_path / "lab.key"
    write_new_key(path)
    return path


class TestCredential:
    """Where a sender's credential comes from."""

    def test_an_option_wins_over_the_environment(self, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NETTOOL_CODE", "8-ocean-brick-lunar")
        assert CredentialArguments(code=CODE).credential() == parse_code(CODE).credential
        assert CredentialArguments(key=key).credential() == KeyCredential(read_key(key))
        assert CredentialArguments().credential() == parse_code("8-ocean-brick-lunar").credential

    def test_nothing_and_an_empty_variable_are_no_credential(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NETTOOL_CODE", raising=False)
        assert CredentialArguments().credential() == NoCredential()
        monkeypatch.setenv("NETTOOL_CODE", "")
        assert CredentialArguments().credential() == NoCredential()

    def test_open_wins_over_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NETTOOL_CODE", CODE)
        assert CredentialArguments(is_open=True).credential() == NoCredential()

    def test_a_name_that_led_to_this_machine_only_when_it_was_looked_up_gets_nothing(self) -> None:
        with pytest.raises(UsageError, match="--open if the receiver runs with --open"):
            check_receiver(CredentialArguments(), NoCredential(), Address("192.0.2.7", 9000))


class TestBeforeConnecting:
    """Off loopback, a sender has a code, a key or its user's consent before it contacts anybody."""

    @pytest.fixture(autouse=True)
    def _no_code_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NETTOOL_CODE", raising=False)

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
    def test_this_machine_gets_no_question(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = terminal(monkeypatch)
        assert CredentialArguments().credential_for(Address(host, 9000)) == NoCredential()
        assert screen.getvalue() == ""

    @pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "0.0.0.0"])
    def test_at_a_terminal_the_user_is_asked(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = terminal(monkeypatch)
        assert CredentialArguments().credential_for(Address(host, 9000)) == parse_code(CODE).credential
        assert screen.getvalue() == "code that the receiver shows: "

    @pytest.mark.parametrize("typed", ["", "\n", " \n", "one\ntwo\nthree\n"])
    def test_a_user_who_enters_no_code_reads_the_alternatives(
        self, typed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        terminal(monkeypatch, typed)
        with pytest.raises(
            UsageError, match=r"add --code \(or set NETTOOL_CODE\), --key, or --open if the receiver runs with --open"
        ):
            CredentialArguments().credential_for(Address("192.0.2.7", 9000))

    def test_one_address_elsewhere_is_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = [(socket.AF_INET, 0, 0, "", (host, 9000)) for host in ("127.0.0.1", "192.0.2.7")]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
        with pytest.raises(UsageError, match=r"^add --code"):
            CredentialArguments().credential_for(Address("far.example", 9000))

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (CredentialArguments(is_open=True), NoCredential()),
            (CredentialArguments(code=CODE), parse_code(CODE).credential),
        ],
    )
    def test_who_has_said_it_is_not_asked(
        self, arguments: CredentialArguments, expected: Credential, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        screen = terminal(monkeypatch)
        assert arguments.credential_for(Address("192.0.2.7", 9000)) == expected
        assert screen.getvalue() == ""


def terminal(monkeypatch: pytest.MonkeyPatch, typed: str = CODE + "\n") -> Terminal:
    """Make stdin and stderr terminals, at which the user types `typed`; return what shows stderr."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


class TestPrompt:
    """When a sender asks its user."""

    @staticmethod
    def attempts(error: RefusedError) -> tuple[list[Credential], Credential]:
        """Connect to a receiver that fails the first attempt; return every credential, and the accepted one."""
        given: list[Credential] = []

        def attempt(credential: Credential) -> Credential:
            given.append(credential)
            if len(given) == 1:
                raise error
            return credential

        return given, with_credential(NoCredential(), attempt)

    def test_at_a_terminal_the_user_is_asked_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = terminal(monkeypatch)
        given, accepted = self.attempts(CredentialRequiredError("needed", is_code=True))
        assert given == [NoCredential(), parse_code(CODE).credential]
        assert isinstance(accepted, CodeCredential)
        assert screen.getvalue() == "code that the receiver shows: "

    @pytest.mark.parametrize("name", ["stdin", "stderr"])
    @pytest.mark.parametrize("is_closed", [True, False])
    def test_without_a_terminal_nobody_is_asked(
        self, name: str, is_closed: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        screen = terminal(monkeypatch)
        monkeypatch.setattr(sys, name, None if is_closed else io.StringIO(CODE + "\n"))
        with pytest.raises(CredentialRequiredError):
            self.attempts(CredentialRequiredError("needed", is_code=True))
        assert screen.getvalue() == ""

    @pytest.mark.parametrize(
        "error", [CredentialRequiredError("a key is needed", is_code=False), RefusedError("the code is wrong")]
    )
    def test_other_refusals_ask_nothing(self, error: RefusedError, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = terminal(monkeypatch)
        with pytest.raises(type(error)):
            self.attempts(error)
        assert screen.getvalue() == ""

    def test_after_three_lines_that_are_no_code_the_refusal_stands(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = terminal(monkeypatch, "one\ntwo\nthree\nfour\n")
        with pytest.raises(CredentialRequiredError):
            self.attempts(CredentialRequiredError("needed", is_code=True))
        assert screen.getvalue().count("a code begins with a number") == 3

    def test_what_is_wrong_with_a_line_fits_the_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = terminal(monkeypatch, f"7-wrong-code-here\n{CODE}\n")
        monkeypatch.setenv("COLUMNS", "50")
        self.attempts(CredentialRequiredError("needed", is_code=True))
        explained = screen.getvalue().split("code that the receiver shows: ")[1]
        assert "begins with 'here'" in explained
        assert all(len(line) <= 50 for line in explained.split("\n")), explained


class TestDoorkeeper:
    """What a receiver asks for."""

    @pytest.mark.parametrize(
        ("arguments", "bind", "method"),
        [
            (AdmissionArguments(), "127.0.0.1", Method.NONE),
            (AdmissionArguments(), "0.0.0.0", Method.CODE),
            (AdmissionArguments(), "", Method.CODE),
            (AdmissionArguments(), "192.0.2.7", Method.CODE),
            (AdmissionArguments(code_uses=1), "127.0.0.1", Method.CODE),
            (AdmissionArguments(is_open=True), "0.0.0.0", Method.NONE),
        ],
    )
    def test_the_rule_depends_on_who_can_reach_the_port(
        self, arguments: AdmissionArguments, bind: str, method: Method
    ) -> None:
        assert Doorkeeper(arguments, bind, "nettool tcp-send FILE").rule.admission.method is method

    @pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0"])
    def test_a_key_file_is_asked_for_wherever_it_is_given(self, bind: str, key: Path) -> None:
        admission = Doorkeeper(AdmissionArguments(key=key), bind, "").rule.admission
        assert isinstance(admission, KeyAdmission)
        assert admission.psk() == read_key(key)

    @pytest.mark.parametrize(
        ("arguments", "is_once"),
        [
            (AdmissionArguments(is_open=True, key=Path("k")), False),
            (AdmissionArguments(is_open=True, code_uses=1), False),
            (AdmissionArguments(key=Path("k"), code_uses=1), False),
            (AdmissionArguments(code_uses=2), True),
        ],
    )
    def test_options_that_contradict_each_other(self, arguments: AdmissionArguments, is_once: bool) -> None:
        with pytest.raises(UsageError):
            Doorkeeper(arguments, "0.0.0.0", "", is_once=is_once)

    @pytest.mark.parametrize(
        ("bind", "listening", "is_allowed"),
        [
            ("localhost", "127.0.0.1", True),
            ("127.0.0.1", "127.0.0.1", True),
            ("localhost", "192.0.2.7", False),
            ("localhost", "0.0.0.0", False),
            ("192.0.2.7", "127.0.0.1", True),
        ],
    )
    def test_a_name_that_has_changed_its_address_is_noticed(self, bind: str, listening: str, is_allowed: bool) -> None:
        doorkeeper = Doorkeeper(AdmissionArguments(), bind, "")
        with nullcontext() if is_allowed else pytest.raises(UsageError, match="bind to an IP address"):
            doorkeeper.rule.check_bound([Address(listening, 9000)])

    def test_codes_that_follow_are_printed_with_the_reason(self, capsys: pytest.CaptureFixture[str]) -> None:
        doorkeeper = Doorkeeper(AdmissionArguments(), "192.0.2.7", "nettool udp-send FILE")
        admission = doorkeeper.rule.admission
        assert isinstance(admission, CodeAdmission)
        doorkeeper.announce(Address("192.0.2.7", 9000), "send files")
        first = admission.code
        assert first is not None
        for _ in range(3):
            admission.record_wrong(first.credential.nameplate, bytes(4))
        second = admission.code
        assert second is not None
        admission.record_success(second.credential.nameplate)
        assert capsys.readouterr().err.splitlines() == [
            f"code: {first} (for one session)",
            "on the other machine, run this command and enter the code:",
            "  nettool udp-send FILE 192.0.2.7",
            f"code {first.nameplate} has ended after three wrong tries: a sender mistyped it, or someone is guessing",
            f"code: {second} (for one session)",
            "on the other machine, run this command and enter the code:",
            "  nettool udp-send FILE 192.0.2.7",
            f"code {second.nameplate} has been used; the next session needs the next code",
            f"code: {admission.code} (for one session)",
            "on the other machine, run this command and enter the code:",
            "  nettool udp-send FILE 192.0.2.7",
        ]

    def test_with_once_the_only_code_is_not_followed_by_another(self, capsys: pytest.CaptureFixture[str]) -> None:
        doorkeeper = Doorkeeper(AdmissionArguments(), "192.0.2.7", "", is_once=True)
        admission = doorkeeper.rule.admission
        assert isinstance(admission, CodeAdmission)
        doorkeeper.announce(Address("192.0.2.7", 9000), "send files")
        assert admission.code is not None
        admission.record_success(admission.code.credential.nameplate)
        assert capsys.readouterr().err.count("\ncode: ") == 0

    def test_an_ipv6_address_is_quoted_for_the_shell(self, capsys: pytest.CaptureFixture[str]) -> None:
        doorkeeper = Doorkeeper(AdmissionArguments(), "2001:db8::7", "nettool tcp-send FILE")
        doorkeeper.announce(Address("2001:db8::7", 9001), "send files")
        assert capsys.readouterr().err.splitlines()[2] == "  nettool tcp-send FILE '[2001:db8::7]:9001'"


@pytest.mark.parametrize(
    ("given", "host", "expected"),
    [
        (NoCredential(), "192.0.2.7", True),
        (NoCredential(), "2001:db8::7", True),
        (NoCredential(), "127.0.0.1", False),
        (NoCredential(), "::1", False),
        (KeyCredential(bytes(32)), "192.0.2.7", False),
        (parse_code(CODE).credential, "192.0.2.7", False),
    ],
)
def test_a_sender_warns_if_nothing_shows_who_the_receiver_is(
    given: Credential, host: str, expected: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    check_receiver(CredentialArguments(is_open=True), given, Address(host, 9000))
    assert ("asks for no code and no key" in capsys.readouterr().err) == expected
