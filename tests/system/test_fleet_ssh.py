"""The workers of a fleet are started over ssh, on a real sshd of this machine that knows two hosts by name."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.background import wait_until
from tests.support.cli_process import LIMIT_S, NETTOOL
from toolkit.comparison.record_file import read

pytest.importorskip("asyncssh")
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
_NEEDED_BY_ROOT = Path("/run/sshd")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        SSHD is None or (os.geteuid() == 0 and not _NEEDED_BY_ROOT.is_dir()), reason="no sshd can be started here"
    ),
]
MESH = """\
transports = ["tcp-cubic", "udp-bbr"]
sizes = ["64KiB"]
repeats = 1
control = false
wait = "{wait}"
port = 0

[hosts]
one = {{ address = "127.0.0.1", ssh = "one", python = "{python}" }}
two = {{ address = "127.0.0.2", ssh = "two", python = "{python}" }}
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The home of a user whose ssh reaches `one` and `two`, both of them this machine."""
    home = tmp_path / "home"
    folder = home / ".ssh"
    folder.mkdir(parents=True, mode=0o700)
    for name in ("server", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "server",
        "AuthorizedKeysFile": folder / "user.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
    }
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'server.pub').read_text()}")
    (folder / "config").write_text(f"Host one two\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/user\n")
    assert SSHD is not None
    with subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE, text=True) as sshd:
        try:
            assert sshd.stderr is not None
            assert "listening" in (said := sshd.stderr.readline()), said
            yield home
        finally:
            sshd.terminate()


def start(home: Path, wait: str = "60s") -> "subprocess.Popen[str]":
    mesh = home / "mesh.toml"
    mesh.write_text(MESH.format(python=sys.executable, wait=wait))
    paths = {"PYTHONPATH": str(Path().resolve()), "HOME": str(home)}
    return subprocess.Popen(
        [*NETTOOL, "fleet", "run", mesh, "--output", home / "records.jsonl"],
        env={**os.environ, **paths},
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers() -> list[psutil.Process]:
    """The workers that sshd has started for this process's tests."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "distributed.cli.dask_spec" in words and words[0] == sys.executable:
            found.append(process)
    return found


def test_a_fleet_over_ssh_measures_every_pair_and_leaves_no_worker(home: Path) -> None:
    with start(home) as run:
        output, complaint = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 0, (output, complaint)
    trials = read(home / "records.jsonl").trials
    assert len(trials) == 4
    assert all(trial.verified for trial in trials)
    wait_until(lambda: not workers(), "the end of the workers")


def test_an_interrupt_while_the_workers_start_ends_in_one_line(home: Path) -> None:
    with start(home) as run:
        wait_until(lambda: bool(workers()) or run.poll() is not None, "a worker that starts")
        run.send_signal(signal.SIGINT)
        output, complaint = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 130, (output, complaint)
    assert complaint.splitlines()[-1].startswith("interrupted"), complaint
    assert "Traceback" not in complaint
    assert not (home / "records.jsonl").exists()


def test_a_host_that_ssh_does_not_admit_is_named_with_what_to_do(home: Path) -> None:
    config = home / ".ssh" / "config"
    config.write_text(config.read_text().replace("user", "stranger"))
    with start(home, wait="1s") as run:
        output, complaint = run.communicate(timeout=LIMIT_S)
    assert run.returncode == 3, (output, complaint)
    assert "ssh-copy-id one" in complaint
    assert "Traceback" not in complaint
