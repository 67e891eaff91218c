"""The commands, by name and help line; what is behind a name is imported when the name is used.

`nettool --help` has to answer in a quarter of a second, and numpy, rich and the transports together need
longer than that. So the group holds `LazyCommand`s, which know only what the list of commands shows; the
context that such a command makes is that of the real one.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from toolkit import __version__
from toolkit.cli.common import CONTEXT_SETTINGS, emit
from toolkit.errors import UsageError, printable

COMMANDS = {
    "recv": ("toolkit.cli.recv:recv", "Receive files over TCP and UDP, both on one port."),
    "tcp-recv": ("toolkit.cli.recv:tcp_recv", "Receive files over TCP only."),
    "udp-recv": ("toolkit.cli.recv:udp_recv", "Receive files over UDP only."),
    "tcp-send": ("toolkit.cli.send:tcp_send", "Send files over TCP."),
    "udp-send": ("toolkit.cli.send:udp_send", "Send files over nettool's reliable protocol on UDP."),
    "bench loopback": ("toolkit.cli.bench:loopback", "Compare TCP and UDP on this machine alone."),
    "bench lan": ("toolkit.cli.bench:lan", "Compare TCP and UDP on a LAN of two namespaces."),
    "bench link": ("toolkit.cli.bench:link", "Compare TCP and UDP over emulated links."),
    "bench remote": ("toolkit.cli.bench:remote", "Compare TCP and UDP over a real network."),
    "serve": ("toolkit.cli.serve:serve", "Be the other end of bench remote; writes no files."),
    "diff": ("toolkit.cli.diff:diff", "Tell what changed between two campaigns."),
    "replay": ("toolkit.cli.replay:replay", "Run a campaign, or one trial, again from its records."),
    "report": ("toolkit.cli.report:report", "Show what campaigns have found: tables, pictures, a page."),
    "link": ("toolkit.cli.link:link", "Run any program behind an emulated link."),
    "sim": ("toolkit.cli.sim:sim", "Simulate congestion controls over any path, in virtual time."),
}
GROUPS = {"bench": "Compare TCP and UDP, and print the tables."}


class LazyCommand(TyperCommand):
    """A name and a help line, and where to find the rest."""

    def __init__(self, name: str, target: str, help_line: str) -> None:
        super().__init__(name, help=help_line, short_help=help_line, rich_markup_mode=None)
        self.target = target

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command, which is loaded now."""
        return _load(info_name or "", self.target).make_context(info_name, args, parent, **extra)


def invoke(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name; its exit code. Raises NettoolError."""
    try:
        result = _root()(list(arguments) or ["--help"], prog_name="nettool", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except SystemExit:  # typer's answer to a broken pipe, which only a page of help can have met
        return 0
    except Exception as error:
        format_message = getattr(error, "format_message", None)  # click's errors, wherever typer keeps click
        if format_message is None:
            raise
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "nettool"
        if not getattr(error, "message", ""):
            raise UsageError(f"say what to do; '{path} --help' lists it") from None
        line = printable(" ".join(format_message().split()).rstrip("."))
        raise UsageError(f"{line}; '{path} --help' shows how to use it") from None
    return result if isinstance(result, int) else 0


def _root() -> TyperGroup:
    root = _group("nettool", nettool, nettool.__doc__)
    groups = {"": root}
    for path, (target, help_line) in COMMANDS.items():
        group, _, name = path.rpartition(" ")
        if group not in groups:
            groups[group] = _group(group, lambda: None, GROUPS[group])
            root.add_command(groups[group], group)
        groups[group].add_command(LazyCommand(name, target, help_line))
    return root


def _group(name: str, callback: Callable[..., None], help_text: str | None) -> TyperGroup:
    app = typer.Typer(
        name=name,
        add_completion=False,
        rich_markup_mode=None,
        context_settings=CONTEXT_SETTINGS,
    )
    app.callback(help=help_text)(callback)
    group = get_command(app)
    if not isinstance(group, TyperGroup):
        raise TypeError(group)
    return group


def _load(name: str, target: str) -> Any:
    module, _, attribute = target.partition(":")
    app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=CONTEXT_SETTINGS)
    app.command(name)(getattr(import_module(module), attribute))
    return get_command(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        emit(f"nettool {__version__}")
        raise typer.Exit


def nettool(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Move files over TCP and over a reliable protocol on UDP, and see which of the two serves a path better.

    \b
    nettool recv --dir incoming                  wait for files, on both transports
    nettool tcp-send film.mkv 192.0.2.7          send one, over TCP
    nettool udp-send film.mkv 192.0.2.7          or over UDP
    nettool bench loopback                       compare the two on this machine

    Exit codes: 0 done, 2 wrong usage, 3 refused or unreachable, 4 the transfer failed, 5 verification failed,
    130 interrupted.
    """
