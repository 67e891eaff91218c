"""Results as data: JSON lines that every table can be made from again, without the machine that they came
from.

A file holds one `campaign` line (what was asked for, the seed, the host) and then a `trial` line for each
trial as soon as it is over, so that a campaign cut short keeps what it has. docs/data-format.md describes
each field. A reader takes lines of its own SCHEMA only, and skips kinds and fields that it does not know.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO, TypeVar

from toolkit.errors import TransferError, UsageError, printable

SCHEMA = 1

_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class Campaign:
    """What was asked for, and where.

    name:            the kind of campaign, "loopback"
    started_unix_s:  wall clock
    seed:            of the order, the payload and the bootstrap
    payload_bytes:   size of the file that every trial moves
    repeats:         blocks
    cells:           label -> transport and settings
    baseline:        label that ratios are taken to
    storage:         where the files lay: "memory" or "disk"
    host:            toolkit.bench.fingerprint
    """

    name: str
    started_unix_s: float
    seed: int
    payload_bytes: int
    repeats: int
    cells: Mapping[str, Mapping[str, Any]]
    baseline: str
    storage: str
    host: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """One transfer.

    block:     toolkit.bench.matrix; WARM_UP is -1
    position:  of all trials, in the order of time
    cell:      label
    verified:  the receiver has the sender's digest, and both processes ended with 0
    sender, receiver:  their own JSON objects (`nettool tcp-send --json`, `nettool tcp-recv --once --json`)
    error:     their complaint, where the trial failed
    """

    block: int
    position: int
    cell: str
    verified: bool
    sender: Mapping[str, Any]
    receiver: Mapping[str, Any]
    error: str | None


@dataclass(frozen=True, slots=True)
class Results:
    """One file's content."""

    campaign: Campaign
    trials: Sequence[Trial]


def line(record: Campaign | Trial) -> str:
    """One record as its line of JSON, without the line's end."""
    kind = type(record).__name__.lower()
    return json.dumps({"schema": SCHEMA, "kind": kind, **asdict(record)}, allow_nan=False)


class Writer:
    """Appends records to a file, one flushed line each; the file is made, anew, for the first of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def write(self, record: Campaign | Trial) -> None:
        """Raises TransferError where the file cannot be made, or the disk does not take it."""
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("w", encoding="utf-8")
            self._file.write(line(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise TransferError(
                f"cannot write {printable(str(self._path))}: {error.strerror}; choose another --output"
            ) from None

    def close(self) -> None:
        """Idempotent."""
        if self._file is not None:
            self._file.close()


def read(path: Path) -> Results:
    """The records of a file. Raises UsageError that names the first line that is none of this schema's."""
    campaign: Campaign | None = None
    trials: list[Trial] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                try:
                    entry = _entry(text)
                    if entry["kind"] == "campaign":
                        campaign = _build(Campaign, entry)
                    elif entry["kind"] == "trial":
                        trials.append(_build(Trial, entry))
                except (ValueError, TypeError, KeyError):
                    raise UsageError(
                        f"{printable(str(path))}, line {number}: not a record of schema {SCHEMA}; "
                        "give a file that nettool bench wrote"
                    ) from None
    except OSError as error:
        raise UsageError(f"cannot read {printable(str(path))}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{printable(str(path))} is not text; give a file that nettool bench wrote") from None
    if campaign is None:
        raise UsageError(f"{printable(str(path))} holds no campaign; give a file that nettool bench wrote")
    return Results(campaign, trials)


def _entry(text: str) -> dict[str, Any]:
    entry = json.loads(text)
    if entry["schema"] != SCHEMA:
        raise ValueError(entry["schema"])
    return dict(entry)


def _build(kind: type[_Record], entry: Mapping[str, Any]) -> _Record:
    """The fields that the record knows; those that a later version added are left out."""
    return kind(**{field.name: entry[field.name] for field in fields(kind)})  # type: ignore[arg-type]
