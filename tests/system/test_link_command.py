"""`nettool link` as a process: commands at both ends, exit codes, output, errors, and an unprivileged user."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.support.background import running
from tests.support.cli_process import NETTOOL, complaint, nettool, nettool_here
from tests.support.links import (
    NOBODY,
    PATIENCE_S,
    becoming_nobody,
    eventually,
    link_processes,
    needs,
    needs_tun,
    without_namespaces,
    without_network_namespaces,
)
from tests.support.terminal import at_terminal
from tests.support.warm_starts import FRESH
from toolkit.emulator.check import FULL_CHECK, check
from toolkit.emulator.link import Link
from toolkit.emulator.run import run_behind
from toolkit.errors import UsageError
from toolkit.netmodel.spec import LinkSpec

root_only = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="not root: cannot become nobody")]
with_tun = pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="this machine has no /dev/net/tun")


@pytest.fixture(scope="module")
def outer(warm: None) -> Iterator[Link]:  # noqa: ARG001
    """A link that stays open. Whatever a test starts behind it has ended when the test ends."""
    with Link(LinkSpec()) as link:
        yield link


class TestAsRoot:
    """A link of root."""

    pytestmark = needs_tun

    def test_the_exit_code_is_that_of_the_command(self) -> None:
        ended = nettool("link", "--rtt", "1ms", "--", "sh", "-c", "echo out; exit 7")
        assert ended.code == 7
        assert ended.stdout == "out\n"
        assert "near -> far: 0 packets offered" in ended.stderr

    def test_a_signal_becomes_128_plus_its_number(self) -> None:
        assert nettool("link", "-q", "--", "sh", "-c", "kill -TERM $$").code == 143

    def test_the_ends_have_names_and_addresses(self) -> None:
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

    def test_the_far_command_listens_before_the_near_command_starts(self) -> None:
        server = "python3 -c \"import socket; s = socket.create_server(('', 7)); c, _ = s.accept(); c.send(b'hello')\""
        client = "import socket; print(socket.create_connection(('far', 7)).recv(5).decode())"
        ended = nettool("link", "--rtt", "20ms", "--far", server, "--", "python3", "-c", client)
        assert (ended.code, ended.stdout) == (0, "hello\n"), ended

    def test_an_interrupt_from_the_keyboard_is_the_commands(self) -> None:
        script = "trap 'echo caught >&2' INT; echo ready >&2; read line; read line; echo $line >&2"
        with at_terminal("link", "--far", "sleep 4713", "--", "sh", "-c", script) as running_link:
            running_link.wait_for("ready")
            running_link.type("\x03")
            running_link.wait_for("caught")
            running_link.type("still here\n")
            running_link.type("still here\n")
            running_link.wait_for("still here\r\n(?s:.*)still here\r\n")
            code, _, shown = running_link.end()
        assert code == 0, shown

    def test_an_interrupt_at_the_first_step_of_the_command_is_the_commands_too(self) -> None:
        with at_terminal(
            "link", "--", "sh", "-c", "trap '' INT; kill -INT 0; echo ready >&2; read line"
        ) as running_link:
            running_link.wait_for("ready")
            running_link.type("\n")
            code, _, shown = running_link.end()
        assert code == 0, shown

    def test_a_command_starts_in_the_folder_that_its_caller_names(self, outer: Link, tmp_path: Path) -> None:
        with outer.popen_near(["pwd"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
            assert process.communicate()[0] == f"{tmp_path}\n"

    def test_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        folder = tmp_path / "gone"
        folder.mkdir()
        ended = nettool("link", "--", "true", cwd=folder, before=folder.rmdir)
        assert ended.code == 2
        assert "the current folder no longer exists" in complaint(ended)

    def test_with_json_stdout_holds_only_the_object(self) -> None:
        ended = nettool("link", "--json", "--seed", "5", "--", "sh", "-c", "echo out; exit 3")
        assert ended.code == 3
        assert ended.object["kind"] == "link"
        assert ended.object["exit_code"] == 3
        assert ended.object["seed"] == 5
        assert ended.object["forward"]["imbalance_packets"] == 0
        assert ended.stderr == "out\n"

    def test_root_gets_names_for_ip_netns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(FRESH, "toolkit")  # `link_processes` recognises a process by its command line
        others = link_processes(os.getpid())
        with (
            Link(LinkSpec()) as link,
            link.popen_near(["readlink", "/proc/self/ns/net"], stdout=subprocess.PIPE) as near,
        ):
            (pid,) = link_processes(os.getpid()) - others
            inode = Path(f"/run/netns/nettool-{pid}-near").stat().st_ino
            assert near.communicate()[0].decode() == f"net:[{inode}]\n"
        assert not list(Path("/run/netns").glob(f"nettool-{pid}-*"))

    def test_a_check_prints_a_table_and_a_verdict(self, monkeypatch: pytest.MonkeyPatch) -> None:
        quick = FULL_CHECK._replace(echoes=50, flow_s=0.2)
        monkeypatch.setattr("toolkit.cli.link.measure", lambda link: check(link, quick))
        ended = nettool_here("link", "--check", "--rate", "20Mbit", "--rtt", "10ms", "--loss", "100%")
        lines = ended.stdout.splitlines()
        loss = next(line for line in lines if line.startswith("loss, near -> far"))
        assert loss.split()[4:6] == ["100%", "100%"]
        assert any("0 of 50 echoes answered" in line for line in lines)
        is_missed = lines[-1].startswith("this machine cannot carry the requested link: ")
        assert ended.code == (4 if is_missed else 0)  # a busy machine may miss the rate from far to near
        assert is_missed or lines[-1] == "undecided: this check cannot judge RTT"

    def test_netem_works_or_says_why_not(self) -> None:
        impairments = [
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
        ]
        ended = nettool("link", "--emulator", "netem", *impairments, "--", "true")
        if ended.code:
            assert "this kernel has no netem: use nettool's own emulator" in complaint(ended)
        else:
            assert "near -> far" in ended.stderr

    def test_addresses_in_use_are_refused(self, outer: Link) -> None:
        inside = [*NETTOOL, "link", "--", "true"]
        with outer.popen_near(inside, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2
        assert b"is in use here" in errors
        assert b"--addresses" in errors

    def test_a_link_within_a_link(self, outer: Link) -> None:
        inside = [*NETTOOL, "link", "--addresses", "10.1.1.0/30", "--json", "--", "true"]
        with outer.popen_near(inside, stdout=subprocess.PIPE) as process:
            assert json.loads(process.communicate(timeout=PATIENCE_S)[0])["exit_code"] == 0

    def test_within_a_link_the_doctor_finds_that_more_of_them_can_be_made(self, outer: Link) -> None:
        with outer.popen_near([*NETTOOL, "doctor", "--json"], stdout=subprocess.PIPE) as process:
            found = json.loads(process.communicate(timeout=PATIENCE_S)[0])["capabilities"]
        links = {one["name"]: one["found"] for one in found if one["name"] in ("namespaces", "TUN device")}
        assert links == {"namespaces": "yes", "TUN device": "yes"}

    def test_a_far_command_that_fails_is_reported(self, outer: Link) -> None:
        with pytest.raises(UsageError, match="exited with 1"):
            run_behind(outer, ["true"], "false")

    @pytest.mark.parametrize("far", ["", "'", "no-such-command-at-all"])
    def test_a_far_command_that_cannot_be_run(self, far: str) -> None:
        ended = nettool_here("link", "--far", far, "--", "true")
        assert ended.code == 2
        complaint(ended)


@pytest.mark.parametrize(
    ("arguments", "complaint_holds"),
    [
        (("--", "no-such-command-at-all"), "command 'no-such-command-at-all' not found"),
        ((), "no command given"),
        (("--link", "moon", "--", "true"), "unknown link 'moon'"),
        (("--rate", "fast", "--", "true"), "is not a rate"),
        (("--loss", "150%", "--", "true"), "is more than 100%"),
        (("--rtt", "40", "--", "true"), "has no unit"),
        (("--emulator", "magic", "--", "true"), "unknown emulator 'magic'"),
        (("--addresses", "300.0.0.0/8", "--", "true"), "not an IPv4 network"),
        (("--trace", "/no/such/trace", "--", "true"), "cannot read /no/such/trace"),
        (("--mtu", "9", "--", "true"), "an MTU must lie between"),
        (("--seed", "x", "--", "true"), "seed"),
    ],
)
def test_a_bad_argument_is_one_line_with_a_remedy(arguments: tuple[str, ...], complaint_holds: str) -> None:
    ended = nettool_here("link", *arguments)
    assert ended.code == 2
    assert complaint_holds in complaint(ended)


def test_the_list_names_every_link_and_its_sources() -> None:
    ended = nettool_here("link", "--list", "--json")
    links = {link["name"]: link for link in ended.object["links"]}
    assert set(links) == {"lan", "wifi", "dsl", "lte", "starlink", "geo", "transatlantic", "lossy-wan"}
    assert all(link["sources"] for link in links.values())
    assert "starlink" in nettool_here("link", "--list").stdout


class TestAsNobody:
    """A link of an unprivileged user: a child of root becomes `nobody` before it starts."""

    pytestmark: ClassVar = [*root_only, with_tun]

    def test_a_command_behind_a_link(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(FRESH, "toolkit")  # the order of imports matters: numpy starts threads
        with becoming_nobody() as become:
            ended = nettool(
                *("link", "--rtt", "2ms", "--loss", "10%", "--json"),
                *("--", "ping", "-q", "-c", "100", "-i", "0.002", "far"),
                before=become,
            )
        assert ended.object["exit_code"] == 0, ended
        assert 0 < ended.object["forward"]["dropped_packets"]["loss"] < 30

    @pytest.mark.long
    def test_a_check_says_what_this_machine_cannot_carry(self) -> None:
        with becoming_nobody() as become:
            ended = nettool("link", "--check", "--json", "--rate", "90Gbit", "--rtt", "1ms", before=become)
        findings = {finding["what"]: finding for finding in ended.object["findings"]}
        assert (ended.code, ended.object["is_met"]) == (4, False)
        assert len(findings) == 8
        assert findings["rate, near -> far"]["is_met"] is False
        assert "rate, near -> far" in ended.object["verdict"]

    @needs("iperf3")
    def test_offloads_work_for_an_unprivileged_user(self) -> None:
        with becoming_nobody() as become:
            ended = nettool(
                *("link", "--json", "--rate", "1Gbit", "--rtt", "2ms", "--far", "iperf3 -s -1"),
                *("--", "iperf3", "-c", "far", "-n", "50M", "-C", "reno"),
                before=become,
            )
        assert ended.object["exit_code"] == 0, ended
        assert ended.object["forward"]["delivered_bytes"] > 50e6

    def test_a_plain_lan(self) -> None:
        with becoming_nobody() as become:
            ended = nettool("link", "--link", "lan", "--rate", "50Mbit", "--", "ping", "-c", "1", "far", before=become)
        assert ended.code == 0, ended

    def test_nothing_remains_of_a_killed_link(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(FRESH, "toolkit")
        with becoming_nobody() as become:
            command = [*NETTOOL, "link", "--", "sh", "-c", f"setsid sleep 4712.{os.getpid()} & echo ready; sleep 60"]
            with running(command, stdout=subprocess.PIPE, preexec_fn=become) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                assert eventually(lambda: len(owned_by_nobody()) >= 4)
                theirs = owned_by_nobody()
            assert eventually(lambda: not owned_by_nobody() & theirs)

    def test_a_device_that_only_root_can_open(self) -> None:
        with becoming_nobody(device_mode=0o600) as become:
            ended = nettool("link", "--", "true", before=become)
        assert ended.code == 4
        assert "this user cannot open /dev/net/tun" in complaint(ended)

    def test_a_machine_without_the_device(self) -> None:
        with becoming_nobody(device_mode=None) as become:
            ended = nettool("link", "--", "true", before=become)
        assert ended.code == 4
        assert "no /dev/net/tun on this machine" in complaint(ended)

    def test_a_machine_without_user_namespaces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(FRESH, "toolkit")  # the execution of a program takes the capability away
        ended = nettool("link", "--", "true", before=without_namespaces)
        assert ended.code == 4
        assert "allows no more user namespaces" in complaint(ended)

    def test_a_machine_without_network_namespaces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(FRESH, "toolkit")
        ended = nettool("link", "--", "true", before=without_network_namespaces)
        assert ended.code == 4
        assert "allows no more network namespaces: raise the limit with 'sudo sysctl" in complaint(ended)

    def test_a_folder_that_cannot_be_entered_again(self) -> None:
        with becoming_nobody() as become, tempfile.TemporaryDirectory() as folder:
            os.chown(folder, NOBODY, 0)

            def enter_and_close() -> None:
                become()
                os.chdir(folder)
                os.chmod(folder, 0)

            ended = nettool("link", "--", "true", before=enter_and_close)
        assert ended.code == 2
        assert f"programs behind the link cannot enter {folder}" in complaint(ended)

    @needs("ssh")
    def test_ssh_accepts_its_configuration(self) -> None:
        with becoming_nobody() as become:
            ended = nettool("link", "--quiet", "--", "ssh", "-G", "far", before=become)
        assert "Bad owner" not in ended.stderr
        assert ended.code == 0, ended


def owned_by_nobody() -> set[int]:
    """The processes of `nobody`."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == NOBODY and (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found
