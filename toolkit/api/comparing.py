"""Comparing transports: plan a campaign, run it, and judge it."""

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from toolkit.api.credentials import check_before_connecting, credential_of
from toolkit.api.target import parse_target
from toolkit.comparison.campaign import run
from toolkit.comparison.findings import PathVerdict
from toolkit.comparison.paths import FLEET, KINDS, LOOPBACK, REMOTE
from toolkit.comparison.plan import Plan
from toolkit.comparison.record_file import Record, Writer, read
from toolkit.comparison.records import LinkOption, Results
from toolkit.comparison.rows import Row
from toolkit.comparison.scenario import Scenario, link_options, plan_of_record, read_scenario
from toolkit.comparison.summary import Summary, summarise
from toolkit.errors import TransferError, UsageError, printable
from toolkit.report.labels import MAX_COLUMNS
from toolkit.report.text import report_text

REMOTE_WAIT = "30s"

LinkValue = LinkOption | Sequence[LinkOption]


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """What a campaign shows; `str()` of it is the text that `nettool bench` prints.

    summary: all that tables are made from
    records: the file that it can be made from again; None if no file was written
    """

    summary: Summary
    records: Path | None

    @property
    def rows(self) -> Sequence[Row]:
        """The figures and the verdict of each transport on each path at each size, in the campaign's order."""
        return self.summary.rows

    @property
    def verdicts(self) -> Sequence[PathVerdict]:
        """What each path at each size shows, in the campaign's order; `text` is the sentence."""
        return self.summary.verdicts

    @property
    def results(self) -> Results:
        """The records: the campaign, its probes and its trials."""
        return self.summary.results

    @property
    def failed_trials(self) -> int:
        """How many transfers failed."""
        return sum(not trial.verified for trial in self.results.trials)

    def text(self, width: int = MAX_COLUMNS) -> str:
        """The tables and the verdicts as text of this width."""
        return report_text([self.summary], width=width)

    def __str__(self) -> str:
        return self.text()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRequest:
    """A campaign that is planned.

    done:      the records of its beginning, if it was interrupted
    output:    the file for the records; None for none
    on_record: gets each record as soon as it is known: the campaign, probes, trials
    on_wait:   is called about every half second while a trial waits for quiet processors, with the seconds of patience
               that are left
    cancel:    ends the campaign after the trial that runs, or during a wait for quiet processors, when it is set
    """

    plan: Plan
    done: Results | None = None
    output: Path | None = None
    on_record: Callable[[Record], object] | None = None
    on_wait: Callable[[float], object] | None = None
    cancel: threading.Event | None = None

    @classmethod
    def of(cls, scenario: Scenario, *, resume: Path | None = None, output: Path | None = None) -> Self:
        """Plan a scenario, or what is left of the campaign whose records are in `resume`. Raises UsageError."""
        if resume is None:
            return cls(plan=scenario.plan(), output=output)
        done = read(resume)
        if (name := done.campaign.name) not in (scenario.kind, FLEET):  # plan_of_record says how to continue a fleet
            shown = printable(name, 40)
            raise UsageError(f"these are records of another command: resume them with 'nettool bench {shown}'")
        scenario.check_resumes()
        plan = plan_of_record(done.campaign, scenario.folder, scenario if scenario.kind == REMOTE else None)
        return cls(plan=plan, done=done, output=resume)

    def run(self) -> ComparisonResult:
        """Measure what is not done yet, and judge all of it. Raises NettoolError as campaign.run does."""
        writer = None if self.output is None else Writer(self.output, is_resumed=self.done is not None)

        def keep(record: Record) -> None:
            if writer is not None:
                writer.write(record)
            if self.on_record is not None:
                self.on_record(record)
            self._check_cancelled()

        def wait(left_s: float) -> None:
            if self.on_wait is not None:
                self.on_wait(left_s)
            self._check_cancelled()

        try:
            results = run(self.plan, keep, self.done, wait)
        finally:
            if writer is not None:
                writer.close()
        return ComparisonResult(summarise(results), self.output)

    def _check_cancelled(self) -> None:
        if self.cancel is not None and self.cancel.is_set():
            raise TransferError("the comparison was cancelled")


def compare(
    what: str | Path | Scenario = LOOPBACK,
    *,
    transports: str | Sequence[str] | None = None,
    sizes: int | str | Sequence[int | str] = (),
    repeats: int | None = None,
    budget: str | None = None,
    link: Mapping[str, LinkValue] | None = None,
    host: str | None = None,
    code: str | None = None,
    key: str | os.PathLike[str] | None = None,
    is_open: bool = False,
    is_reverse: bool = False,
    output: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    on_record: Callable[[Record], object] | None = None,
    cancel: threading.Event | None = None,
) -> ComparisonResult:
    """Measure which transport is faster on a path, and return the figures, the verdicts, and what they rest on.

    >>> result = toolkit.compare("loopback", transports=["tcp", "udp"], sizes=["64KiB"], repeats=1)
    >>> [row.verified for row in result.rows]  # the third is the control: TCP a second time
    [1, 1, 1]
    >>> result.rows[1].verdict, result.rows[1].because
    ('no claim', 'too few pairs of trials for an interval')

    what:       "loopback"; "lan" or "link", between two network namespaces; "remote", to a machine that runs 'nettool
                serve'; the file of a scenario, as a Path; or a Scenario, which has every setting
    transports: such as "tcp-bbr" or "udp-cubic"
    sizes:      of the files, in bytes or as text, one or several
    repeats:    number of blocks, each with every transport; or
    budget:     the time for a pilot and, where intervals are wide, for more, for example "6min"
    link:       options of `nettool link`, each with a value or several; every combination is a path
    host:       "HOST" or "HOST:PORT" of a remote campaign, with its code or key file as in `send`
    is_reverse: that host sends, and this machine receives
    output:     a new file for the records
    resume:     the file with the records of an interrupted campaign, which goes on and is added to. What is compared is
                read from there; only a remote campaign needs its host and credential again
    on_record:  gets each record as soon as it is known
    cancel:     ends the campaign after the trial that runs, or during a wait for quiet processors, when it is set

    Raises UsageError for arguments that make no sense, and NettoolError if a path cannot be created. A transfer that
    fails is a result.
    """
    options = {"transports": transports, "sizes": sizes, "repeats": repeats, "budget": budget, "link": link}
    given = {name: value for name, value in options.items() if value not in (None, (), [], {})}
    if resume is None:
        scenario = _scenario(what, given)
    else:
        scenario = _resumed(Path(resume), what, is_alone=not given and output is None)
    scenario = _with_host(scenario, host, code, key, is_open=is_open, is_reverse=is_reverse)
    request = ComparisonRequest.of(
        scenario, resume=None if resume is None else Path(resume), output=None if output is None else Path(output)
    )
    return replace(request, on_record=on_record, cancel=cancel).run()


def _with_host(
    scenario: Scenario,
    host: str | None,
    code: str | None,
    key: str | os.PathLike[str] | None,
    *,
    is_open: bool,
    is_reverse: bool,
) -> Scenario:
    """The scenario with the other machine of a remote comparison. Raises UsageError."""
    if (host is None) == (scenario.kind == REMOTE and scenario.address is None):
        raise UsageError("a remote comparison, and no other, needs a host: compare('remote', host='192.0.2.7')")
    if host is None and (code is not None or key is not None or is_open or is_reverse):
        raise UsageError("code, key, is_open and is_reverse are for the host of a remote comparison: leave them out")
    if host is not None:
        address, credential = parse_target(host), credential_of(code, key, is_open=is_open)
        check_before_connecting(credential, address, is_open=is_open)
        scenario = replace(
            scenario,
            address=address,
            credential=credential,
            wait=scenario.wait or REMOTE_WAIT,
            is_reverse=is_reverse or scenario.is_reverse,
        )
    return scenario


def _scenario(what: str | Path | Scenario, given: Mapping[str, Any]) -> Scenario:
    """The scenario `what`, with what was given in place of its own settings. Raises UsageError."""
    base = Scenario(what) if isinstance(what, str) else what if isinstance(what, Scenario) else read_scenario(what)
    if base.kind not in KINDS:
        raise UsageError(f"unknown comparison {printable(base.kind)}: choose from {', '.join(KINDS)}")
    settings = dict(given)
    if "transports" in given and not isinstance(given["transports"], str):
        settings["transports"] = ",".join(given["transports"])
    if "sizes" in given:
        settings["sizes"] = tuple(map(str, _as_list(given["sizes"])))
    if "link" in given:
        try:
            settings["link"] = link_options({name: _as_list(value) for name, value in given["link"].items()})
        except (TypeError, ValueError):
            raise UsageError(
                "a value in link has the wrong type: write shares, times and rates as text, like '1%'"
            ) from None
    return Scenario(base.kind, **settings).merged_with(base)


def _resumed(records: Path, what: str | Path | Scenario, *, is_alone: bool) -> Scenario:
    """The scenario of interrupted records, of which only the kind matters. Raises UsageError if another was given."""
    kind = read(records).campaign.name
    if not is_alone or what not in (LOOPBACK, kind):
        raise UsageError("resume says what is compared, and where the records go: leave everything else out but a host")
    return Scenario(kind)


def _as_list(value: LinkValue) -> list[LinkOption]:
    return [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
