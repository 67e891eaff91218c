"""`nettool link` as its users meet it."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from tests.support.cli_process import NETTOOL, complaint, nettool
from tests.support.link_ends import NOBODY, becoming_nobody, needs, needs_tun, without_namespaces
from toolkit.emulator.link import Link
from toolkit.emulator.run import run_behind
from toolkit.errors import UsageError
from toolkit.netmodel.spec import LinkSpec

root_only = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="not root: nobody else can become nobody")]
with_tun = pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="this machine has no /dev/net/tun")


def came_true(condition: Callable[[], bool], limit_s: float = 20.0) -> bool:
    """Whether `condition` held before the time was up; what the kernel does on its own sends no event."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        os.sched_yield()
    return True


class TestAsRoot:
    """What root sees of a link."""

    pytestmark = needs_tun

    def test_the_exit_code_is_the_commands(self) -> None:
        ended = nettool("link", "--rtt", "1ms", "--", "sh", "-c", "echo out; exit 7")
        assert ended.code == 7
        assert ended.stdout == "out\n"
        assert "near -> far: 0 packets offered" in ended.stderr

    def test_a_signal_is_told_as_a_shell_tells_it(self) -> None:
        assert nettool("link", "-q", "--", "sh", "-c", "kill -TERM $$").code == 143

    def test_the_far_end_has_a_name_and_an_address(self) -> None:
        script = 'getent hosts far near far6; echo "$NETTOOL_FAR $NETTOOL_NEAR $NETTOOL_FAR6"; pwd'
        ended = nettool("link", "-q", "--addresses", "10.9.8.0/30", "--", "sh", "-c", script, cwd=Path("/usr"))
        assert ended.stderr == ""
        lines = [line.split() for line in ended.stdout.splitlines()]
        assert lines == [
            ["10.9.8.2", "far"],
            ["10.9.8.1", "near"],
            ["2001:2::a09:802", "far6"],
            ["10.9.8.2", "10.9.8.1", "2001:2::a09:802"],
            ["/usr"],
        ]

    def test_the_far_command_is_there_first(self) -> None:
        server = "python3 -c \"import socket; s = socket.create_server(('', 7)); c, _ = s.accept(); c.send(b'hello')\""
        client = "import socket; print(socket.create_connection(('far', 7)).recv(5).decode())"
        ended = nettool("link", "--rtt", "20ms", "--far", server, "--", "python3", "-c", client)
        assert (ended.code, ended.stdout) == (0, "hello\n"), ended

    def test_json_is_all_there_is_on_stdout(self) -> None:
        ended = nettool("link", "--json", "--seed", "5", "--", "sh", "-c", "echo out; exit 3")
        assert ended.code == 3
        assert ended.object["kind"] == "link"
        assert ended.object["exit_code"] == 3
        assert ended.object["seed"] == 5
        assert ended.object["forward"]["imbalance_packets"] == 0
        assert ended.stderr == "out\n"

    def test_root_has_names_for_ip_netns(self) -> None:
        with Link(LinkSpec()) as link, link.popen_near(["true"]) as _:
            names = [name for name in os.listdir("/run/netns") if name.startswith("nettool-")]
            near = next(name for name in names if name.endswith("-near") and Path("/run/netns", name).exists())
            inode = Path("/run/netns", near).stat().st_ino
            assert inode != Path("/proc/self/ns/net").stat().st_ino

    @pytest.mark.timing
    @pytest.mark.parametrize("harm", [("--loss", "5%"), ("--duplicate", "10%"), ("--loss", "100%")])
    def test_the_check_measures_a_modest_link(self, harm: tuple[str, ...]) -> None:
        ended = nettool("link", "--check", "--json", "--rate", "20Mbit", "--rtt", "10ms", *harm)
        findings = {finding["what"]: finding for finding in ended.object["findings"]}
        assert findings["rate, near -> far"]["is_met"]
        assert findings["loss, near -> far"]["is_met"]
        assert ended.object["findings"][0]["measured"].endswith("0 of 200 echoes answered" if "100%" in harm else "ms")

    @pytest.mark.timing
    def test_the_check_says_plainly_what_cannot_be_had(self) -> None:
        ended = nettool("link", "--check", "--rate", "90Gbit", "--rtt", "1ms")
        assert ended.code == 4
        verdict = ended.stdout.splitlines()[-1]
        assert verdict.startswith("this machine cannot carry the requested link: ")
        assert "rate, near -> far" in verdict

    def test_netem_works_or_says_why_not(self) -> None:
        harm = (
            "--rtt",
            "10ms",
            "--rate",
            "10Mbit",
            "--jitter",
            "1ms",
            "--loss",
            "1%",
            "--duplicate",
            "1%",
            "--corrupt",
            "1%",
        )
        ended = nettool("link", "--emulator", "netem", *harm, "--", "true")
        if ended.code:
            assert "this kernel has no netem: leave out '--emulator netem'" in complaint(ended)
        else:
            assert "near -> far" in ended.stderr

    def test_addresses_in_use_are_refused(self) -> None:
        with Link(LinkSpec()) as outer:
            inside = [*NETTOOL, "link", "--", "true"]
            with outer.popen_near(inside, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                _, errors = process.communicate(timeout=20)
        assert process.returncode == 2
        assert b"is in use here" in errors
        assert b"--addresses" in errors

    def test_a_link_within_a_link(self) -> None:
        with Link(LinkSpec()) as outer:
            inside = [*NETTOOL, "link", "--addresses", "10.1.1.0/30", "--json", "--", "true"]
            with outer.popen_near(inside, stdout=subprocess.PIPE) as process:
                assert json.loads(process.communicate(timeout=20)[0])["exit_code"] == 0

    def test_a_far_command_that_fails_is_told(self) -> None:
        with Link(LinkSpec()) as link, pytest.raises(UsageError, match="exited with 1"):
            run_behind(link, ["true"], "false")

    @pytest.mark.parametrize("far", ["", "'", "no-such-command-at-all"])
    def test_a_far_command_that_cannot_be_run(self, far: str) -> None:
        ended = nettool("link", "--far", far, "--", "true")
        assert ended.code == 2
        complaint(ended)


@pytest.mark.parametrize(
    ("arguments", "complaint_holds"),
    [
        (("--", "no-such-command-at-all"), "command 'no-such-command-at-all' not found"),
        ((), "no command given"),
        (("--link", "moon", "--", "true"), "unknown link 'moon'"),
        (("--rate", "fast", "--", "true"), "is not a rate"),
        (("--loss", "150%", "--", "true"), "more than the whole"),
        (("--rtt", "40", "--", "true"), "is not a duration"),
        (("--emulator", "magic", "--", "true"), "unknown emulator 'magic'"),
        (("--addresses", "300.0.0.0/8", "--", "true"), "not an IPv4 network"),
        (("--trace", "/no/such/trace", "--", "true"), "cannot be read"),
        (("--mtu", "9", "--", "true"), "an MTU must lie between"),
        (("--seed", "x", "--", "true"), "seed"),
    ],
)
def test_nonsense_gets_one_line_and_a_way_out(arguments: tuple[str, ...], complaint_holds: str) -> None:
    ended = nettool("link", *arguments)
    assert ended.code == 2
    assert complaint_holds in complaint(ended)


def test_the_list_has_sources() -> None:
    ended = nettool("link", "--list", "--json")
    links = {link["name"]: link for link in ended.object["links"]}
    assert set(links) == {"lan", "wifi", "dsl", "lte", "starlink", "geo", "transatlantic", "lossy-wan"}
    assert all(link["sources"] for link in links.values())
    assert "starlink" in nettool("link", "--list").stdout


class TestAsNobody:
    """All of it without any right: a child of root becomes `nobody` before it starts."""

    pytestmark: ClassVar = [*root_only, with_tun]

    def test_a_command_behind_a_link(self) -> None:
        with becoming_nobody() as become:
            ended = nettool(
                "link",
                "--rtt",
                "2ms",
                "--loss",
                "10%",
                "--json",
                "--",
                "ping",
                "-q",
                "-c",
                "100",
                "-i",
                "0.002",
                "far",
                before=become,
            )
        assert ended.object["exit_code"] == 0, ended
        assert 0 < ended.object["forward"]["dropped_packets"]["loss"] < 30

    @pytest.mark.timing
    def test_the_check(self) -> None:
        with becoming_nobody() as become:
            ended = nettool("link", "--check", "--json", "--rate", "20Mbit", "--rtt", "10ms", before=become)
        # Whether a busy machine met it is another matter: an ordinary user's emulator has no precedence.
        assert len(ended.object["findings"]) == 8
        assert ended.code == (0 if ended.object["is_met"] else 4)
        assert {f["what"]: f["is_met"] for f in ended.object["findings"]}["loss, far -> near"]

    @needs("iperf3")
    @pytest.mark.timing
    def test_tcp_at_a_gigabit(self) -> None:
        with becoming_nobody() as become:
            ended = nettool(
                *("link", "--json", "--rate", "1Gbit", "--rtt", "10ms", "--far", "iperf3 -s -1"),
                *("--", "iperf3", "-c", "far", "-t", "3", "-C", "reno"),
                before=become,
            )
        assert ended.object["exit_code"] == 0, ended
        # What an idle machine carries is measured as root; here it is enough that offloads work as well.
        assert ended.object["forward"]["delivered_bytes"] * 8 / 3 > 0.5e9

    def test_a_plain_lan(self) -> None:
        with becoming_nobody() as become:
            ended = nettool("link", "--link", "lan", "--rate", "50Mbit", "--", "ping", "-c", "1", "far", before=become)
        assert ended.code == 0, ended

    def test_nothing_is_left_of_a_killed_one(self) -> None:
        with becoming_nobody() as become:
            process = subprocess.Popen(
                [*NETTOOL, "link", "--", "sh", "-c", f"setsid sleep 4712.{os.getpid()} & echo ready; sleep 60"],
                stdout=subprocess.PIPE,
                preexec_fn=become,
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            try:
                assert came_true(lambda: len(owned_by_nobody()) >= 4)
                theirs = owned_by_nobody()
            finally:
                process.kill()
                process.communicate()
            assert came_true(lambda: not owned_by_nobody() & theirs)

    def test_a_device_that_is_not_for_everybody(self) -> None:
        with becoming_nobody(device_mode=0o600) as become:
            ended = nettool("link", "--", "true", before=become)
        assert ended.code == 4
        assert "this user cannot open /dev/net/tun" in complaint(ended)

    def test_a_machine_without_the_device(self) -> None:
        with becoming_nobody(device_mode=None) as become:
            ended = nettool("link", "--", "true", before=become)
        assert ended.code == 4
        assert "no /dev/net/tun on this machine" in complaint(ended)

    def test_a_machine_without_user_namespaces(self) -> None:
        ended = nettool("link", "--", "true", before=without_namespaces)
        assert ended.code == 4
        assert "this user cannot make namespaces" in complaint(ended)


def owned_by_nobody() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == NOBODY and (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found
