"""Defaults of options in the user's configuration file."""

from pathlib import Path

import pytest

from tests.support.cli_process import nettool, nettool_here
from toolkit.cli.config_file import CONFIG_VARIABLE


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a configuration file that does not exist yet."""
    path = tmp_path / "config.toml"
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    return path


def dry_run(folder: Path, *options: str) -> list[str]:
    """Return the names that `send --dry-run` lists of a tree of two files."""
    (folder / "tree").mkdir()
    for name in ("code.o", "text.txt"):
        (folder / "tree" / name).write_bytes(b"x")
    ended = nettool_here("send", "--dry-run", *options, str(folder / "tree"), "127.0.0.1")
    assert ended.code == 0, ended
    return [name for name in ("code.o", "text.txt") if name in ended.stdout + ended.stderr]


def test_a_default_takes_effect(config: Path, tmp_path: Path) -> None:
    config.write_text('[send]\nrecursive = true\nexclude = ["*.o"]\n[recv]\nport = 9001\n')
    assert dry_run(tmp_path) == ["text.txt"]


def test_the_command_line_takes_precedence(config: Path, tmp_path: Path) -> None:
    config.write_text('[send]\nrecursive = true\nexclude = "*.txt"\n')
    assert dry_run(tmp_path, "--exclude", "*.o") == ["text.txt"]


def test_a_default_gives_way_to_an_option_that_excludes_it(config: Path) -> None:
    config.write_text(
        "[recv]\n"
        'retry = "5min"\nmax-streams = 3\noffload = "off"\nwatch = true\n'
        'dir = "incoming"\noverwrite = true\npreserve = "modes"\npreserve-modes = true\nfsync = true\n'
    )
    unusable = ("--idle-timeout", "1ms")  # which is looked at after all of these
    for words in (["--transport", "tcp"], ["--transport", "udp", "--quiet"], ["--stdout"]):
        ended = nettool("recv", "--port", "1", *words, *unusable)
        assert "--idle-timeout 1ms is too short" in ended.stderr, words


@pytest.mark.parametrize(
    ("default", "words"),
    [
        ('budget = "2min"', ["--repeat", "3"]),
        ("repeat = 3", ["--budget", "2min"]),
        ('time = "1s"', ["--size", "64KiB"]),
        ('size = "64KiB"', ["--time", "1s"]),
        ('cc = "reno"', ["--transports", "udp"]),
    ],
)
def test_a_default_gives_way_to_an_alternative(config: Path, default: str, words: list[str]) -> None:
    config.write_text(f"[bench.loopback]\n{default}\n")
    ended = nettool_here("bench", "loopback", "--dry-run", *words)
    assert ended.code == 0, ended


def test_a_campaign_goes_on_without_the_defaults_for_new_ones(config: Path, tmp_path: Path) -> None:
    config.touch()
    records = str(tmp_path / "records.jsonl")
    first = ["--size", "64KiB", "--repeat", "1", "--transports", "udp", "--no-control", "--output", records]
    assert nettool("bench", "loopback", *first).code == 0
    config.write_text(
        "[bench.loopback]\n"
        'size = "1KiB"\ntransports = "tcp"\ncc = "reno"\nbudget = "2min"\nseed = 7\nlimit = "1min"\nmargin = "7%"\n'
        'patience = "1s"\nno-control = true\noutput = "other.jsonl"\nscenario = "none.toml"\n'
    )
    resume = ("bench", "loopback", "--dry-run", "--resume", records)
    ended = nettool(*resume)
    assert ended.code == 0, ended
    assert "udp" in ended.stdout
    assert "64 KiB" in ended.stdout
    for words, option in ((["--limit", "1min"], "--limit"), (["--scenario", "none.toml"], "--scenario")):
        assert f"leave {option} out" in nettool(*resume, *words).stderr


def test_a_scenario_takes_precedence_over_defaults_but_not_over_options(config: Path, tmp_path: Path) -> None:
    config.write_text('[bench.loopback]\nsize = "64KiB"\nbudget = "2min"\n')
    scenario = tmp_path / "scenario.toml"
    scenario.write_text('kind = "loopback"\ntransports = ["udp"]\nsizes = ["1MiB"]\nrepeats = 9\n')
    command = ("bench", "loopback", "--scenario", str(scenario), "--dry-run", "--json")
    plan = nettool_here(*command).object
    assert (plan["sizes"], plan["repeats"], plan["budget_s"]) == ([1 << 20], 9, None)
    assert nettool_here(*command, "--size", "2MiB").object["sizes"] == [2 << 20]


def test_a_default_without_effect_is_no_mistake(config: Path, tmp_path: Path) -> None:
    config.write_text('[send]\nretry = "10min"\nexclude = ["*.o", ".git/"]\ncopy-links = true\n')
    (tmp_path / "file").write_bytes(b"x")
    for words in ([], ["-r", "--links"]):
        ended = nettool_here("send", "--dry-run", *words, str(tmp_path / "file"), "127.0.0.1")
        assert ended.code == 0, ended
    ended = nettool_here("send", "--dry-run", "--exclude", "*.o", str(tmp_path / "file"), "127.0.0.1")
    assert "use them with -r" in ended.stderr


@pytest.mark.parametrize(
    ("default", "words"),
    [
        ('key = "lab.key"', ["--code-uses", "2"]),
        ("open = true", ["--code-uses", "2"]),
        ("code-uses = 2", ["--open"]),
        ('key = "lab.key"', ["--open"]),
    ],
)
def test_a_typed_way_to_admit_senders_replaces_a_default_one(config: Path, default: str, words: list[str]) -> None:
    config.write_text(f"[recv]\n{default}\n")
    ended = nettool("recv", "--port", "1", *words, "--idle-timeout", "1ms")
    assert "--idle-timeout 1ms is too short" in ended.stderr


def test_help_shows_the_users_defaults_also_of_a_command_in_a_group(config: Path) -> None:
    config.write_text('[bench.loopback]\nmargin = "7%"\n[recv]\nport = 9123\n')
    assert "[default: 9123]" in nettool_here("recv", "--help").stdout
    assert "[default: 9123]" not in nettool_here("tcp-recv", "--help").stdout
    assert "7%" in nettool_here("bench", "loopback", "--help").stdout


def test_the_file_in_the_configuration_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert nettool_here("recv", "--help").code == 0
    (tmp_path / "nettool").mkdir()
    (tmp_path / "nettool" / "config.toml").write_text("[recv]\nport = 9123\n")
    assert "[default: 9123]" in nettool_here("recv", "--help").stdout
    monkeypatch.setenv(CONFIG_VARIABLE, "")
    assert "[default: 9123]" not in nettool_here("recv", "--help").stdout


def test_a_configuration_directory_that_cannot_be_searched_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ("x" * 300)))  # to root, too, this is an error
    ended = nettool_here("clean", str(tmp_path))
    assert ended.code == 2
    assert "cannot read the configuration file " in ended.stderr
    assert "File name too long" in ended.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sned]", "there is no command 'sned'; did you mean 'send'?"),
        ("[bench.lopback]", "there is no command 'bench lopback'; did you mean 'bench loopback'?"),
        ("[send]\nretyr = 1", "'send' has no option 'retyr'; did you mean 'retry'?"),
        ("[send]\nhelp = true", "'send' has no option 'help'"),
        ("quiet = true", "'quiet' must be below the name of a command, such as [send]"),
        ("bench = 3", "write the options of 'bench' under the name of one command, as [bench.NAME]"),
        ("[bench]\nrepeat = 3", "write the options of 'bench' under the name of one command, as [bench.NAME]"),
        ("[send]\nrecursive = 'yes'", "'recursive' of 'send' must be true or false"),
        ("[send]\nretry = true", "'retry' of 'send' must be a string or a number"),
        ("[send]\nretry = ['1s']", "'retry' of 'send' must be a string or a number"),
        ("[send]\nexclude = [true]", "'exclude' of 'send' must be a string or a number, or a list of them"),
        ("[[", "is not a TOML file"),
        ("[send]\nretry = '\\u0000", "is not a TOML file"),
    ],
)
def test_a_mistake_is_one_line(text: str, message: str, config: Path) -> None:
    config.write_text(text)
    ended = nettool_here("send", "x", "127.0.0.1")
    assert ended.code == 2
    assert ended.stderr.count("\n") == 1
    assert str(config) in ended.stderr
    assert message in ended.stderr


def test_a_file_that_is_missing_or_no_text_is_one_line(config: Path) -> None:
    ended = nettool_here("send", "x", "127.0.0.1")
    assert (ended.code, "cannot read the configuration file" in ended.stderr) == (2, True)
    config.write_bytes(b"\xff\xfe")
    ended = nettool_here("send", "x", "127.0.0.1")
    assert (ended.code, "is not a TOML file" in ended.stderr) == (2, True)
