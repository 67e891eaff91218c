"""`nettool talk` between two processes: lines both ways at once, and what others are told who connect by mistake."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.background import together
from tests.support.cli_process import LIMIT_S, NETTOOL, Receiver, nettool
from tests.support.forked_cli import ForkedCli
from tests.support.terminal import at_terminal
from toolkit.emulator.link import Link
from toolkit.netmodel.spec import LinkSpec, PathSpec

pytestmark = pytest.mark.usefixtures("warm")


def listening(*options: str, said: bytes = b"") -> Receiver:
    started = Receiver(ForkedCli(["talk", "--listen", "--port", "0", *options], said))
    started.port = int(started.wait_for(r"listening on \S+:([0-9]+) ")[1])
    return started


def test_lines_go_both_ways_in_pipes(transport: str) -> None:
    ours, theirs = ("".join(f"{side} {number}\n" for number in range(3000)) for side in ("ours", "theirs"))
    other = listening(said=theirs.encode())
    ended = nettool("talk", f"--{transport}", other.target, stdin=ours.encode())
    assert (ended.code, ended.stdout) == (0, theirs)
    assert re.search(r"lines sent 3,000, received 3,000$", ended.stderr.strip())
    heard = other.end()
    assert (heard.code, heard.stdout) == (0, ours)


@pytest.mark.parametrize(("only", "command"), [("--tcp", "nettool talk"), ("--udp", "nettool talk --udp")])
def test_the_listener_says_who_can_reach_it_and_what_to_type_there(only: str, command: str) -> None:
    other = listening(only)
    other.wait_for("this machine only\nfor other machines, start it with --bind 0.0.0.0\n")
    shown = other.wait_for("run this command:\n  (.+)\n")[1]
    assert shown == f"{command} {other.target}"
    assert nettool(*shown.split()[1:], stdin=b"hello\n").code == 0
    assert other.end().stdout == "hello\n"


def test_whoever_ends_first_at_a_terminal_learns_that_the_other_side_may_go_on() -> None:
    with at_terminal("talk", "--listen", "--port", "0") as other:
        port = other.wait_for(r"listening on \S+:([0-9]+) ")[1]
        with at_terminal("talk", f"127.0.0.1:{port}") as ours:
            ours.wait_for("connected to")
            ours.type("\x04")
            ours.wait_for("your half has ended; the other side may go on")
            other.wait_for("the other side has said everything")
            other.type("\x04")
            status, _, shown = ours.end()
            assert (status, other.end()[0]) == (0, 0)
            assert "Ctrl-D ends your half" not in shown  # it has ended


def test_what_a_peer_says_cannot_change_the_terminal() -> None:
    other = listening(said=b"\x1b]0;title\x07\xff\n" + "a\tb\u3000c\u202e\n".encode())
    ended = nettool("talk", other.target)
    assert ended.stdout == "\\x1b]0;title\\x07\\xff\na\tb\u3000c\\u202e\n"
    assert other.end().code == 0


def test_with_json_lines_are_objects() -> None:
    other = listening(said="안녕\n".encode())
    ended = nettool("talk", "--json", other.target, stdin=b"hello\n")
    line, outcome = ended.stdout.splitlines()
    assert '"kind": "line"' in line
    assert '"sent": 1, "received": 1' in outcome
    assert other.end().stdout == "hello\n"


def test_a_conversation_ends_when_nobody_reads_it_any_more() -> None:
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*NETTOOL, "talk", "--listen", "--port", "0"], bufsize=0, **streams) as silent:
        try:
            target = Receiver(silent).wait_for(r"listening on (\S+) ")[1]
            with ForkedCli(["talk", target]) as process:
                process.stdout.close()
                assert process.wait(LIMIT_S) == 0  # though the other side goes on
                assert b"nobody reads standard output any more" in process.communicate()[1]
            assert silent.wait(LIMIT_S) == 4  # not everything was heard
        finally:
            silent.kill()


def test_a_file_that_is_sent_to_a_talk_is_refused_with_the_reason(transport: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    other = listening()
    ended = nettool(f"{transport}-send", tmp_path / "file", other.target)
    assert ended.code == 3
    assert "this is nettool talk" in ended.stderr
    assert other.end().code == 3


@pytest.mark.long  # TCP with CUBIC needs seconds for this at 5% loss
def test_ten_thousand_lines_each_way_over_a_path_with_loss(transport: str) -> None:
    ours, theirs = ("".join(f"{side} {number}\n" for number in range(10_000)) for side in ("ours", "theirs"))
    path = PathSpec(rate_bps=20e6, delay_ns=20_000_000, loss=0.05)
    talk = [*NETTOOL, "talk", f"--{transport}", "--open"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    with Link(LinkSpec(path, path, seed=5)) as link:
        far, near = None, None
        try:
            far = link.popen_far([*talk, "--listen", "--bind", "0.0.0.0"], **pipes)
            other = Receiver(far)
            other.wait_for("listening on")
            near = link.popen_near([*talk, "far"], **pipes)
            heard, answered = together(
                lambda: near.communicate(ours.encode(), LIMIT_S), lambda: far.communicate(theirs.encode(), LIMIT_S)
            )
        finally:
            for process in filter(None, (far, near)):
                process.kill()
                process.communicate()
    assert (near.returncode, far.returncode) == (0, 0), (
        f"{heard[1]!r} {answered[1]!r} {len(heard[0])} {len(answered[0])}"
    )
    assert (heard[0].decode(), answered[0].decode()) == (theirs, ours)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "either connect"),
        (["--listen", "127.0.0.1"], "either connect"),
        (["--port", "9001", "127.0.0.1"], "HOST:PORT"),
        (["--bind", "0.0.0.0", "127.0.0.1"], "say where --listen listens"),
        (["--tcp", "--udp", "127.0.0.1"], "use either --tcp or --udp"),
        (["--listen", "--code", "7-ocean-brick-lunar"], "leave --code out"),
    ],
)
def test_impossible_options_are_refused(options: list[str], message: str) -> None:
    ended = nettool("talk", *options)
    assert ended.code == 2
    assert message in ended.stderr


def test_off_loopback_a_code_admits_the_other_side(transport: str) -> None:
    other = listening("--bind", "0.0.0.0", said=b"welcome\n")
    code = other.wait_for(r"code: (\S+) ")[1]
    refused = nettool("talk", f"--{transport}", "--open", other.target)
    assert refused.code == 3
    assert "code" in refused.stderr
    ended = nettool("talk", f"--{transport}", "--code", code, other.target)
    assert (ended.code, ended.stdout) == (0, "welcome\n")
    assert other.end().code == 0
