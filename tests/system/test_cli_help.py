"""The command line explains itself, and soon: heavy modules are loaded when a command needs them."""

import os
import subprocess
import sys

import pytest

from tests.support.cli_process import NETTOOL, complaint, nettool, nettool_here
from toolkit.cli.app import COMMANDS

HEAVY = (
    "numpy",
    "rich",
    "tabulate",
    "xxhash",
    "blake3",
    "pyroute2",
    "toolkit.transfer",
    "toolkit.rudp.connection",
)


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", *NETTOOL[1:], "--help"], capture_output=True, text=True, check=True
    )
    for path in COMMANDS:
        assert path.split()[0] in ended.stdout
    assert "130 interrupted" in ended.stdout
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert loaded.isdisjoint(HEAVY)


def test_help_takes_less_than_a_quarter_of_a_second() -> None:
    """Processor time of the whole process, which is what a loaded machine leaves comparable; best of three."""
    taken = []
    for _ in range(3):
        process = os.posix_spawn(
            sys.executable,
            [*NETTOOL, "--help"],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
        )
        _, status, usage = os.wait4(process, 0)
        assert status == 0
        taken.append(usage.ru_utime + usage.ru_stime)
    assert min(taken) < 0.25


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_help_with_examples(path: str) -> None:
    ended = nettool_here(*path.split(), "--help")
    assert (ended.code, ended.stderr) == (0, "")
    examples = [line for line in ended.stdout.splitlines() if f"nettool {path} " in line + " "]
    assert len(examples) >= 2
    assert "--json" in ended.stdout


def test_without_a_word_it_shows_the_help() -> None:
    assert nettool_here().stdout == nettool_here("--help").stdout


def test_the_version() -> None:
    ended = nettool("--version")
    assert ended.code == 0
    assert ended.stdout.startswith("nettool 0.")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tcp-sned"], "Did you mean 'tcp-send'"),
        (["\x1b[31m"], "No such command"),
        (["bench"], "Missing command"),
        (["bench", "loopbak"], "No such command"),
        (["--nonsense"], "--nonsense"),
        (["recv", "--port", "many"], "nettool recv --help"),
    ],
)
def test_slips_point_to_the_help(arguments: list[str], says: str) -> None:
    ended = nettool_here(*arguments)
    assert ended.code == 2
    assert says in complaint(ended)
