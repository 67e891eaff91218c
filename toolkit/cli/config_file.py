"""The user's own defaults of options, from a TOML file.

A table has the name of a command, a key the name of one of its options without the dashes:

    [send]
    retry = "10min"
    exclude = ["*.o", ".git/"]

    [bench.loopback]
    budget = "2min"

The file is config.toml in the user's configuration directory for nettool (~/.config/nettool). NETTOOL_CONFIG names
another file, or none if it is empty. The command line takes precedence.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

from toolkit.errors import UsageError, printable, printable_path

CONFIG_VARIABLE: Final = "NETTOOL_CONFIG"


def defaults_for(command: str, parameters: Sequence[Any], commands: Collection[str]) -> dict[str, Any]:
    """Return the user's defaults of a command, by the names of click's parameters.

    command: the command's path, such as 'bench loopback'; `commands` has the paths of all
    parameters: the command's parameters, as click has them

    Raises UsageError if the file cannot be read, or names a command or an option that does not exist.
    """
    path = _path()
    if path is None:
        return {}
    file = printable_path(path)
    tables = _tables(_read(path, file), commands, file)
    options = {
        name.removeprefix("--"): parameter
        for parameter in parameters
        for name in parameter.opts
        if name.startswith("--") and parameter.name != "help"
    }
    defaults = {}
    for name, value in tables.get(command, {}).items():
        if name not in options:
            raise UsageError(f"{file}: '{command}' has no option '{printable(name, 60)}'{_similar(name, options)}")
        defaults[options[name].name] = _checked(value, options[name], f"{file}: '{name}' of '{command}'")
    return defaults


def _path() -> Path | None:
    named = os.environ.get(CONFIG_VARIABLE)
    if named is not None:
        return Path(named) if named else None
    import platformdirs  # not with the module: the list of commands must appear at once

    path = Path(platformdirs.user_config_dir("nettool")) / "config.toml"
    try:
        return path if path.exists() else None
    except OSError:  # a folder that may not be searched, for example: reading the file says so
        return path


def _read(path: Path, file: str) -> dict[str, Any]:
    import tomllib  # not with the module: see _path

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration file {file}: {error.strerror}") from None
    except ValueError as error:  # of TOML, or of UTF-8
        raise UsageError(f"{file} is not a TOML file: {printable(str(error), 200)}") from None


def _tables(root: dict[str, Any], commands: Collection[str], file: str) -> dict[str, dict[str, Any]]:
    """Return the tables by the paths of their commands. Raises UsageError."""
    groups = {command.partition(" ")[0] for command in commands if " " in command}
    tables = {name: table for name, table in root.items() if name not in groups}
    for group in groups & root.keys():
        if not isinstance(root[group], dict) or not all(isinstance(table, dict) for table in root[group].values()):
            raise UsageError(f"{file}: write the options of '{group}' under the name of one command, as [{group}.NAME]")
        tables |= {f"{group} {name}": table for name, table in root[group].items()}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"{file}: '{printable(name, 60)}' must be below the name of a command, such as [send]")
        if name not in commands:
            raise UsageError(f"{file}: there is no command '{printable(name, 60)}'{_similar(name, commands)}")
    return tables


def _checked(value: Any, parameter: Any, place: str) -> Any:
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{place} must be true or false")
        return value
    values = value if isinstance(value, list) and parameter.multiple else [value]
    if not all(isinstance(each, str | int | float) and not isinstance(each, bool) for each in values):
        raise UsageError(f"{place} must be a string or a number{', or a list of them' * parameter.multiple}")
    if "" in values:
        raise UsageError(f"{place} is empty: give it a value, or leave it out")
    return [str(each) for each in values] if parameter.multiple else str(value)


def _similar(name: str, names: Collection[str]) -> str:
    from difflib import get_close_matches  # only a mistake needs it

    found = get_close_matches(name, names, 1)
    return f"; did you mean '{found[0]}'?" if found else ""
