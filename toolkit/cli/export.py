"""`--export FILE`: rows for a spreadsheet or a program, as CSV or JSON by the name of the file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from toolkit.cli.output import JSON_SCHEMA
from toolkit.errors import TransferError, UsageError, printable_path
from toolkit.output_files import check_output, open_output
from toolkit.report.text import csv_text

OPTION = "--export"
_SUFFIXES = (".csv", ".json")
_MARKS = {".csv": b"path,payload_bytes,transport", ".json": b'"kind": "rows",\n "rows": ['}
_KEYS = ("path", "payload_bytes", "transport")


def check_export(path: Path, inputs: Iterable[Path]) -> None:
    """Raise UsageError, before the work, if the rows cannot be written to `path`."""
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{OPTION} {printable_path(path)}: end the name in .csv or .json")
    check_output(path, OPTION, _MARKS[path.suffix.lower()], inputs)


def export(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows that have the same fields, `path`, `payload_bytes` and `transport` among them.

    Raises UsageError if the file cannot be opened, or is one that nettool did not write, and TransferError if it cannot
    be written.
    """
    suffix = path.suffix.lower()
    text = csv_text(rows, _KEYS) if suffix == ".csv" else _json(rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_output(path, OPTION, _MARKS[suffix]) as file:
            file.write(text.encode())
    except OSError as error:
        raise TransferError(f"cannot write {printable_path(path)}: {error.strerror}; choose another file") from None


def _json(rows: Sequence[Mapping[str, object]]) -> str:
    return json.dumps({"schema": JSON_SCHEMA, "kind": "rows", "rows": list(rows)}, indent=1, allow_nan=False) + "\n"
