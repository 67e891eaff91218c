"""The pages that are made from the command line itself: docs/commands.md, and docs/nettool.1 for `man nettool`."""

import contextlib
import io
import os
import re
from typing import Final
from unittest import mock

from toolkit import __version__
from toolkit.cli.app import COMMANDS, GROUPS, PROGRAM, invoke, load, nettool
from toolkit.cli.config_file import CONFIG_VARIABLE
from toolkit.errors import ExitCode

_INTRODUCTION: Final = """# Commands

What `nettool COMMAND --help` prints. `man nettool` shows the same as a manual page.

Your own defaults of options can stand in `~/.config/nettool/config.toml`, in a table for each command. An option on
the command line takes precedence over its default, and over defaults that it excludes. `NETTOOL_CONFIG` names another
file; if it is empty, no file is read.

```toml
[send]
retry = "10min"
exclude = ["*.o", ".git/"]

[bench.loopback]
repeat = 12
```
"""
_EXIT_STATUS: Final = {
    ExitCode.OK: "Success.",
    ExitCode.USAGE: "Wrong usage: the command, an option or its value is impossible as given.",
    ExitCode.UNREACHABLE: "The peer is unreachable, or has refused.",
    ExitCode.FAILED: "The transfer started, but was not completed.",
    ExitCode.UNVERIFIED: "What has arrived is not what was sent.",
    ExitCode.FOUND: "The condition of --fail-if applies.",
    ExitCode.INCOMPLETE: "All that was sent is verified, but something in a tree was left out, such as a link.",
    ExitCode.INTERRUPTED: "Interrupted.",
}
_ENVIRONMENT: Final = {
    "NETTOOL_CODE": "The code of a receiver, for commands that would ask for it.",
    CONFIG_VARIABLE: "A file with your own defaults of options, in place of ~/.config/nettool/config.toml; or empty.",
    "NETTOOL_KEYLOG": "A file to which the keys of each session are added, for Wireshark.",
    "NO_COLOR": "If it is set, no output has colours.",
    "XDG_CACHE_HOME": "Directory whose folder nettool keeps rates of paths, tokens and a resume key (~/.cache).",
}
_SEE_ALSO: Final = "iperf3(1), ss(8), tc-netem(8), tcp(7), udp(7)"


def commands_page() -> str:
    """Return docs/commands.md."""
    sections = [f"## {PROGRAM} {path}\n\n```text\n{_help_text(path)}```\n" for path in COMMANDS]
    return "\n".join([_INTRODUCTION, *sections])


def manual_page() -> str:
    """Return docs/nettool.1, in the language of man(7)."""
    parts = [
        f'.TH {PROGRAM.upper()} 1 "" "{PROGRAM} {__version__}" "User Commands"',
        ".ad l\n.nh",
        ".SH NAME",
        f"{PROGRAM} \\- send files over TCP and reliable UDP, and measure which is faster",
        ".SH SYNOPSIS",
        f".B {PROGRAM}\n.I COMMAND\n[OPTIONS] [ARGUMENTS]",
        ".SH DESCRIPTION",
        _prose(nettool.__doc__ or ""),
        ".SH COMMANDS",
    ]
    described_groups = set()
    for path, (target, _) in COMMANDS.items():
        group = path.rpartition(" ")[0]
        if group and group not in described_groups:
            described_groups.add(group)
            parts += [f".SS {PROGRAM} {group} COMMAND", _prose(GROUPS[group])]
        parts += _command(path, target)
    parts += [".SH EXIT STATUS", *(_item(str(int(code)), text) for code, text in _EXIT_STATUS.items())]
    parts += [".SH ENVIRONMENT", *(_item(name, text) for name, text in _ENVIRONMENT.items())]
    return "\n".join([*parts, ".SH SEE ALSO", _escaped(_SEE_ALSO), ""])


def _help_text(path: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), mock.patch.dict(os.environ, {"COLUMNS": "80", CONFIG_VARIABLE: ""}):
        invoke([*path.split(), "--help"])
    return printed.getvalue()


def _command(path: str, target: str) -> list[str]:
    command = load(path, target)
    context = command.make_context(f"{PROGRAM} {path}", [], resilient_parsing=True)
    parts = [f".SS {PROGRAM} {path}", _escaped(f"{PROGRAM} {' '.join([path, *command.collect_usage_pieces(context)])}")]
    parts += [".PP", _prose(command.help)]
    for heading, rows in command.sections(context).items():
        parts += [f".PP\n.B {heading}", *(_item(name, text) for name, text in rows)]
    return parts


def _prose(text: str) -> str:
    """Paragraphs; those that keep their lines in a help text (after a line with \\b) keep them here."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        kept, lines = "\b" in paragraph, paragraph.replace("\b", "").strip("\n").split("\n")
        if kept:
            heading, *examples = [line for line in lines if line.strip()]
            parts += [".PP", _escaped(heading.strip()), ".nf", *map(_escaped, examples), ".fi"]
        else:
            parts += [".PP", *(_escaped(line.strip()) for line in lines)]
    return "\n".join(parts[1:])


def _item(name: str, text: str) -> str:
    return f".TP\n.B {_escaped(name)}\n{_escaped(text)}"


def _escaped(text: str) -> str:
    """Make `text` plain text for roff: hyphens and quotes as they are typed, and no line that is a request."""
    text = re.sub(r"\s+", " ", text) if "\n" in text else text
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("^", "\\(ha").replace("~", "\\(ti")
    return f"\\&{text}" if text.startswith(".") else text
