"""Admission: what receivers print, what senders must present, and every refusal, as users meet them."""

import re
import shlex
import signal
from pathlib import Path

import pytest

from tests.support.cli_process import complaint, nettool_here, receiver
from tests.support.terminal import at_terminal
from toolkit.channel import Address
from toolkit.errors import ExitCode
from toolkit.security.code_words import Code, parse_code

pytestmark = pytest.mark.usefixtures("warm")
CODE = r"code: (\d+-[a-z]+-[a-z]+-[a-z]+)"


def made_key(path: Path) -> Path:
    assert nettool_here("keygen", path).code == 0
    return path


class TestUsage:
    """Options that contradict each other, and files that cannot be used: one line, before a socket is opened."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--open", "--key", "KEY"], "use either --open or --key"),
            (["--open", "--code-uses", "2"], "with --open there is no code: leave --code-uses out"),
            (["--key", "KEY", "--code-uses", "2"], "with --key there is no code: leave --code-uses out"),
            (["--once", "--code-uses", "2"], "--once accepts one session"),
            (["--code-uses", "0"], "out of range: use 1 to 1000"),
            (["--key", "missing"], "cannot read the key file missing: no such file or directory"),
            (["--key", "README"], "README is not a key file: make one with 'nettool keygen FILE'"),
            (["--key", "SHARED"], "others can use the key file SHARED: run 'chmod 600 SHARED'"),
        ],
    )
    @pytest.mark.parametrize("command", ["recv", "tcp-recv", "udp-recv", "serve"])
    def test_receivers(self, command: str, options: list[str], message: str, tmp_path: Path) -> None:
        if command == "serve" and "--once" in options:
            pytest.skip("serve has no --once")
        files_for(tmp_path)
        ended = nettool_here(command, *options, cwd=tmp_path)
        assert ended.code == ExitCode.USAGE
        assert message in complaint(ended)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--code", "7-ocean-brick-lunar", "--key", "KEY"], "use either --code or --key"),
            (["--open", "--key", "KEY"], "use either --open or --key"),
            (["--open", "--code", "7-ocean-brick-lunar"], "use either --open or --code"),
            (["--code", "ocean-brick-lunar"], "a code begins with a number"),
            (["--code", "7-ocean-brick"], "a code has 3 words after its number, not 2"),
            (["--code", "7-ocean-brick-xyzzy"], "no word of a code begins with 'xyzzy'"),
            (["--key", "missing"], "cannot read the key file missing"),
            (["--key", "README"], "README is not a key file"),
            (["--key", "SHARED"], "run 'chmod 600 SHARED'"),
        ],
    )
    @pytest.mark.parametrize("command", [["tcp-send", "README"], ["udp-send", "README"], ["bench", "remote"]])
    def test_senders(self, command: list[str], options: list[str], message: str, tmp_path: Path) -> None:
        files_for(tmp_path)
        ended = nettool_here(*command, "127.0.0.1:9", *options, cwd=tmp_path)
        assert ended.code == ExitCode.USAGE
        assert message in complaint(ended)

    @pytest.mark.parametrize("command", [["tcp-send", "README"], ["udp-send", "README"], ["bench", "remote"]])
    def test_off_loopback_senders_need_something_before_they_connect(self, command: list[str], tmp_path: Path) -> None:
        files_for(tmp_path)
        ended = nettool_here(*command, "192.0.2.7", cwd=tmp_path)
        assert ended.code == ExitCode.USAGE
        assert complaint(ended) == (
            "nettool: add --code (or set NETTOOL_CODE), --key, or --open if the receiver runs with --open"
        )

    def test_a_malformed_code_in_the_environment_is_a_usage_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files_for(tmp_path)
        monkeypatch.setenv("NETTOOL_CODE", "no code")
        ended = nettool_here("tcp-send", "README", "127.0.0.1:9", cwd=tmp_path)
        assert (ended.code, "a code begins with a number" in complaint(ended)) == (ExitCode.USAGE, True)


def files_for(folder: Path) -> None:
    """Make a key file, one that others can read, and a file that is none."""
    made_key(folder / "KEY")
    made_key(folder / "SHARED").chmod(0o644)
    (folder / "README").write_text("hello")
    (folder / "README").chmod(0o600)


class TestKeygen:
    """The command that makes key files."""

    def test_it_says_what_to_do_with_the_file_and_shows_no_key(self, tmp_path: Path) -> None:
        ended = nettool_here("keygen", "lab.key", cwd=tmp_path)
        assert (ended.code, ended.stderr) == (0, "")
        assert "--key" in ended.stdout
        key = (tmp_path / "lab.key").read_text().split()[-1]
        assert key not in ended.stdout
        assert (tmp_path / "lab.key").stat().st_mode & 0o777 == 0o600

    def test_json_and_quiet(self, tmp_path: Path) -> None:
        shown = nettool_here("keygen", "--json", "a.key", cwd=tmp_path).object
        assert (shown["kind"], shown["file"]) == ("key", "a.key")
        assert nettool_here("keygen", "--quiet", "b.key", cwd=tmp_path).stdout == ""

    def test_an_existing_file_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "lab.key").write_text("precious")
        ended = nettool_here("keygen", "lab.key", cwd=tmp_path)
        assert ended.code == ExitCode.USAGE
        assert "exists and will not be overwritten" in complaint(ended)
        assert (tmp_path / "lab.key").read_text() == "precious"


class TestAnnouncement:
    """What a receiver prints about whom it admits."""

    @pytest.mark.parametrize("bind", ["127.0.0.1", "localhost", "::1"])
    def test_on_loopback_nothing_is_asked(self, bind: str, incoming: Path) -> None:
        with receiver(incoming, "--bind", bind) as receiving:
            command = receiving.wait_for(r"on this machine, run this command:\n  (.+)\n")[1]
            assert command == f"nettool send FILE {shlex.quote(str(Address(bind, receiving.port)))}"
            printed = receiving.end(signal.SIGINT).stderr
        assert "code" not in printed
        assert "this machine only\nfor other machines, start it with --bind 0.0.0.0\n" in printed  # --dir is given

    def test_off_loopback_the_code_is_printed_with_the_command_of_the_sender(self, incoming: Path) -> None:
        with receiver(incoming, "--bind", "0.0.0.0") as receiving:
            code = receiving.wait_for(CODE + r" \(for one session\)\n")[1]
            command = receiving.wait_for(r"run this command and enter the code:\n  (.+)\n")[1]
            assert isinstance(parse_code(code), Code)
            assert re.fullmatch(rf"nettool send FILE [\w.:]+:{receiving.port}", command)
            printed = receiving.end(signal.SIGINT).stderr
        assert "warning" not in printed

    @pytest.mark.parametrize(
        ("command", "options", "shown"),
        [
            (
                "udp-recv",
                ["--code-uses", "3"],
                r"\(for 3 sessions\)\n.*\n  nettool udp-send FILE '?\[?[\w.:]+\]?:\d+'?\n",
            ),
            ("recv", ["--transport", "udp"], r"\(for one session\)\n.*\n  nettool udp-send FILE "),
            ("recv", ["--bind", "::"], r"\(for one session\)\n.*\n  nettool send FILE "),
        ],
    )
    def test_the_command_fits_the_receiver(self, command: str, options: list[str], shown: str, incoming: Path) -> None:
        with receiver(incoming, "--bind", "0.0.0.0", *options, command=command) as receiving:
            receiving.wait_for(CODE + " " + shown)

    def test_a_code_can_be_demanded_on_loopback(self, incoming: Path) -> None:
        with receiver(incoming, "--code-uses", "1") as receiving:
            receiving.wait_for(CODE)

    def test_quiet_receivers_print_the_code_and_nothing_else(self, incoming: Path) -> None:
        with at_terminal("recv", "-q", "--dir", incoming, "--bind", "0.0.0.0", "--port", "0") as receiving:
            receiving.wait_for(CODE + r"\r\n")
            receiving.process.send_signal(signal.SIGINT)
            assert receiving.end()[2].count("\n") == 1

    def test_a_key_needs_no_code_and_no_warning(self, incoming: Path, tmp_path: Path) -> None:
        key = made_key(tmp_path / "lab.key")
        with receiver(incoming, "--bind", "0.0.0.0", "--key", str(key)) as receiving:
            receiving.wait_for(r"\n  nettool send FILE --key lab\.key \S+\n")
            printed = receiving.end(signal.SIGINT).stderr
        assert "code:" not in printed
        assert "warning" not in printed

    def test_an_open_receiver_warns_unless_only_this_machine_reaches_it(self, incoming: Path) -> None:
        with receiver(incoming, "--bind", "0.0.0.0", "--open") as receiving:
            receiving.wait_for(r"\nwarning: anyone who can reach port \d+ can send files to this machine\n")
        with receiver(incoming, "--open") as receiving:
            assert "warning" not in receiving.end(signal.SIGINT).stderr

    def test_a_receiver_that_allows_plaintext_warns(self, incoming: Path) -> None:
        with receiver(incoming, "--plaintext") as receiving:
            receiving.wait_for("\nwarning: with --plaintext, .*a sender can turn encryption off")

    def test_the_warning_is_red_at_a_terminal(self, incoming: Path) -> None:
        options = ["--dir", incoming, "--bind", "0.0.0.0", "--port", "0", "--open"]
        with at_terminal("recv", *options) as receiving:
            receiving.wait_for("\x1b\\[1;31mwarning: anyone who can reach port")
        with at_terminal("recv", *options, environment={"NO_COLOR": "1"}) as receiving:
            assert "31m" not in receiving.wait_for(".*warning: anyone who can reach port")[0]

    @pytest.mark.parametrize(("lines", "columns", "is_drawn"), [(40, 100, True), (39, 100, False), (40, 99, False)])
    def test_a_large_terminal_shows_the_code_as_a_picture(
        self, lines: int, columns: int, is_drawn: bool, incoming: Path
    ) -> None:
        options = ["--dir", incoming, "--bind", "0.0.0.0", "--port", "0"]
        with at_terminal("recv", *options, lines=lines, columns=columns) as receiving:
            receiving.wait_for("  nettool send FILE .*\n")
            receiving.process.send_signal(signal.SIGINT)
            shown = receiving.end()[2]
        assert ("\u2588" in shown) == is_drawn
        assert max(map(len, shown.splitlines())) <= 200

    def test_serve_names_the_command_of_the_measuring_machine(self, tmp_path: Path) -> None:
        with at_terminal("serve", "--bind", "0.0.0.0", "--port", "0", cwd=tmp_path) as serving:
            serving.wait_for(CODE + r" \(for one session\)\r\n.*\r\n  nettool bench remote ")

    @pytest.mark.parametrize("command", ["recv", "serve"])
    def test_a_name_with_another_address_when_it_is_bound_serves_nobody(
        self, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("toolkit.api.admission.is_loopback", lambda _bind: True)
        ended = nettool_here(command, "--bind", "0.0.0.0", "--port", "0", cwd=tmp_path)
        assert ended.code == ExitCode.USAGE
        assert "bind to an IP address" in complaint(ended)

    def test_off_loopback_a_directory_has_to_be_named(self, tmp_path: Path) -> None:
        ended = nettool_here("recv", "--bind", "0.0.0.0", cwd=tmp_path)
        assert ended.code == ExitCode.USAGE
        assert "--dir" in complaint(ended)
