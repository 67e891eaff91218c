"""Results as data: JSON lines that every table can be made from again, without the machine that they came
from.

A file holds one `campaign` line (what was asked for, the seed, the host), then a `probe` line for each path
as soon as it was measured and a `trial` line for each trial as soon as it is over, so that a campaign cut
short keeps what it has, and can be gone on with. docs/data-format.md describes each field. A reader takes
lines of its own SCHEMA only, and skips kinds and fields that it does not know; a trial's later fields have
defaults, so that a file of an earlier minor version is read as well.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TextIO, TypeVar

from toolkit.errors import TransferError, UsageError, printable

SCHEMA = 2
CONTROL_SUFFIX = "#2"
"""The A/A control is the baseline once more, under this label."""

CPU_BOUND = "cpu-bound"  # a processor, not the path, was the limit
EMULATOR_LATE = "emulator-late"  # the emulated link did not keep its own times
LEDGER_OFF = "ledger-off"  # packets are missing that nobody accounts for
PROBE_OFF = "probe-off"  # the link, measured before, is not what was asked for
HOST_DROPS = "host-drops"  # an end, not the path, lost packets
UNRELIABLE = "unreliable"  # the program does not see to it that everything arrives
MARKS = (CPU_BOUND, EMULATOR_LATE, LEDGER_OFF, PROBE_OFF, HOST_DROPS, UNRELIABLE)

DEFAULT_LIMIT_S = 300.0
"""For one transfer, where nothing was said."""

_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class Campaign:
    """What was asked for, and where.

    name:            the kind of campaign: "loopback", "lan", "link" or "remote"
    started_unix_s:  wall clock
    seed:            of the order, the payload and the links
    repeats:         blocks
    baseline:        label that ratios are taken to
    transports:      label -> transport, congestion_control, program, rate_bps
    paths:           label -> kind, rate_bps, rtt_ms, loss, ..., text, ideal_bps
    sizes:           bytes of the file, each moved by every transport over every path
    storage:         where the files lay: "memory" or "disk"
    host:            toolkit.compare.host_info
    method:          how it was measured, in sentences
    command:         what the user typed
    is_probed:       whether links were measured first
    limit_s:         for one transfer
    competitor:      the setting of the flow beside each transfer, as those of `transports`; None for none
    """

    name: str
    started_unix_s: float
    seed: int
    repeats: int
    baseline: str
    transports: Mapping[str, Mapping[str, Any]]
    paths: Mapping[str, Mapping[str, Any]]
    sizes: Sequence[int]
    storage: str
    host: Mapping[str, Any]
    method: Sequence[str] = field(default_factory=list)
    command: Sequence[str] = field(default_factory=list)
    is_probed: bool = True
    limit_s: float = DEFAULT_LIMIT_S
    competitor: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One transfer.

    block:          toolkit.compare.plan; WARM_UP is -1
    position:       of all trials, in the order of time
    transport, path: labels of the campaign
    payload_bytes:  the file's size
    verified:       the receiver has the sender's digest, and both ends ended well
    seconds:        from the first connect to the receiver's verified digest; None where it failed
    goodput_bps:    8 x payload_bytes / seconds
    error:          the complaint of an end, where the trial failed
    sender, receiver: their own JSON objects; empty where there is none
    ledger:         toolkit.compare.packet_audit; None where no link was emulated
    cost, reasons, delay, competitor, series: docs/data-format.md
    why:            one sentence
    marks:          of MARKS; where many trials of a cell are marked, it has no verdict
    link_seed:      of the link's random draws; the same for every transport of a block
    """

    block: int
    position: int
    transport: str
    path: str
    payload_bytes: int
    verified: bool
    seconds: float | None
    goodput_bps: float | None
    error: str | None = None
    sender: Mapping[str, Any] = field(default_factory=dict)
    receiver: Mapping[str, Any] = field(default_factory=dict)
    ledger: Mapping[str, Any] | None = None
    cost: Mapping[str, float | None] = field(default_factory=dict)
    retransmitted_packets: int | None = None
    reasons: Mapping[str, float] | None = None
    why: str = ""
    delay: Mapping[str, float] | None = None
    competitor: Mapping[str, float] | None = None
    series: Mapping[str, Sequence[float | None]] | None = None
    marks: Sequence[str] = field(default_factory=list)
    link_seed: int | None = None

    @property
    def is_counted(self) -> bool:
        """Whether it counts in figures: it has arrived whole, and is no warm-up."""
        return self.verified and self.block >= 0 and self.seconds is not None


@dataclass(frozen=True, slots=True)
class Probe:
    """A path as it was measured before anything was sent over it; None where it was not, or cannot be judged.

    rtt_ms:  {"median": ..., "p99": ...}
    is_met:  whether it is what was asked for
    text:    what was found, in a sentence
    """

    path: str
    rate_bps: float | None
    rtt_ms: Mapping[str, float] | None
    loss: float | None
    emulator_cpu_share: float | None
    is_met: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Results:
    """One file's content."""

    campaign: Campaign
    trials: Sequence[Trial]
    probes: Sequence[Probe] = ()


def line(record: Campaign | Trial | Probe) -> str:
    """One record as its line of JSON, without the line's end."""
    kind = type(record).__name__.lower()
    return json.dumps({"schema": SCHEMA, "kind": kind, **asdict(record)}, allow_nan=False)


class Writer:
    """Appends records to a file, one flushed line each; the file is made, anew, for the first of them."""

    def __init__(self, path: Path, is_resumed: bool = False) -> None:
        """`is_resumed`: go on at the file's end (a last line that was cut short is dropped).

        Raises UsageError where that would be forgotten and the file holds something: measurements take hours.
        """
        with suppress(OSError):  # what cannot be looked at cannot be opened either, and `write` says so
            if not is_resumed and path.stat().st_size:
                raise UsageError(
                    f"{printable(str(path))} holds something, and is kept: choose another --output "
                    "('nettool bench' goes on with records by --resume)"
                )
        self._path = path
        self._is_resumed = is_resumed
        self._file: TextIO | None = None

    def write(self, record: Campaign | Trial | Probe) -> None:
        """Raises TransferError where the file cannot be made, or the disk does not take it."""
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._open()
            self._file.write(line(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise TransferError(
                f"cannot write {printable(str(self._path))}: {error.strerror}; choose another --output"
            ) from None

    def _open(self) -> TextIO:
        if not self._is_resumed:
            return self._path.open("w", encoding="utf-8")
        file = self._path.open("r+", encoding="utf-8", newline="")
        content = file.read()
        file.seek(len(content[: content.rfind("\n") + 1].encode()))
        file.truncate()
        return file

    def close(self) -> None:
        """Idempotent."""
        if self._file is not None:
            self._file.close()


def read(path: Path) -> Results:
    """The records of a file; a last line without its end is one that was cut short, and left out.

    Raises UsageError that names the first line that is none of this schema's.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {printable(str(path))}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{printable(str(path))} is not text; give a file that nettool bench wrote") from None
    campaign: Campaign | None = None
    trials: list[Trial] = []
    probes: list[Probe] = []
    lines = text.split("\n")
    for number, entry_text in enumerate(lines, 1):
        if not entry_text and number == len(lines):
            break
        try:
            entry = _entry(entry_text)
            if entry["kind"] == "campaign":
                campaign = _build(Campaign, entry)
            elif entry["kind"] == "trial":
                trials.append(_build(Trial, entry))
            elif entry["kind"] == "probe":
                probes.append(_build(Probe, entry))
        except (ValueError, TypeError, KeyError):
            if number == len(lines) and campaign is not None:
                break
            raise UsageError(
                f"{printable(str(path))}, line {number}: not a record of schema {SCHEMA}; "
                "give a file that nettool bench wrote"
            ) from None
    if campaign is None:
        raise UsageError(f"{printable(str(path))} holds no campaign; give a file that nettool bench wrote")
    return Results(campaign, newest(trials), probes)


def newest(trials: Sequence[Trial]) -> list[Trial]:
    """Of trials that were run again the later one stands."""
    kept: dict[tuple[object, ...], Trial] = {}
    for trial in trials:
        kept[trial.path, trial.payload_bytes, trial.transport, trial.block] = trial
    return sorted(kept.values(), key=lambda trial: trial.position)


def _entry(text: str) -> dict[str, Any]:
    entry = json.loads(text)
    if entry["schema"] != SCHEMA:
        raise ValueError(entry["schema"])
    return dict(entry)


def _build(kind: type[_Record], entry: Mapping[str, Any]) -> _Record:
    """The fields that the record knows; those that a later version added are left out."""
    known = fields(kind)  # type: ignore[arg-type]
    missing = [f.name for f in known if f.name not in entry and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise KeyError(missing[0])
    return kind(**{f.name: entry[f.name] for f in known if f.name in entry})
