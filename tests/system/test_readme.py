"""The README's commands work as written, one block after another.

Blocks marked `sh` are run; the others take minutes or another machine. A block that starts with `nettool recv` runs in
the background: the test goes on when the receiver listens, and a receiver with --once must exit with code 0 before the
block after the transfer. Everything runs in a network namespace, where the default port is free, and in a copy of the
project.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli_process import LIMIT_S, everything_below, nettool_here
from toolkit.cli.app import COMMANDS
from toolkit.emulator.link import Link
from toolkit.errors import NettoolError
from toolkit.netmodel.spec import LAN, LinkSpec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
Shell = subprocess.Popen[bytes]


class Reader:
    """A user of the README, in a folder and a network namespace, with any number of terminals."""

    def __init__(self, network: Link, folder: Path) -> None:
        self.folder = folder
        self._network = network
        self._terminals: list[Shell] = []

    def start(self, script: str) -> Shell:
        """Run a script in a new terminal."""
        path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
        process = self._network.popen_near(
            ["sh", "-e", "-c", script],
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self._terminals.append(process)
        return process

    def wait_for_exit(self, process: Shell, number: signal.Signals | None = None) -> tuple[int, str]:
        """Send signal `number`, if any, to the process group; return the exit code and the text on stderr."""
        if number is not None:
            os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=LIMIT_S)
        return process.returncode, errors.decode()

    def close(self) -> None:
        """Kill whatever still runs in the terminals."""
        for process in self._terminals:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader in a copy of the project, with film.mkv as a file of the reader."""
    if not Path("/dev/net/tun").exists():
        pytest.skip("this machine has no /dev/net/tun")
    link = Link(
        LinkSpec(kind=LAN), network="10.9.8.0/30"
    )  # the default addresses are for the links that the README creates
    try:
        link.open()
    except NettoolError as error:
        pytest.skip(f"network namespaces are not available: {error}")
    ignored = shutil.ignore_patterns(".*", "results", "build", "*.egg-info", "__pycache__", "tests")
    folder = Path(shutil.copytree(ROOT, tmp_path / "project", ignore=ignored))
    (folder / "film.mkv").write_bytes(os.urandom(1_000_000))
    reader = Reader(link, folder)
    try:
        yield reader
    finally:
        reader.close()
        link.close()


def wait_until_listening(process: Shell) -> None:
    assert process.stderr is not None
    errors = b""
    while b"listening on" not in errors:
        ready, _, _ = select.select([process.stderr], [], [], LIMIT_S)
        piece = os.read(process.stderr.fileno(), 1 << 16) if ready else b""
        assert piece, errors
        errors += piece


def test_blocks_marked_sh_run_in_order(reader: Reader) -> None:
    receiver: Shell | None = None
    is_once = False
    for block in BLOCKS:
        process = reader.start(block)
        if block.startswith("nettool recv "):
            wait_until_listening(process)
            receiver, is_once = process, "--once" in block
            continue
        code, errors = reader.wait_for_exit(process)
        assert code == 0, (block, errors)
        if receiver is not None and is_once:
            assert reader.wait_for_exit(receiver)[0] == 0, block
            receiver = None
    assert receiver is not None
    assert reader.wait_for_exit(receiver, signal.SIGINT)[0] in (130, -signal.SIGINT)  # from nettool or from the shell
    for name in ("README.md", "docs/design.md", "film.mkv"):
        assert (reader.folder / "incoming" / name).read_bytes() == (reader.folder / name).read_bytes()


def test_the_transfer_in_the_help_of_link_runs(reader: Reader) -> None:
    shown = re.sub(r" \\\n\s+", " ", nettool_here("link", "--help").stdout)  # join continued lines
    example = next(line.strip() for line in shown.splitlines() if "udp-send" in line)
    code, errors = reader.wait_for_exit(reader.start(example))
    assert code == 0, errors
    assert everything_below(reader.folder / "incoming") == ["film.mkv"]


def test_every_option_in_the_readme_exists() -> None:
    known = {option for path in COMMANDS for option in options_of(nettool_here(*path.split(), "--help").stdout)}
    assert options_of(README)
    assert options_of(README) <= known


def options_of(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))


def test_every_linked_file_exists() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", README)
    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_the_first_screen_has_a_command_to_install_to_send_and_to_compare() -> None:
    """A screen is a terminal of 80 columns and 40 lines."""
    screen = README.splitlines()[:40]
    assert all(len(line) <= 80 for line in screen)
    for command in ("make bench", "pip install .", "nettool recv ", "nettool tcp-send ", "nettool bench "):
        assert any(line.startswith(command) for line in screen), command
