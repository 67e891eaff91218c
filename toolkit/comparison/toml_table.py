"""Tables of TOML files that users write, read key by key; whatever is wrong is one line that names the key.

`toolkit.fleet` reads its files with this: a typo in a file for many machines is found before any of them is used.
"""

import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from toolkit.errors import UsageError, printable, printable_path

_Value = TypeVar("_Value")
_NAMES: Mapping[type, str] = {
    str: 'text, like "10s"',
    int: "a whole number",
    bool: "true or false",
    dict: "a table",
    list: "a list",
}


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file. `what` it should be, for the message. Raises UsageError."""
    shown = printable_path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {shown}: {(error.strerror or '').lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{shown} is not {what}: {printable(str(error), 100)}") from None


class TomlTable:
    """A table whose keys are taken one by one; `finish` refuses those that nobody has taken.

    A hyphen in a key counts as an underscore. Every method raises UsageError.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        """where: the file and table, for messages"""
        self.where = where
        self.values = values
        self._left = {str(name).replace("-", "_"): value for name, value in values.items()}
        self._known: list[str] = []

    def take(self, kind: type[_Value], name: str) -> _Value | None:
        """The value of `name`; None if it is absent."""
        self._known.append(name)
        value = self._left.pop(name, None)
        return None if value is None else self._checked(kind, name, value)

    def list(self, kind: type[_Value], name: str) -> Sequence[_Value]:
        """The values of `name`, which may be a list or one of them; empty if it is absent."""
        self._known.append(name)
        value = self._left.pop(name, None)
        if value is None:
            return []
        values = value if isinstance(value, list) else [value]
        if not values:
            raise UsageError(f"{self.where}: '{name}' is an empty list")
        checked = [self._checked(kind, name, each) for each in values]
        if kind not in (dict, list) and len(set(checked)) < len(checked):
            raise UsageError(f"{self.where}: '{name}' has a value twice: write each once")
        return checked

    def finish(self) -> None:
        """Raise UsageError if anything is left."""
        for name in self._left:
            near = get_close_matches(name, self._known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(sorted(self._known))}"
            raise UsageError(f"{self.where}: unknown key '{printable(name, 40)}': {hint}")

    def _checked(self, kind: type[_Value], name: str, value: object) -> _Value:
        if type(value) is not kind:
            raise UsageError(f"{self.where}: '{name}' must be {_NAMES[kind]}")
        return value
