"""How a function becomes a command: shared option groups, and failures that are reported in one way.

A command is a function with typer annotations. A parameter annotated with a dataclass is an option group: each field of
the dataclass becomes an option. Groups are declared in `options` and `link_options`, so that each option has one
wording.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer
from typer.models import ParameterInfo

from toolkit.cli.option_names import with_options
from toolkit.cli.output import as_nettool_error, print_json
from toolkit.errors import UsageError

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class GroupDisplay:
    """How one command shows a shared group: `Annotated[PathArguments, GroupDisplay(...)]`.

    lists:    fields that accept a comma-separated list in this command
    defaults: field -> the default that the command applies when the option is absent, for the help text
    """

    lists: frozenset[str] = frozenset()
    defaults: Mapping[str, str] = field(default_factory=dict)


def option(
    *names: str,
    metavar: str,
    text: str,
    default: str | None = None,
    panel: str | None = None,
    offered: Callable[[], Iterable[str]] | None = None,
) -> Any:
    """Declare an option whose Python default is None; `default` is what the help text shows instead.

    panel:   the heading in the help text; a group sets its own for all its fields (`PANEL`)
    offered: returns what the tab key offers as values; by default the shell offers files
    """
    shown = _with_default(text, default)
    return typer.Option(*names, metavar=metavar, help=shown, rich_help_panel=panel, autocompletion=offered)


def flag(*names: str, text: str, panel: str | None = None) -> Any:
    """Declare an option without a value."""
    return typer.Option(*names, help=text, rich_help_panel=panel)


def number(
    *names: str,
    low: int,
    high: int | None = None,
    metavar: str = "N",
    text: str,
    default: str | None = None,
    panel: str | None = None,
) -> Any:
    """Declare an option that takes an integer of at least `low` and at most `high`."""

    def check(value: int | None) -> int | None:
        if value is not None and (value < low or (high is not None and value > high)):
            limits = f"{low} or more" if high is None else f"{low} to {high}"
            raise typer.BadParameter(f"{value} is out of range: use {limits}")
        return value

    return typer.Option(
        *names, metavar=metavar, help=_with_default(text, default), callback=check, rich_help_panel=panel
    )


def command(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Turn `function` into a command for typer.

    Expands option groups, and converts every failure to a NettoolError. That includes a broken pipe, which typer
    would mistake for a reader of stdout that has gone away. With --json, a failure first prints an object with the
    error and the exit code.
    """
    parameters = signature(function).parameters
    groups = {name: group for name, one in parameters.items() if (group := _group_of(one.annotation)) is not None}
    shown: list[Parameter] = []
    for name, parameter in parameters.items():
        shown += _expanded(*groups[name]) if name in groups else [parameter.replace(kind=Parameter.KEYWORD_ONLY)]

    @wraps(function)
    def run(**options: Any) -> _Result:
        prints_json = options.get("json", False)
        try:
            if options.get("quiet") and options.get("watch"):
                raise UsageError("--quiet prints errors only, and --watch draws charts: leave one of them out")
            for name, (group, _) in groups.items():
                options[name] = group(**{one.name: options.pop(one.name) for one in fields(group)})
            return function(**options)
        except Exception as error:
            failure = as_nettool_error(error)
            if prints_json:
                from toolkit.cli.results import partial_result_fields  # imports the transfer, which no help text needs

                outcome = {"error": with_options(str(failure)), "exit_code": failure.exit_code}
                print_json("error", {**outcome, **partial_result_fields(failure)})
            if failure is error:
                raise
            raise failure from error

    vars(run)["__signature__"] = Signature(shown)
    run.__annotations__ = {one.name: one.annotation for one in shown}
    return run


def _group_of(annotation: Any) -> tuple[Any, GroupDisplay] | None:
    display = GroupDisplay()
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        display = next((one for one in metadata if isinstance(one, GroupDisplay)), display)
    return (annotation, display) if is_dataclass(annotation) else None


def _expanded(group: Any, display: GroupDisplay) -> Iterable[Parameter]:
    for one in fields(group):
        default = Parameter.empty if one.default is MISSING else one.default
        annotation = _adapted(one.name, one.type, getattr(group, "PANEL", None), display)
        yield Parameter(one.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _adapted(name: str, annotation: Any, panel: str | None, display: GroupDisplay) -> Any:
    kind, *metadata = get_args(annotation)
    declared = next(one for one in metadata if isinstance(one, ParameterInfo))
    info = copy(declared)
    info.rich_help_panel = declared.rich_help_panel or panel
    if name in display.lists:
        info.metavar = f"{declared.metavar}[,...]"
    info.help = _with_default(declared.help or "", display.defaults.get(name))
    return Annotated[kind, info]


def _with_default(text: str, default: str | None) -> str:
    return text if default is None else f"{text}  [default: {default}]"
