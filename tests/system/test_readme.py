"""What the README tells its reader to type works as it stands there, one block after the other.

Blocks marked `sh` are run; the others take minutes, or another machine. One that begins with `nettool recv` is the
reader's other terminal: it is there when it listens, and with --once it ends well before the README goes on. All of it
happens in a network of its own, where the usual port is free, and in a copy of the project.
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
    """Somebody in a folder with a network of their own, who has as many terminals as it takes."""

    def __init__(self, network: Link, folder: Path) -> None:
        self.folder = folder
        self._network = network
        self._terminals: list[Shell] = []

    def begin(self, script: str) -> Shell:
        """Type it into a new terminal."""
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

    def see_it_end(self, process: Shell, number: signal.Signals | None = None) -> tuple[int, str]:
        """Its exit code, and what it has said on stderr; `number` is what the reader's keyboard sends."""
        if number is not None:
            os.killpg(process.pid, number)
        _, said = process.communicate(timeout=LIMIT_S)
        return process.returncode, said.decode()

    def leave(self) -> None:
        """Close every terminal, whatever runs there."""
        for process in self._terminals:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """In a copy of the project, with a file that stands for one of the reader's own."""
    if not Path("/dev/net/tun").exists():
        pytest.skip("this machine has no /dev/net/tun")
    link = Link(LinkSpec(kind=LAN), network="10.9.8.0/30")  # the usual addresses are for what the README makes
    try:
        link.open()
    except NettoolError as error:
        pytest.skip(f"no namespaces here: {error}")
    unwanted = shutil.ignore_patterns(".*", "results", "build", "*.egg-info", "__pycache__", "tests")
    folder = Path(shutil.copytree(ROOT, tmp_path / "project", ignore=unwanted))
    (folder / "film.mkv").write_bytes(os.urandom(1_000_000))
    reader = Reader(link, folder)
    try:
        yield reader
    finally:
        reader.leave()
        link.close()


def wait_until_it_listens(process: Shell) -> None:
    assert process.stderr is not None
    said = b""
    while b"listening on" not in said:
        ready, _, _ = select.select([process.stderr], [], [], LIMIT_S)
        piece = os.read(process.stderr.fileno(), 1 << 16) if ready else b""
        assert piece, said
        said += piece


def test_every_block_that_is_marked_runs(reader: Reader) -> None:
    listening: Shell | None = None
    is_once = False
    for block in BLOCKS:
        process = reader.begin(block)
        if block.startswith("nettool recv "):
            wait_until_it_listens(process)
            listening, is_once = process, "--once" in block
            continue
        code, said = reader.see_it_end(process)
        assert code == 0, (block, said)
        if listening is not None and is_once:
            assert reader.see_it_end(listening)[0] == 0, block
            listening = None
    assert listening is not None
    assert reader.see_it_end(listening, signal.SIGINT)[0] in (130, -signal.SIGINT)  # of nettool, or of the shell
    for name in ("README.md", "docs/design.md", "film.mkv"):
        assert (reader.folder / "incoming" / name).read_bytes() == (reader.folder / name).read_bytes()


def test_the_transfer_in_the_help_of_link_runs(reader: Reader) -> None:
    shown = re.sub(r" \\\n\s+", " ", nettool_here("link", "--help").stdout)  # join continued lines
    example = next(line.strip() for line in shown.splitlines() if "udp-send" in line)
    code, said = reader.see_it_end(reader.begin(example))
    assert code == 0, said
    assert everything_below(reader.folder / "incoming") == ["film.mkv"]


def test_every_option_that_is_named_is_one() -> None:
    known = {option for path in COMMANDS for option in options_of(nettool_here(*path.split(), "--help").stdout)}
    assert options_of(README)
    assert options_of(README) <= known


def options_of(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))


def test_every_file_that_is_linked_to_is_there() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", README)
    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []
