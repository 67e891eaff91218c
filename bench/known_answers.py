"""Three comparisons whose answers are known: does nettool say what is true of them?

    sudo .venv/bin/python bench/known_answers.py [cpu] [loss] [control] [--repeat 12] [--time 1s] [--patience 2min]
                                                 [--records DIR]

`cpu`:     tcp-bbr against itself on loopback, while a program at real-time priority takes 5% of every processor from
           one side. There must be no verdict in favour of either side that does not name this.
`loss`:    tcp-cubic against itself at 1% loss, where the link loses 2% for one side. The realised loss must be named.
`control`: CUBIC and BBR at 1% loss, over TCP and UDP. The effect must be that of the congestion control: it must be
           *faster*, and what the transport contributes must be smaller.

It prints what `nettool report` says of each, and whether that is right. It exits with 2 if anything is wrong, and with
1 if the machine was too busy for any claim. The records can be kept (`--records`), for `nettool report`.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

from toolkit.comparison.campaign import link_seed, open_testbed
from toolkit.comparison.paths import BenchPath, from_options, loopback
from toolkit.comparison.patience import Patience
from toolkit.comparison.plan import WARM_UP, Plan, TrialSpec, parse_transports, schedule
from toolkit.comparison.record_file import Writer
from toolkit.comparison.records import Results, Setting, Trial
from toolkit.comparison.summary import Summary, summarise
from toolkit.comparison.trial import TrialRunner
from toolkit.comparison.verdict import FASTER, NO_CLAIM, SLOWER, TOO_FEW
from toolkit.comparison.workspace import workspace
from toolkit.report.text import report_text
from toolkit.units import parse_duration_ns, to_seconds

SEED = 1
STOLEN_SHARE = 0.05
STOLEN_PERIOD_S = 0.1
RIGGED = "-rigged"
"""Ends the label of the side for which something is different."""


def rigged(setting: Setting) -> Setting:
    """The same transport, under another name."""
    return replace(setting, label=setting.label + RIGGED)


def link(loss: str) -> BenchPath:
    return from_options("link", {"rate": "100Mbit", "rtt": "40ms", "loss": loss}, SEED)


def measure(
    settings: list[Setting],
    path: BenchPath,
    repeats: int,
    time_s: float,
    patience_s: float,
    rig: "Rig",
    other_path: BenchPath | None = None,
) -> Results:
    """A campaign in which `rig` is on, and the path is `other_path`, for the trials of rigged settings."""
    plan = Plan(
        "known answers", settings, [path], [0], repeats, SEED, time_s=time_s, is_probed=False, patience_s=patience_s
    )
    trials: list[Trial] = []
    repeated: list[Trial] = []
    patience = Patience(patience_s)
    with ExitStack() as stack:
        files = stack.enter_context(workspace(plan.file_sizes, plan.seed, plan.folder))

        def runner(on: BenchPath) -> TrialRunner:
            testbed = stack.enter_context(open_testbed(plan, on))
            return TrialRunner(testbed, files, time_s=time_s, seed=plan.seed)

        fair = runner(path)
        unfair = runner(replace(other_path, label=path.label)) if other_path is not None else fair
        for spec in schedule(plan.all_settings, plan.sizes, repeats, plan.seed):
            is_rigged = spec.setting.label.endswith(RIGGED)
            seed = link_seed(plan.seed, 0, spec.block)
            run = partial(_run_rigged, unfair, rig) if is_rigged else fair.run
            attempt = partial(run, spec, 0, seed)
            for trial in [attempt()] if spec.block == WARM_UP else patience.attempts(attempt):
                numbered = replace(trial, position=len(trials) + len(repeated))
                (repeated if trial.is_repeated else trials).append(numbered)
        return Results(plan.campaign(files.storage), trials, repeated=repeated)


def _run_rigged(runner: TrialRunner, rig: "Rig", spec: TrialSpec, position: int, seed: int) -> Trial:
    """A trial during which `rig` is on; it is off while a trial waits for quiet processors."""
    with rig.on():
        return runner.run(spec, position, seed)


class UndecidedError(Exception):
    """The tool claims nothing about what has to be checked."""


class Rig:
    """Nothing that is different."""

    @contextmanager
    def on(self) -> Iterator[None]:
        yield


class Thief(Rig):
    """Takes STOLEN_SHARE of every processor while it is on, by processes that are no children of the campaign's."""

    def __init__(self, is_on: "Synchronized[int]") -> None:
        self._is_on = is_on

    @contextmanager
    def on(self) -> Iterator[None]:
        self._is_on.value = 1
        try:
            yield
        finally:
            self._is_on.value = 0


def steal(processor: int, is_on: "Synchronized[int]", is_over: Event) -> None:
    """The process that takes time from one processor, before anybody else if it may."""
    os.sched_setaffinity(0, {processor})
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    while not is_over.wait(STOLEN_PERIOD_S * (1 - STOLEN_SHARE)):
        end_s = time.monotonic() + STOLEN_PERIOD_S * STOLEN_SHARE
        while is_on.value and time.monotonic() < end_s:
            pass


def cpu(repeats: int, time_s: float, patience_s: float) -> Results:
    """tcp-bbr against itself, robbed; measured by a child, so that the thieves do not belong to the campaign."""
    context = get_context("fork")
    is_on, is_over = context.Value("i", 0), context.Event()
    thieves = [context.Process(target=steal, args=(number, is_on, is_over)) for number in os.sched_getaffinity(0)]
    for process in thieves:
        process.start()
    try:
        (bbr,) = parse_transports("tcp-bbr")
        reader, writer = context.Pipe(duplex=False)
        job = partial(measure, [bbr, rigged(bbr)], loopback(), repeats, time_s, patience_s, Thief(is_on))
        campaign = context.Process(target=lambda: writer.send(job()))
        campaign.start()
        writer.close()
        results: Results = reader.recv()
        campaign.join()
        return results
    finally:
        is_over.set()
        for process in thieves:
            process.join()


def loss(repeats: int, time_s: float, patience_s: float) -> Results:
    """tcp-cubic against itself, over a link that loses more for one side."""
    (cubic,) = parse_transports("tcp-cubic")
    return measure([cubic, rigged(cubic)], link("1%"), repeats, time_s, patience_s, Rig(), link("2%"))


def control(repeats: int, time_s: float, patience_s: float) -> Results:
    """Both congestion controls over both transports."""
    return measure(
        parse_transports("tcp-cubic,tcp-bbr,udp-cubic,udp-bbr"), link("1%"), repeats, time_s, patience_s, Rig()
    )


def check_cpu(summary: Summary) -> str:
    """What is wrong with the verdict on the robbed side; empty if nothing is."""
    row = next(row for row in summary.rows if row.transport.endswith(RIGGED))
    (verdict,) = summary.verdicts
    is_named = "other work" in verdict.sentence or "busy-machine" in verdict.sentence
    return (
        f"{row.verdict} without a word about the processor" if row.verdict in (FASTER, SLOWER) and not is_named else ""
    )


def check_loss(summary: Summary) -> str:
    """What is wrong with the verdict on the side that lost more. Raises UndecidedError if there is none.

    That there is no claim, because the two had different paths, is a right answer.
    """
    row = next(row for row in summary.rows if row.transport.endswith(RIGGED))
    (verdict,) = summary.verdicts
    is_named = "the link lost" in f"{verdict.sentence} {row.because}"
    if row.verdict == NO_CLAIM and not is_named:
        raise UndecidedError(row.because or TOO_FEW)
    return "" if is_named else "the loss that one side had is not named"


def check_control(summary: Summary) -> str:
    (found,) = summary.verdicts[0].factorials
    transport, congestion_control = found.verdicts
    if transport is None or congestion_control is None or NO_CLAIM in (transport.word, congestion_control.word):
        raise UndecidedError(found.doubt or TOO_FEW)
    if congestion_control.word != FASTER:
        return f"BBR instead of CUBIC is {congestion_control.word}"
    assert found.transport is not None
    assert found.control is not None
    is_smaller = abs(math.log(found.transport.value)) < abs(math.log(found.control.value))
    return "" if is_smaller else "the effect of the transport is the larger one"


CASES = {"cpu": (cpu, check_cpu), "loss": (loss, check_loss), "control": (control, check_control)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cases", metavar="CASE", nargs="*", help=", ".join(CASES))
    parser.add_argument("--repeat", type=int, default=12)
    parser.add_argument("--time", default="1s")
    parser.add_argument("--patience", default="2min", help="of each case")
    parser.add_argument("--records", type=Path)
    options = parser.parse_args()
    time_s = to_seconds(parse_duration_ns(options.time))
    patience_s = to_seconds(parse_duration_ns(options.patience))
    code = 0
    for name in options.cases or CASES:
        run, check = CASES[name]
        results = run(options.repeat, time_s, patience_s)
        if options.records is not None:
            save(results, options.records / f"{name}.jsonl")
        summary = summarise(results)
        print(f"=== {name}\n\n{report_text([summary])}\n")
        try:
            problem = check(summary)
            print(f"{name}: {'WRONG: ' + problem if problem else 'right'}\n", flush=True)
            code = max(code, 2 if problem else 0)
        except UndecidedError as error:
            print(f"{name}: undecided: no claim, because {error}; run it again on a quieter machine\n", flush=True)
            code = max(code, 1)
    sys.exit(code)


def save(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = Writer(path)
    writer.write(results.campaign)
    for trial in results.attempts:
        writer.write(trial)
    writer.close()


if __name__ == "__main__":
    main()
