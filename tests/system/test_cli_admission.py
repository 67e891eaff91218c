"""Sessions with codes and keys, from end to end: who comes in, who does not, and what each of them reads."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.background import Background
from tests.support.cli_process import Ended, Receiver, complaint, everything_below, nettool, receiver
from tests.support.terminal import at_terminal
from toolkit.channel import Address, TransportOptions
from toolkit.errors import ExitCode, PeerClosedError
from toolkit.security.code_admission import CodeAdmission
from toolkit.security.code_words import parse_code
from toolkit.transports import registry

pytestmark = pytest.mark.usefixtures("warm")
CODE = r"code: (\d+-[a-z]+-[a-z]+-[a-z]+)"
PROMPT = "code that the receiver shows: "


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key file."""
    return new_key(tmp_path / "lab.key")


@pytest.fixture(autouse=True)
def _no_controlling_terminal() -> None:
    """Commands ask at the terminals that these tests make; no test asks in this process."""


@pytest.fixture(autouse=True)
def _no_code_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NETTOOL_CODE", raising=False)


def new_key(path: Path) -> Path:
    assert nettool("keygen", path).code == 0
    return path


def send(transport: str, receiving: Receiver, file: Path, *options: str | Path) -> Ended:
    return nettool(f"{transport}-send", file, receiving.target, *options)


@contextmanager
def asking(incoming: Path, *options: str) -> Iterator[tuple[Receiver, str]]:
    """A receiver on loopback that asks for a code nevertheless, and its first code."""
    with receiver(incoming, "--code-uses", "1", *options) as receiving:
        yield receiving, receiving.wait_for(CODE)[1]


def code_number(receiving: Receiver, number: int) -> str:
    """Return the `number`-th code that the receiver has printed, counted from 1."""
    return receiving.wait_for(CODE, number)[1]


def wrong(code: str) -> str:
    """Another code with the same number."""
    return f"{parse_code(code).nameplate}-zoo-zoo-zoo"


def refused(ended: Ended, message: str) -> None:
    assert ended.code == ExitCode.UNREACHABLE
    assert re.search(message, complaint(ended)), ended.stderr


class UsedMeanwhile(CodeAdmission):
    """A code that another sender uses while the only one that matters to a test finishes its handshake."""

    def record_success(self, nameplate: bytes) -> bool:
        super().record_success(nameplate)
        return super().record_success(nameplate)


class TestCodes:
    """A code admits one session."""

    def test_the_right_code_admits_and_the_json_says_so(self, transport: str, incoming: Path, file: Path) -> None:
        with asking(incoming, "--once", "--json") as (receiving, code):
            sent = send(transport, receiving, file, "--json", "--code", code)
            received = receiving.end()
        assert (sent.code, received.code) == (0, 0), (sent, received)
        assert (incoming / file.name).read_bytes() == file.read_bytes()
        for shown in (sent.object, received.object):
            assert shown["authentication"] == "code"
            assert shown["encryption"] in ("aes-256-gcm", "chacha20-poly1305")

    def test_the_environment_can_hold_the_code(
        self, transport: str, incoming: Path, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with asking(incoming, "--once") as (receiving, code):
            monkeypatch.setenv("NETTOOL_CODE", code.upper().replace("-", " "))
            assert send(transport, receiving, file).code == 0

    def test_a_code_is_used_once_and_the_next_one_is_printed(self, transport: str, incoming: Path, file: Path) -> None:
        with asking(incoming, "--overwrite") as (receiving, code):
            assert send(transport, receiving, file, "--code", code).code == 0
            following = code_number(receiving, 2)
            assert following != code
            refused(send(transport, receiving, file, "--code", code), "this code has ended")
            assert send(transport, receiving, file, "--code", following).code == 0
            assert "has been used" in receiving.end(signal.SIGINT).stderr

    def test_a_code_can_admit_several_sessions(self, transport: str, incoming: Path, file: Path) -> None:
        with receiver(incoming, "--code-uses", "2", "--overwrite") as receiving:
            code = code_number(receiving, 1)
            for _ in range(2):
                assert send(transport, receiving, file, "--code", code).code == 0
            code_number(receiving, 2)
            refused(send(transport, receiving, file, "--code", code), "this code has ended")

    @pytest.mark.parametrize("command", [("tcp-send",), ("tcp-send", "--streams", "3"), ("udp-send",)])
    def test_of_two_senders_with_one_code_the_second_reads_that_it_has_ended(
        self, command: tuple[str, ...], file: Path
    ) -> None:
        """Both hold the receiver's answer when the first one finishes."""
        admission = UsedMeanwhile(lambda _code, _reason: None, lambda _code: None)
        listening = registry.transport(command[0][:3]).listen(
            Address("127.0.0.1", 0), TransportOptions(admission=admission, max_streams=3)
        )
        with closing(listening) as listener:
            accepting = Background(listener.accept)
            refused(
                nettool(*command, file, str(listener.address), "--code", str(admission.code)), "this code has ended"
            )
        with pytest.raises(PeerClosedError, match="this side has stopped listening"):
            accepting.outcome()

    def test_a_tcp_session_of_several_connections_uses_one_code(self, incoming: Path, file: Path) -> None:
        with asking(incoming, "--once") as (receiving, code):
            assert send("tcp", receiving, file, "--code", code, "--streams", "3").code == 0
            assert receiving.end().code == 0

    def test_without_a_code_and_a_terminal_the_sender_says_what_to_do(
        self, transport: str, incoming: Path, file: Path
    ) -> None:
        with asking(incoming) as (receiving, _):
            refused(send(transport, receiving, file), "asks for a code: add --code .*, or set NETTOOL_CODE")
        assert everything_below(incoming) == []

    def test_a_wrong_code_is_refused_and_the_third_ends_the_code(
        self, transport: str, incoming: Path, file: Path
    ) -> None:
        with asking(incoming) as (receiving, code):
            for _ in range(3):
                refused(send(transport, receiving, file, "--code", wrong(code)), "the code is wrong")
            following = code_number(receiving, 2)
            refused(send(transport, receiving, file, "--code", code), "this code has ended")
            assert everything_below(incoming) == []
            assert send(transport, receiving, file, "--code", following).code == 0
            assert "has ended after three wrong tries" in receiving.end(signal.SIGINT).stderr

    def test_a_number_that_the_receiver_never_showed(self, transport: str, incoming: Path, file: Path) -> None:
        with asking(incoming) as (receiving, code):
            other = re.sub(r"^\d+", str(parse_code(code).nameplate + 100), code)
            refused(send(transport, receiving, file, "--code", other), "no code with this number")


class TestPrompt:
    """A sender at a terminal asks for the code."""

    def test_the_sender_asks_and_sends(self, transport: str, incoming: Path, file: Path) -> None:
        with (
            asking(incoming, "--once") as (receiving, code),
            at_terminal(f"{transport}-send", "--json", file, receiving.target) as sending,
        ):
            sending.wait_for(PROMPT)
            sending.type(code.replace("-", " ") + "\n")
            status, output, shown = sending.end()
            assert (status, json.loads(output)["authentication"]) == (0, "code"), shown
            assert receiving.end().code == 0

    def test_what_is_no_code_is_explained_and_asked_again(self, transport: str, incoming: Path, file: Path) -> None:
        with (
            asking(incoming, "--once") as (receiving, code),
            at_terminal(f"{transport}-send", file, receiving.target) as sending,
        ):
            sending.wait_for(PROMPT)
            sending.type("lunar\n")
            sending.wait_for(f"a code begins with a number(?s:.*)\r\n{PROMPT}")
            sending.type(code + "\n")
            assert sending.end()[0] == 0

    @pytest.mark.parametrize(("typed", "code"), [("\x04", ExitCode.UNREACHABLE), ("\x03", ExitCode.INTERRUPTED)])
    def test_the_user_can_give_up(self, typed: str, code: ExitCode, incoming: Path, file: Path) -> None:
        with asking(incoming) as (receiving, _), at_terminal("tcp-send", file, receiving.target) as sending:
            sending.wait_for(PROMPT)
            sending.type(typed)
            assert sending.end()[0] == code

    def test_a_comparison_with_another_machine_asks_once_for_all_its_transfers(self, tmp_path: Path) -> None:
        records = tmp_path / "records.jsonl"
        options = ("--size", "64KiB", "--repeat", "1", "--no-control", "--transports", "udp", "--output", records)
        with at_terminal("serve", "--port", "0", "--code-uses", "1", cwd=tmp_path) as serving:
            port = serving.wait_for(r"listening on \S+:(\d+) ")[1]
            code = serving.wait_for(CODE)[1]
            with at_terminal("bench", "remote", f"127.0.0.1:{port}", *options, cwd=tmp_path) as comparing:
                comparing.wait_for(PROMPT)
                comparing.type(code + "\n")
                status, _, shown = comparing.end()
        assert status == 0, shown
        assert shown.count(PROMPT) == 1
        assert code not in records.read_text()

    def test_a_sender_of_standard_input_asks_at_its_terminal(self, transport: str, incoming: Path, file: Path) -> None:
        """Neither stdin nor stderr is the terminal, as in `nettool tcp-send - HOST < file 2> log`."""
        with (
            asking(incoming, "--once") as (receiving, code),
            at_terminal(f"{transport}-send", "-", receiving.target, stdin=file) as sending,
        ):
            sending.wait_for(PROMPT)
            sending.type("lunar\n")
            sending.wait_for(f"a code begins with a number(?s:.*)\r\n{PROMPT}")
            sending.type(code + "\n")
            status, output, shown = sending.end()
            assert status == 0, (output, shown)
            assert PROMPT not in output
        assert (incoming / "stdin").read_bytes() == file.read_bytes()

    def test_a_sender_in_the_background_of_its_terminal_says_what_to_do(self, incoming: Path, file: Path) -> None:
        """The system would stop it if it read the terminal."""
        in_background = ("sh", "-c", 'set -m; "$@" & wait $!', "sh")
        with (
            asking(incoming) as (receiving, _),
            at_terminal("tcp-send", "-", receiving.target, stdin=file, wrapper=in_background) as sending,
        ):
            status, output, shown = sending.end()
        assert (status, shown) == (ExitCode.UNREACHABLE, "")
        assert "asks for a code: add --code with the code that it shows, or set NETTOOL_CODE" in output

    def test_standard_input_that_is_sent_is_not_asked(self, incoming: Path) -> None:
        with asking(incoming) as (receiving, _):
            refused(nettool("tcp-send", "-", receiving.target, stdin=b"7-ocean-brick-lunar\n"), "asks for a code")


class TestKeys:
    """A key file admits whoever has it."""

    def test_the_same_key_admits_any_number_of_sessions(
        self, transport: str, incoming: Path, file: Path, key: Path
    ) -> None:
        with receiver(incoming, "--key", str(key), "--overwrite") as receiving:
            for _ in range(2):
                sent = send(transport, receiving, file, "--json", "--key", key)
                assert (sent.code, sent.object["authentication"]) == (0, "key")

    def test_another_key_is_refused(self, transport: str, incoming: Path, file: Path, key: Path) -> None:
        other = new_key(key.with_name("other.key"))
        with receiver(incoming, "--key", str(key)) as receiving:
            refused(send(transport, receiving, file, "--key", other), "the receiver has a different key")
            refused(send(transport, receiving, file), "the receiver asks for a key: copy its key file .* with --key")
            refused(send(transport, receiving, file, "--code", "7-ocean-brick-lunar"), "asks for a key")
        assert everything_below(incoming) == []

    def test_a_key_or_code_that_the_receiver_does_not_ask_for_is_refused(
        self, transport: str, incoming: Path, file: Path, key: Path
    ) -> None:
        with receiver(incoming) as receiving:
            for options in (["--key", key], ["--code", "7-ocean-brick-lunar"]):
                refused(send(transport, receiving, file, *options), "asks for no code and no key")
        with asking(incoming) as (receiving, _):
            refused(send(transport, receiving, file, "--key", key), "asks for a code")
        assert everything_below(incoming) == []


class TestPlaintext:
    """A session without encryption, if both ends want it."""

    def test_both_ends_have_to_want_it(self, transport: str, incoming: Path, file: Path) -> None:
        with receiver(incoming, "--plaintext", "--overwrite") as receiving:
            bare = send(transport, receiving, file, "--json", "--plaintext")
            sealed = send(transport, receiving, file, "--json")
            assert (bare.code, bare.object["encryption"]) == (0, "none")
            assert (sealed.code, sealed.object["encryption"] != "none") == (0, True)
        with receiver(incoming) as receiving:
            refused(send(transport, receiving, file, "--plaintext"), "does not allow plaintext: leave out --plaintext")

    def test_only_a_session_without_encryption_is_called_so(self, transport: str, incoming: Path, file: Path) -> None:
        with receiver(incoming, "--plaintext", "--overwrite") as receiving:
            assert "not encrypted" not in send(transport, receiving, file).stdout
            assert ", not encrypted, over " in send(transport, receiving, file, "--plaintext").stdout
            receiving.wait_for("received .*, not encrypted from ")

    def test_plaintext_still_needs_the_code(self, transport: str, incoming: Path, file: Path) -> None:
        with asking(incoming, "--plaintext", "--once") as (receiving, code):
            refused(send(transport, receiving, file, "--plaintext"), "asks for a code")
            sent = send(transport, receiving, file, "--plaintext", "--json", "--code", code)
            shown = sent.object
        assert (sent.code, shown["encryption"], shown["authentication"]) == (0, "none", "code")
