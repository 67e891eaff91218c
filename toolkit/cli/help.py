"""The class of every command: help texts with their options under headings, no empty values, and what was typed.

typer groups options only when it draws with rich, which takes a tenth of a second to import. This class writes the same
headings in plain text.
"""

from collections.abc import Collection, Mapping
from contextvars import ContextVar
from typing import Any

from typer.core import TyperCommand

from toolkit.errors import UsageError

ARGUMENTS, OPTIONS, GENERAL = "Arguments", "Options", "General"
_TYPED: ContextVar[frozenset[str] | None] = ContextVar("_TYPED", default=None)
_COLUMN_LIMIT = 30  # an option longer than this has its text on the next line
_EXCLUSIVE = (
    {"repeat", "budget"},
    {"size", "time"},
    {"links", "copy_links"},
    {"code", "key", "is_open"},
    {"code_uses", "key", "is_open"},
    {"quiet", "watch"},
)
"""Parameters that exclude each other in every command that has them."""


class SectionedCommand(TyperCommand):
    """A command that writes a usage line without type names, and one section of options for each `rich_help_panel`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of the command line. Raises UsageError if an option or argument is empty.

        A script that writes --dir "$DIR" passes an empty value if the variable is not set, and Path("") would be the
        current directory. The words must be examined before they are converted.
        """
        if not ctx.resilient_parsing:  # a shell that completes a word has no value for it yet
            given, _, _ = self.make_parser(ctx).parse_args(list(args))
            for parameter in self.get_params(ctx):
                _check_not_empty(parameter, given.get(parameter.name))
            _TYPED.set(frozenset(given))
            ctx.default_map = _without_excluded(ctx.default_map or {}, given)
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command's name in the usage line."""
        arguments = [parameter for parameter in self.get_params(ctx) if parameter.param_type_name == "argument"]
        return ["[OPTIONS]", *(str(argument.metavar) for argument in arguments)]

    def sections(self, ctx: Any) -> dict[str, list[tuple[str, str]]]:
        """Return names and texts of parameters by heading: arguments, then options as declared, then general options.

        No section is empty.
        """
        sections: dict[str, list[tuple[str, str]]] = {ARGUMENTS: []}
        for parameter in self.get_params(ctx):
            heading, row = _row(parameter, ctx)
            sections.setdefault(heading, []).append(row)
        sections[GENERAL] = sections.pop(GENERAL)
        return {heading: rows for heading, rows in sections.items() if rows}

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections, with all texts in one column."""
        sections = self.sections(ctx)
        names = [name for rows in sections.values() for name, _ in rows if len(name) <= _COLUMN_LIMIT]
        width = max(map(len, names))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows], col_max=_COLUMN_LIMIT)


def is_typed(name: str) -> bool:
    """Whether a parameter is on this command line; False if its value is a default, of nettool or of the user.

    A default gives way to an option that excludes it; of two typed options, one is a mistake that the user must see.
    """
    typed = _TYPED.get()
    return typed is None or name in typed


def _without_excluded(defaults: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """The user's own defaults without those that a given option excludes."""
    excluded = set[str]().union(*(group for group in _EXCLUSIVE if not group.isdisjoint(given)))
    return {name: value for name, value in defaults.items() if name not in excluded}


def _check_not_empty(parameter: Any, given: Any) -> None:
    """Raises UsageError if a value is empty. The words after `--` belong to another program and may be empty."""
    values = given if isinstance(given, list | tuple) else [given]
    is_option = parameter.param_type_name == "option"
    if "" not in values or (not is_option and "-- " in parameter.metavar):
        return
    if is_option:
        name = max(parameter.opts, key=len)
        remedy = f"set it, or leave {name} out"
    else:
        name = parameter.metavar
        if name.startswith("["):
            name = name[1:-1]
        if parameter.nargs != 1:
            name = f"one of {name}"
        remedy = "set it"
    raise UsageError(f"{name} is empty, often because a variable of the shell is not set: {remedy}")


def _row(parameter: Any, context: Any) -> tuple[str, tuple[str, str]]:
    if parameter.param_type_name == "argument":
        return ARGUMENTS, (str(parameter.metavar), parameter.help or "")
    panel = getattr(parameter, "rich_help_panel", None) or (GENERAL if parameter.name == "help" else OPTIONS)
    return panel, parameter.get_help_record(context)
