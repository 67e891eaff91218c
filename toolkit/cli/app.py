"""The table of commands, and how one of them is loaded and run.

`nettool --help` must answer at once, while numpy, rich and the transports take a second to import. The group therefore
holds `LazyCommand`s, which know only the text that the list of commands shows, and import a command's module when the
command is used.
"""

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from toolkit import __version__
from toolkit.cli.config_file import defaults_for
from toolkit.cli.help import SectionedCommand
from toolkit.cli.output import print_result, stdout_error
from toolkit.errors import ExitCode, UsageError, printable

COMMANDS = {
    "recv": ("toolkit.cli.recv:recv", "Receive files over TCP and UDP, on one port."),
    "tcp-recv": ("toolkit.cli.recv:tcp_recv", "Receive files over TCP only."),
    "udp-recv": ("toolkit.cli.recv:udp_recv", "Receive files over UDP only."),
    "send": ("toolkit.cli.send:send", "Send files over UDP, or TCP where UDP is blocked."),
    "tcp-send": ("toolkit.cli.send:tcp_send", "Send files over TCP."),
    "udp-send": ("toolkit.cli.send:udp_send", "Send files over nettool's reliable protocol on UDP."),
    "keygen": ("toolkit.cli.keygen:keygen", "Make a key file for two machines to share."),
    "clean": ("toolkit.cli.clean:clean", "Remove unfinished files that a killed receiver left."),
    "bench loopback": ("toolkit.cli.bench:loopback", "Compare over the loopback interface."),
    "bench lan": ("toolkit.cli.bench:lan", "Compare on a LAN of two network namespaces."),
    "bench link": ("toolkit.cli.bench:link", "Compare over emulated links."),
    "bench remote": ("toolkit.cli.bench:remote", "Compare over a real network."),
    "serve": ("toolkit.cli.serve:serve", "Serve as the remote peer of 'bench remote'."),
    "fleet run": ("toolkit.cli.fleet:fleet_run", "Compare between every two of many hosts."),
    "fleet report": ("toolkit.cli.fleet_report:fleet_report", "Show maps and figures of a fleet's records."),
    "diff": ("toolkit.cli.diff:diff", "Show what changed between two campaigns."),
    "replay": ("toolkit.cli.replay:replay", "Run a campaign, or one of its trials, again."),
    "report": ("toolkit.cli.report:report", "Show results of campaigns: tables, pictures, a page."),
    "link": ("toolkit.cli.link:link", "Run any program behind an emulated link."),
    "sim": ("toolkit.cli.sim:sim", "Simulate congestion control in virtual time."),
    "talk": ("toolkit.cli.talk:talk", "Exchange lines of text with another person or program."),
    "echo": ("toolkit.cli.echo:echo", "Send back whatever arrives, for 'nettool ping'."),
    "ping": ("toolkit.cli.ping:ping", "Measure the round trip to a machine that runs 'nettool echo'."),
    "trace": ("toolkit.cli.trace:trace", "Show the system calls of a transfer, both ends side by side."),
    "learn": ("toolkit.cli.learn:learn", "Take a course on sockets, with experiments."),
    "doctor": ("toolkit.cli.doctor:doctor", "Check what this machine can do, and how to fix the rest."),
    "completion": ("toolkit.cli.completion:completion", "Print what makes a shell complete commands and options."),
}
"""Command -> where it is, and its line in the list of commands."""

GROUPS = {
    "bench": """Compare TCP and UDP: which is faster on a path, by how much, and why.

    A campaign runs each transport several times, in random order, and prints a verdict with its 95% interval. Records
    go to results/; 'nettool report' makes a page of them.

    \b
    Examples:
      nettool bench loopback
      nettool bench link --rate 100Mbit --rtt 40ms --loss 0%,1%
    """,
    "fleet": """Compare TCP and UDP between every two of many hosts.

    dask.distributed (pip install 'nettool[fleet]') spreads the trials; no host takes part in two at once.

    \b
    Examples:
      nettool fleet run bench/fleet/mesh.toml --local 3
      nettool fleet report results/monday.jsonl --html monday.html
    """,
}
PROGRAM = "nettool"
COMPLETION_VARIABLE = "_NETTOOL_COMPLETE"
"""A shell sets it to ask what may follow, instead of running the command; typer answers."""
_SHORT_HELP = {
    "bench": "Compare TCP and UDP, and print verdicts and tables.",
    "fleet": "Compare between every two of many hosts.",
}
_CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 80}


class LazyCommand(TyperCommand):
    """A command that is listed but not loaded yet."""

    def __init__(self, path: str, target: str, help_line: str) -> None:
        super().__init__(path.split()[-1], help=help_line, short_help=help_line, rich_markup_mode=None)
        self.path = path
        self.target = target

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Load the command, with the user's own defaults, and return its context in place of this one's."""
        command = load(info_name or "", self.target)
        extra["default_map"] = defaults_for(self.path, command.params, COMMANDS)
        return command.make_context(info_name, args, parent, **extra)


def invoke(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name, and return its exit code. Raises NettoolError."""
    if COMPLETION_VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # only a shell that asks needs it

        completion_init()
    try:
        result = _root()(
            list(arguments) or ["--help"],
            prog_name=PROGRAM,
            complete_var=COMPLETION_VARIABLE,
            standalone_mode=False,
        )
    except typer.Abort:
        raise KeyboardInterrupt from None
    except SystemExit:  # how typer ends after a completion, or a broken pipe; only a help text can meet one
        return ExitCode.OK
    except OSError as error:  # of a help text: a command reports its own as NettoolErrors
        raise stdout_error(error) from None
    except Exception as error:
        if (usage_error := _usage_error(error, arguments)) is None:
            raise
        raise usage_error from None
    return result if isinstance(result, int) else ExitCode.OK


def _usage_error(error: Exception, arguments: Sequence[str]) -> UsageError | None:
    """Return an error of click as a UsageError that points to the help text; None for any other error.

    arguments: the command line, for what its user probably meant
    """
    format_message = getattr(error, "format_message", None)  # typer has no stable name for click's classes
    if format_message is None:
        return None
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "nettool"
    text = " ".join(format_message().split()).rstrip(".")
    line = printable(text.replace(": Value error, ", ": ", 1))  # typer's words for a value that is no choice
    if context and (meant := _meant(error, line, context.command, arguments)):
        line = meant
    return UsageError(f"{line}; '{path} --help' explains the usage")


def _meant(error: Exception, line: str, command: Any, arguments: Sequence[str]) -> str:
    """Return what to write instead, for mistakes that other programs teach; "" for any other."""
    option = getattr(error, "option_name", "")
    if option and not option.startswith("--"):
        for one in arguments:
            if one.startswith(option) and len(one) > len(option) and os.path.lexists(one):
                return f"{printable(one)} is taken for options: write ./{printable(one)} for the file"
    if option in ("-p", "-P", "--port") and any("HOST" in (one.metavar or "") for one in command.params):
        return f"there is no {option}: the port follows its host after a colon, as in 192.0.2.7:9001"
    if line.startswith("Got unexpected extra argument") and any("--dir" in one.opts for one in command.params):
        return f"{command.name} takes no arguments: name the directory for received files with --dir"
    return ""


def _root() -> TyperGroup:
    root = _group(PROGRAM, nettool, nettool.__doc__)
    groups = {"": root}
    for path, (target, help_line) in COMMANDS.items():
        group, _, _ = path.rpartition(" ")
        if group not in groups:
            groups[group] = _group(group, lambda: None, GROUPS[group])
            groups[group].short_help = _SHORT_HELP[group]
            root.add_command(groups[group], group)
        groups[group].add_command(LazyCommand(path, target, help_line))
    return root


def _group(name: str, callback: Callable[..., None], help_text: str | None) -> TyperGroup:
    app = typer.Typer(
        name=name,
        add_completion=False,
        rich_markup_mode=None,
        context_settings=_CONTEXT_SETTINGS,
    )
    app.callback(help=help_text)(callback)
    group = get_command(app)
    if not isinstance(group, TyperGroup):
        raise TypeError(group)
    return group


def load(name: str, target: str) -> Any:
    """Import a command of this name from its place, 'module:function', and return it as a SectionedCommand."""
    module, _, attribute = target.partition(":")
    app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=_CONTEXT_SETTINGS)
    app.command(name, cls=SectionedCommand)(getattr(import_module(module), attribute))
    return get_command(app)


def _show_version(is_requested: bool) -> None:
    if is_requested:
        print_result(f"nettool {__version__}")
        raise typer.Exit


def nettool(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Move files over TCP and over a reliable protocol on UDP, and measure which of the two is faster on a path.

    \b
    Examples:
      nettool recv --dir incoming               receive files over TCP and UDP
      nettool send film.mkv 192.0.2.7           send a file, over UDP or else TCP
      nettool tcp-send film.mkv 192.0.2.7       send a file over TCP
      nettool bench loopback                    compare the two on this machine

    Exit codes: 0 success, 2 wrong usage, 3 refused or unreachable, 4 transfer failed, 5 verification failed,
    7 incomplete tree, 130 interrupted.
    """
