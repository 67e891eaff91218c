"""Files of records: one JSON object a line, flushed as soon as it is known.

A file holds one `campaign` line, then a `probe` line for each path, a `trial` line for each trial, and an `outage` line
for each one that a missing host prevented. A campaign that is cut short therefore keeps what it has measured, and can
be resumed. docs/data-format.md describes the lines. A reader accepts lines of its own SCHEMA only, and skips kinds and
fields that it does not know.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from toolkit.comparison.json_codec import FieldError, decode, encode
from toolkit.comparison.paths import FLEET
from toolkit.comparison.records import Campaign, Outage, Probe, Results, Trial
from toolkit.comparison.verdict import MAX_MARGIN
from toolkit.errors import TransferError, UsageError, printable, printable_path

SCHEMA = 2

Record = Campaign | Probe | Trial | Outage


def line(record: Record) -> str:
    """One record as its line of JSON, without the newline."""
    kind = type(record).__name__.lower()
    return json.dumps({"schema": SCHEMA, "kind": kind, **encode(record)}, allow_nan=False)


class Writer:
    """Appends records to a file, and flushes each. The file is created when the first record is written."""

    def __init__(self, path: Path, is_resumed: bool = False) -> None:
        """`is_resumed`: append to an existing file, after dropping a last line that was cut short.

        Raises UsageError if it is False and the file is not empty: measurements take hours.
        """
        with suppress(OSError):  # a file that cannot be examined cannot be opened either: `write` reports that
            if not is_resumed and path.stat().st_size:
                raise UsageError(
                    f"{printable_path(path)} is not empty and will not be overwritten: choose another `output`"
                    f"{_how_to_append(path)}"
                )
        self._path = path
        self._is_resumed = is_resumed
        self._file: TextIO | None = None

    def write(self, record: Record) -> None:
        """Raises TransferError if the file cannot be created or written."""
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._open()
            self._file.write(line(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise TransferError(
                f"cannot write {printable(str(self._path))}: {error.strerror}; choose another `output`"
            ) from None

    def _open(self) -> TextIO:
        if not self._is_resumed:
            return self._path.open("w", encoding="utf-8")
        file = self._path.open("r+", encoding="utf-8", newline="")
        content = file.read()
        whole, last = content[: content.rfind("\n") + 1], content[content.rfind("\n") + 1 :]
        file.seek(len(whole.encode()))
        file.truncate()
        with suppress(FieldError, RecursionError):
            _decoded(last)
            file.write(last + "\n")  # `read` has counted it: only its newline was cut off
        return file

    def close(self) -> None:
        """Idempotent."""
        if self._file is not None:
            with suppress(OSError):  # a record that could not be written was reported, and stays in the buffer
                self._file.close()


def read(path: Path) -> Results:
    """Read a file of records. A last line without its newline that does not parse was cut short, and is left out.

    Raises UsageError that names the first line that is not a record of this schema, or begins a second campaign, and if
    a trial is of another campaign.
    """
    shown = printable_path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {shown}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not text; give a file that nettool bench wrote") from None
    campaign: Campaign | None = None
    trials: list[Trial] = []
    repeated: list[Trial] = []
    probes: list[Probe] = []
    outages: list[Outage] = []
    lines = text.split("\n")
    for number, entry in enumerate(lines, 1):
        if not entry and number == len(lines):
            break
        try:
            record = _decoded(entry)
        except (FieldError, RecursionError) as error:
            if number == len(lines) and campaign is not None:
                break
            raise UsageError(
                f"{shown}, line {number}: not a record of schema {SCHEMA} ({printable(str(error), 80)}); "
                "give a file that nettool bench wrote"
            ) from None
        if isinstance(record, Campaign):
            if campaign is not None:
                raise UsageError(f"{shown}, line {number}: a second campaign; give each a file of its own")
            campaign = record
        elif isinstance(record, Trial):
            (repeated if record.is_repeated else trials).append(record)
        elif isinstance(record, Probe):
            probes.append(record)
        elif isinstance(record, Outage):
            outages.append(record)
    if campaign is None:
        raise UsageError(f"{shown} contains no campaign; give a file that nettool bench wrote")
    for trial in (*trials, *repeated):
        if not _belongs(trial, campaign):
            what = printable(f"{trial.path}, {trial.transport}", 80)
            raise UsageError(f"{shown} has a trial of another campaign ({what}); give a file that nettool bench wrote")
    return Results(campaign, first_measured(trials), probes, tuple(outages), tuple(repeated))


def _how_to_append(path: Path) -> str:
    """Which command goes on with the records in a file; "" if it holds none."""
    try:
        name = read(path).campaign.name
    except UsageError:
        return ""
    command = "fleet run MESH" if name == FLEET else f"bench {printable(name, 40)}"
    return f" ('nettool {command}' appends to these records with `resume`)"


def _belongs(trial: Trial, campaign: Campaign) -> bool:
    is_planned = trial.path in campaign.paths and trial.transport in campaign.transports
    return is_planned and trial.payload_bytes in campaign.sizes


def first_measured(trials: Sequence[Trial]) -> list[Trial]:
    """The trials in order of time; where one was measured again without being marked as repeated, only the first.

    Earlier versions measured a trial with certain marks again, and marks depend on what was measured: the first counts.
    """
    kept: dict[tuple[str, int, str, int], Trial] = {}
    for trial in sorted(trials, key=lambda trial: trial.position):
        kept.setdefault((trial.path, trial.payload_bytes, trial.transport, trial.block), trial)
    return list(kept.values())


def _decoded(text: str) -> Record | None:
    """The record of one line; None for a kind that this version does not know. Raises FieldError."""
    try:
        entry = json.loads(text)
    except ValueError:
        raise FieldError("not JSON") from None
    if not isinstance(entry, dict) or entry.get("schema") != SCHEMA:
        raise FieldError(f"its schema is not {SCHEMA}")
    if not isinstance(entry.get("kind"), str):
        raise FieldError("it has no kind")
    kinds: dict[str, type[Record]] = {"campaign": Campaign, "probe": Probe, "trial": Trial, "outage": Outage}
    kind = kinds.get(entry["kind"])
    record = None if kind is None else decode(kind, entry)
    if isinstance(record, Campaign) and not 0 < record.margin <= MAX_MARGIN:
        raise FieldError(f"margin is not between 0 and {MAX_MARGIN}")
    return record
