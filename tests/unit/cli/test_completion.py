"""What the tab key offers."""

import pytest

from toolkit.cli.app import COMPLETION_VARIABLE, invoke


def offered(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what bash offers for the last word of a command line."""
    words = line.split(" ")
    monkeypatch.setenv(COMPLETION_VARIABLE, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert invoke([]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nettool udp-", ["udp-recv", "udp-send"]),
        ("nettool bench l", ["loopback", "lan", "link"]),
        ("nettool udp-send --dig", ["--digest"]),
        ("nettool udp-send --digest b", ["blake3"]),
        ("nettool completion ", ["bash", "zsh", "fish"]),
        ("nettool learn ha", ["handshake"]),
        ("nettool learn --lang ", ["en", "ko"]),
        ("nettool link --link starl", ["starlink"]),
        ("nettool udp-send fil", []),  # the shell offers files
    ],
)
def test_commands_options_and_choices_are_offered(
    line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert offered(line, monkeypatch, capsys) == expected


def test_an_option_is_offered_where_it_is_accepted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--streams" in offered("nettool tcp-send --", monkeypatch, capsys)
    assert "--streams" not in offered("nettool udp-send --", monkeypatch, capsys)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_asks_nettool(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["completion", shell]) == 0
    assert f"{COMPLETION_VARIABLE}=complete_{shell}" in capsys.readouterr().out
