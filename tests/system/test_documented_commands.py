"""Every command in the README and in docs/ works.

Blocks marked `sh` run as they stand, one after the other, in a copy of the project and in a network of their own. A
block that begins with `nettool recv` stands for the reader's second terminal: the next block starts once it listens,
and with --once it must end before the block after that.

Other commands need a second machine, root, or minutes. They go through the command line up to the point where they
would open a socket or start a process. So a command that no longer exists, an unknown option or a malformed value fails
here.
"""

import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import pytest

from tests.support.cli_process import LIMIT_S, everything_below, nettool_here
from tests.support.report_samples import one_path, save
from toolkit.cli.app import COMMANDS, GROUPS, invoke
from toolkit.emulator.link import Link
from toolkit.errors import NettoolError, UsageError
from toolkit.netmodel.spec import LAN, LinkSpec
from toolkit.security.key_file import write_new_key

ROOT = Path(__file__).parents[2]
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in (
        *(ROOT / name for name in ("README.md", "README.ko.md", "CONTRIBUTING.md")),
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
README = DOCUMENTS["README.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACEHOLDERS = {"N": "1", "HOST": "192.0.2.7", "ADDRESS": "192.0.2.7", "TIME": "1s", "RATE": "1Mbit", "SIZE": "1MiB"}
PLACEHOLDERS |= {"NAME": "bbr", "COMMAND": "true", "gentle": "bbr"}  # docs/congestion-control.md adds `gentle` itself
RECORDS = re.compile(r"FILE|OLD|NEW|RECORDS|\S+\.jsonl")
IPERF3_RUN = {
    "start": {"test_start": {"protocol": "TCP", "num_streams": 1}},
    "end": {"sum_sent": {"seconds": 1.0, "bytes": 10**9}, "sum_received": {"seconds": 1.0, "bytes": 10**9}},
}
Shell = subprocess.Popen[bytes]


class Reader:
    """A reader of the documents, in a folder and a network of their own, with any number of terminals."""

    def __init__(self, network: Link, folder: Path) -> None:
        self.folder = folder
        self._network = network
        self._terminals: list[Shell] = []

    def start(self, script: str) -> Shell:
        """Type `script` into a new terminal."""
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

    def wait_for_end(self, process: Shell, number: signal.Signals | None = None) -> tuple[int, str]:
        """Return its exit code and its stderr. number: a signal to send first, as the keyboard does"""
        if number is not None:
            os.killpg(process.pid, number)
        _, printed = process.communicate(timeout=LIMIT_S)
        return process.returncode, printed.decode()

    def close(self) -> None:
        """Close every terminal, and end whatever still runs there."""
        for process in self._terminals:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Yield a reader in a copy of the project that also holds a file of the reader's own."""
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("this user cannot open /dev/net/tun")
    link = Link(LinkSpec(kind=LAN), network="10.9.8.0/30")  # the documents' own links use the default addresses
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
        reader.close()
        link.close()


def wait_until_it_listens(process: Shell) -> None:
    assert process.stderr is not None
    printed = b""
    while b"listening on" not in printed:
        ready, _, _ = select.select([process.stderr], [], [], LIMIT_S)
        piece = os.read(process.stderr.fileno(), 1 << 16) if ready else b""
        assert piece, printed
        printed += piece


def run_blocks(reader: Reader, document: str) -> None:
    listening: Shell | None = None
    is_once = False
    for language, block in FENCE.findall(DOCUMENTS[document]):
        if language != "sh":
            continue
        process = reader.start(block)
        if block.startswith("nettool recv "):
            wait_until_it_listens(process)
            listening, is_once = process, "--once" in block
            continue
        code, printed = reader.wait_for_end(process)
        assert code == 0, (block, printed)
        if listening is not None and is_once:
            assert reader.wait_for_end(listening)[0] == 0, block
            listening = None
    if listening is not None:
        # The exit code is nettool's, or that of the shell that the signal ended.
        assert reader.wait_for_end(listening, signal.SIGINT)[0] in (130, -signal.SIGINT)


@pytest.mark.parametrize("document", [name for name, text in DOCUMENTS.items() if "```sh\n" in text])
def test_marked_blocks_run_from_top_to_bottom(document: str, reader: Reader) -> None:
    run_blocks(reader, document)
    if document == "README.md":
        for name in ("README.md", "docs/design.md", "film.mkv"):
            assert (reader.folder / "incoming" / name).read_bytes() == (reader.folder / name).read_bytes()


def test_the_transfer_in_the_help_of_link_runs(reader: Reader) -> None:
    shown = re.sub(r"\\\n\s*", "", nettool_here("link", "--help").stdout)
    example = next(line.strip() for line in shown.splitlines() if "udp-send" in line)
    code, printed = reader.wait_for_end(reader.start(example))
    assert code == 0, printed
    assert everything_below(reader.folder / "incoming") == ["film.mkv"]


class Executed(BaseException):
    """Raised where a command would leave the command line."""


def executed(*_: object, **__: object) -> None:
    raise Executed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a folder that holds the scenarios, with everything stubbed that does more than parse and read."""
    monkeypatch.setenv("NETTOOL_CODE", "7-ocean-brick-lunar")  # for senders, which otherwise ask for it first
    for name in (
        "recv.Receiver",
        "send.SendRequest.check",
        "serve.MeasuringServer",
        "sim.run",
        "bench.ComparisonRequest.run",
        "replay.plan_of_record",
        "replay.rerun",
        "talk.transport",
        "echo.EchoServer",
        "ping.DatagramEcho",
        "ping.StreamEcho",
        "ping.transport",
        "trace.check_sources",
        "grid.GridFile",
        "fleet._run_once",
        "fleet_report.read",
        "report.page.write_page",
        "report.merge",
        "report.write_pictures",
    ):
        monkeypatch.setattr(f"toolkit.cli.{name}", executed)
    monkeypatch.setattr("toolkit.cli.clean.leftovers_below", executed)
    (tmp_path / "incoming").mkdir()
    monkeypatch.setattr("toolkit.cli.link.require_program", lambda _command: None)
    monkeypatch.setattr("toolkit.cli.link.Link.__enter__", executed)
    (tmp_path / "bench").symlink_to(ROOT / "bench")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def documented_commands() -> Iterator[tuple[str, str]]:
    """Yield each document with each command line in it, from its blocks and from its inline code."""
    for document, text in DOCUMENTS.items():
        found: list[str] = []
        for language, block in FENCE.findall(text):
            if language in ("", "sh", "console", "text"):
                found += lines_of(block)
        prose = FENCE.sub("", text)
        found += lines_of("\n".join(re.findall(r"^ {4,}(.*)$", prose, re.MULTILINE)))
        found += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
        for line in dict.fromkeys(found):
            if re.match(r"(\$ |\S.* \| )?nettool \S", line):
                yield document, line


def lines_of(block: str) -> list[str]:
    """Return the lines of a block without the explanations beside them, continuation lines joined."""
    return [re.split(r" {2,}", line.strip())[0] for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines()]


@pytest.mark.parametrize("line", [pytest.param(line, id=f"{name}: {line}") for name, line in documented_commands()])
def test_documented_command_is_valid(line: str, folder: Path) -> None:
    words = shlex.split(line, comments=True)
    try:
        parse(words[words.index("nettool") + 1 :], folder)
    except UsageError as error:
        if "this kernel offers no" in str(error):  # a congestion control that only root can load
            pytest.skip(str(error))
        raise


def parse(words: list[str], folder: Path) -> None:
    """Run a command up to its execution. A mere mention, without arguments or with '...', only has to exist."""
    words = list(takewhile(lambda word: word not in ("|", ">"), words))
    words = [{"COMMAND": "link", "KIND": "loopback"}.get(word, word) for word in words[:2]] + words[2:]
    path = words[0] if words[0] not in GROUPS else " ".join(words[:2])
    is_mention = len(words) == len(path.split()) or any(word in ("...", "…") for word in words)
    if is_mention and not words[0].startswith("-"):
        names = [name for name in COMMANDS if name == path or name.partition(" ")[0] == path.removesuffix(" ...")]
        assert names, f"there is no command 'nettool {path}'"
        known = {option for name in names for option in options_of(nettool_here(*name.split(), "--help").stdout)}
        assert options_of(" ".join(words).partition(" -- ")[0]) <= known
        return
    filled = [PLACEHOLDERS.get(word, word).replace("/tmp/", f"{folder}/") for word in words]
    for name in filter(RECORDS.fullmatch, filled):
        if path in ("diff", "replay", "report") or "--resume" in words:
            (folder / name).parent.mkdir(exist_ok=True)
            save(one_path(), folder / name)
    if "--import" in filled:
        (folder / filled[filled.index("--import") + 1]).write_text(json.dumps(IPERF3_RUN))
    if "--key" in filled:
        write_new_key(folder / filled[filled.index("--key") + 1])
    with suppress(Executed):
        assert invoke(filled) == 0
    for nested in (words[words.index("--far") + 1] if "--far" in words else "", shlex.join(after(words, "--"))):
        if nested.startswith("nettool "):
            parse(shlex.split(nested)[1:], folder)


def after(words: list[str], separator: str) -> list[str]:
    return words[words.index(separator) + 1 :] if separator in words else []


def options_of(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))


def test_every_option_in_the_readme_exists() -> None:
    known = {option for path in COMMANDS for option in options_of(nettool_here(*path.split(), "--help").stdout)}
    assert options_of(README)
    assert options_of(README) <= known


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_and_linked_file_exists(document: str) -> None:
    text = DOCUMENTS[document]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    code = [block for _, block in FENCE.findall(text)] + re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    assert set(re.findall(r"(?:^|\s)make ([a-z-]+)", "\n".join(code))) <= targets
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [path for path in linked if not (ROOT / document).parent.joinpath(path).exists()] == []


def test_the_first_screen_of_the_readme_installs_sends_and_compares() -> None:
    """A screen is a terminal of 80 columns and 40 lines."""
    screen = README.splitlines()[:40]
    assert all(len(line) <= 80 for line in screen)
    for command in ("make bench", "pip install .", "nettool recv ", "nettool tcp-send ", "nettool bench "):
        assert any(line.startswith(command) for line in screen), command
