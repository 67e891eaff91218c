"""`nettool bench`: run a comparison, write its records, print its tables.

Each command turns its options into a scenario, which a file may complete; `toolkit.comparison` plans and runs it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.api.comparing import ComparisonRequest, ComparisonResult
from toolkit.api.target import parse_target
from toolkit.cli.access import CredentialArguments, with_credential
from toolkit.cli.command import command, flag, option
from toolkit.cli.help import is_typed
from toolkit.cli.link_options import AS_LISTS, RATE_AS_LIST, EmulatedPathArguments, LanArguments
from toolkit.cli.option_names import with_options
from toolkit.cli.options import CampaignArguments, Competitor, LocalCampaignArguments, ResumeCampaign
from toolkit.cli.output import print_json, print_result, print_status, result_width, stderr_is_terminal
from toolkit.cli.trial_charts import trial_charts
from toolkit.cli.wait_status import WaitStatus
from toolkit.comparison.forecast import Forecast, start_seconds
from toolkit.comparison.json_codec import encode
from toolkit.comparison.paths import LAN_KIND, LINK, LOOPBACK, REMOTE
from toolkit.comparison.plan import Plan, takes_congestion_control
from toolkit.comparison.record_file import Record
from toolkit.comparison.records import Campaign, Probe, Results, Trial
from toolkit.comparison.sampling import elapsed_s, patience_spent_s
from toolkit.comparison.scenario import Scenario, read_scenario
from toolkit.comparison.summary import plain
from toolkit.comparison.verdict import least_blocks
from toolkit.errors import ExitCode, UsageError
from toolkit.report.labels import MAX_COLUMNS
from toolkit.security.credentials import Credential
from toolkit.units import format_fraction, format_rate, format_seconds, format_size

_PARAMETERS = {
    "tcp_congestion_control": "cc",
    "sizes": "size",
    "repeats": "repeat",
    "control": "no_control",
    "changes": "at",
}
"""Settings of a scenario whose parameters have other names."""
_KEPT = ("kind", "folder", "link", "further_links", "address", "wait", "credential", "is_from_file", "is_reverse")
"""What a campaign takes from the command, wherever the command has it from."""


@command
def loopback(local: LocalCampaignArguments, campaign: CampaignArguments) -> int:
    """Compare TCP and UDP over the loopback interface of this machine.

    Sender and receiver are separate processes. The transports take turns in random order. A trial lasts from the first
    connect until the receiver has verified the digest.

    \b
    Examples:
      nettool bench loopback
      nettool bench loopback --size 1GiB --repeat 10
      nettool bench loopback --transports tcp-cubic,tcp-bbr,udp-bbr,iperf3-tcp
    """
    return _bench(_scenario(LOOPBACK, campaign), campaign, local)


@command
def lan(
    *,
    path: Annotated[LanArguments, RATE_AS_LIST],
    competitor: Competitor = None,
    local: LocalCampaignArguments,
    campaign: CampaignArguments,
) -> int:
    """Compare TCP and UDP on a LAN of two network namespaces.

    A veth pair connects the namespaces; with --rate, nettool's own emulator limits it, or queues of the kernel where
    there is no TUN device. The command needs root, or a system that lets users create user namespaces.

    \b
    Examples:
      nettool bench lan
      nettool bench lan --rate 1Gbit --size 64KiB,128MiB
    """
    link = _lists(rate=path.rate)
    return _bench(_scenario(LAN_KIND, campaign, competitor=competitor, link=link), campaign, local)


@command
def link(
    *,
    path: Annotated[EmulatedPathArguments, AS_LISTS],
    competitor: Competitor = None,
    local: LocalCampaignArguments,
    campaign: CampaignArguments,
) -> int:
    """Compare TCP and UDP over emulated links.

    Every combination of the lists is a path. nettool measures each link first and accounts for every packet of each
    trial; a trial that the machine disturbed is marked. The command needs root, or a system that lets users create
    user namespaces.

    \b
    Examples:
      nettool bench link --loss 0%,0.1%,1%,5%
      nettool bench link --rate 50Mbit --rtt 10ms,100ms --loss 1%
      nettool bench link --link starlink,lte --size 64KiB,16MiB --repeat 10
      nettool bench link --loss 1% --competitor tcp-cubic
      nettool bench link --scenario bench/lossy.toml --dry-run
    """
    values = _lists(link=path.link, rate=path.rate, rtt=path.rtt, loss=path.loss)
    single = {**path.impairments(), "both_ways": path.both_ways or None}
    values |= {name: [value] for name, value in single.items() if value is not None}
    if path.at:
        values["changes"] = list(path.at)
    return _bench(_scenario(LINK, campaign, competitor=competitor, link=values), campaign, local)


@command
def remote(
    *,
    host: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="Machine that runs 'nettool serve'.")],
    wait: Annotated[
        str,
        option(
            "--wait",
            metavar="TIME",
            text="How long to wait for HOST to answer, for example 30s.",
            panel=CampaignArguments.PANEL,
        ),
    ] = "30s",
    reverse: Annotated[
        bool,
        flag(
            "--reverse",
            text="Measure the path from HOST to this machine: HOST sends, and this machine, which connects, receives.",
            panel=CampaignArguments.PANEL,
        ),
    ] = False,
    resume: ResumeCampaign = None,
    access: CredentialArguments,
    campaign: CampaignArguments,
) -> int:
    """Compare TCP and UDP over a real network.

    The other machine runs 'nettool serve', which writes no files. It may start later or restart in the meantime: this
    command waits for it. Off loopback, this command asks for the code that it shows; with a code it must not restart.

    First, two short transfers each way measure the path. Without --size and --time, each trial lasts as long as suits
    its rate and round trip, within --budget.

    \b
    Examples:
      nettool bench remote 192.0.2.7
      nettool bench remote 192.0.2.7 --reverse
      nettool bench remote lab.example:9001 --size 1MiB,1GiB --repeat 10
    """
    address = parse_target(host)
    scenario = _scenario(REMOTE, campaign, address=address, wait=wait, is_reverse=reverse or None)

    def compare(credential: Credential) -> int:
        return _bench(replace(scenario, credential=credential), campaign, LocalCampaignArguments(resume=resume))

    if campaign.dry_run:
        return compare(access.credential())
    scenario.plan()  # raises UsageError, before the user is asked for a code
    return with_credential(access.credential_for(address), compare)


def _scenario(kind: str, campaign: CampaignArguments, **more: Any) -> Scenario:
    """Raises UsageError."""
    names = campaign.transports
    takes_cc = is_typed("cc") or names is None or takes_congestion_control(names)
    return Scenario(
        kind=kind,
        transports=names,
        tcp_congestion_control=campaign.cc if takes_cc else None,
        sizes=tuple(_split(campaign.size)) if campaign.size else (),
        repeats=campaign.repeat,
        seed=campaign.seed,
        folder=campaign.folder,
        control=False if campaign.no_control else None,
        limit=campaign.limit,
        margin=campaign.margin,
        budget=campaign.budget,
        time=campaign.time,
        patience=campaign.patience,
        **more,
    )


def _typed(scenario: Scenario) -> Scenario:
    """The settings that are on the command line.

    The user's own defaults are for new campaigns, and not for those whose settings a file describes.
    """
    link = {name: values for name, values in scenario.link.items() if is_typed(_PARAMETERS.get(name, name))}
    settings: dict[str, Any] = {
        each.name: each.default
        for each in fields(scenario)
        if each.name not in _KEPT and not is_typed(_PARAMETERS.get(each.name, each.name))
    }
    return replace(scenario, link=link, **settings)


def _lists(**options: str | None) -> dict[str, list[Any]]:
    """Return the options that were given, each split at its commas."""
    return {name: _split(text) for name, text in options.items() if text}


def _split(text: str) -> list[str]:
    return [one.strip() for one in text.split(",")]


def _bench(scenario: Scenario, campaign: CampaignArguments, local: LocalCampaignArguments) -> int:
    if local.resume is not None:
        if local.scenario is not None and is_typed("scenario"):
            raise UsageError("--resume goes on with the settings of its records: leave --scenario out")
        if campaign.output not in (None, local.resume) and is_typed("output"):
            raise UsageError("--resume FILE adds its records to FILE: leave --output out")
        scenario = _typed(scenario)
    elif local.scenario is not None:
        scenario = _typed(scenario).merged_with(read_scenario(local.scenario))
    default_output = Path("results") / time.strftime(f"{scenario.kind}-%Y%m%d-%H%M%S.jsonl")
    request = ComparisonRequest.of(scenario, resume=local.resume, output=campaign.output or default_output)
    if campaign.dry_run:
        _print_plan(request.plan, request.done, campaign.json)
        return ExitCode.OK
    with trial_charts(campaign.watch and not campaign.quiet) as draw:
        result = _run(request, campaign.quiet, draw)
    if campaign.json:
        _print_json(result)
    else:
        print_result(with_options(result.text(result_width(MAX_COLUMNS))))
        print_result(f"Records: {result.records}")
    failed = result.failed_trials
    if failed:
        count = len(result.results.trials)
        print_status(f"nettool: {failed} of {count} trials failed; for the reasons see {result.records}")
    return ExitCode.FAILED if failed else ExitCode.OK


def _run(request: ComparisonRequest, quiet: bool, draw: Callable[[Trial], None]) -> ComparisonResult:
    """Run the rest of the campaign, say how far it is, and draw each trial."""
    plan, path = request.plan, request.output
    trials = list(request.done.trials) if request.done is not None else []
    repeated = list(request.done.repeated) if request.done is not None else []

    def show(record: Record) -> None:
        nonlocal plan
        if isinstance(record, Campaign) and plan.is_time_open:  # its path has been measured, before its clock started
            plan = replace(plan, time_s=record.time_s, is_time_open=False, is_probed=False)
        elif isinstance(record, Trial) and record.is_repeated:
            repeated.append(record)
            if not quiet and stderr_is_terminal():
                print_status(f"{record.path}, {record.transport}: repeated, because the hypervisor took processors")
        elif isinstance(record, Trial):
            trials.append(record)
            if not quiet and (stderr_is_terminal() or record.error):
                print_status(
                    f"{_progress(plan, trials, repeated)}  {record.path}, {record.transport}: {_outcome(record)}"
                )
            draw(record)
        elif isinstance(record, Probe) and not quiet and (stderr_is_terminal() or record.is_met is False):
            print_status(f"{record.path}: {record.text}")

    try:
        return replace(request, on_record=show, on_wait=None if quiet else WaitStatus()).run()
    except KeyboardInterrupt:
        if not quiet and stderr_is_terminal():
            print_status(f"interrupted; the finished trials are in {path}, and --resume {path} continues")
        raise


def _progress(plan: Plan, trials: Sequence[Trial], repeated: Sequence[Trial]) -> str:
    """How far the campaign is: while their number is known, in trials, with the time left; then in time."""
    count = len(trials)
    if plan.budget_s is not None and count > plan.trial_count:
        return f"{format_seconds(round(elapsed_s((*trials, *repeated))))} of at most {format_seconds(plan.budget_s)}"
    pilot = "" if plan.budget_s is None else "pilot "
    left = format_seconds(round(Forecast(plan).left_s(trials, repeated)))
    return f"{pilot}{min(count, plan.trial_count)}/{plan.trial_count}, {left} left"


def _print_plan(plan: Plan, done: Results | None, json: bool) -> None:
    trials, repeated = (done.trials, done.repeated) if done is not None else ((), ())
    attempts = (*trials, *repeated)
    seconds = Forecast(plan, start_seconds()).left_s(trials, repeated)
    taken_s = elapsed_s(attempts)
    patience_s = max(0.0, plan.patience_s - patience_spent_s(attempts))
    left = max(0, plan.trial_count - len(trials))
    if json:
        print_json(
            "plan",
            {
                "transports": [setting.label for setting in plan.all_settings],
                "paths": [path.label for path in plan.paths],
                "sizes": list(plan.sizes),
                "time_s": plan.time_s,
                "repeats": plan.repeats,
                "budget_s": plan.budget_s,
                "patience_s": patience_s,
                "trials": left,
                "seconds": seconds if plan.budget_s is None else max(seconds, plan.budget_s - taken_s),
            },
        )
        return
    print_result(f"transports: {', '.join(setting.label for setting in plan.all_settings)}")
    for name, reason in plan.left_out.items():
        print_result(f"left out:   {name}: {reason}")
    print_result(f"paths:      {'; '.join(path.label for path in plan.paths)}")
    if plan.time_s is None:
        print_result(f"sizes:      {', '.join(format_size(size) for size in plan.sizes)}")
    else:
        more = " or more, as suits the path when it has been measured" if plan.is_time_open else ""
        print_result(f"time:       {format_seconds(plan.time_s)} a trial{more}")
    if patience_s:
        repeats = "" if plan.time_s is None else " and to repeat disturbed trials"
        print_result(f"patience:   {format_seconds(patience_s)} in all, to wait for quiet processors{repeats}")
    least = least_blocks(plan.comparison_count)
    blocks = f"{left} trials in {plan.repeats} blocks, including the warm-up: about {format_seconds(round(seconds))}"
    if plan.budget_s is not None:
        budget = format_seconds(plan.budget_s - taken_s)
        print_result(f"pilot:      {blocks}")
        if taken_s >= plan.budget_s:
            print_result("budget:     used up; only begun blocks are finished")
            return
        print_result(
            f"budget:     further blocks until every interval is narrower than {format_fraction(plan.margin)}, or"
        )
        print_result(f"            {budget} have passed in all; the pilot is run whole in any case")
        return
    if plan.repeats < least:
        print_result(f"comparisons: {plan.comparison_count}, which takes {least} blocks or more to find a difference")
    print_result(blocks)


def _print_json(result: ComparisonResult) -> None:
    results, summary = result.results, result.summary
    print_json(
        "comparison",
        {
            "campaign": encode(results.campaign),
            "probes": [encode(probe) for probe in results.probes],
            "trials": [encode(trial) for trial in results.trials],
            "repeated": [encode(trial) for trial in results.repeated],
            "summary": [plain(row) for row in summary.rows],
            "headline": summary.headline,
            "notes": summary.notes,
            "factorials": [
                {"path": verdict.path, "payload_bytes": verdict.payload_bytes, **plain(each)}
                for verdict in summary.verdicts
                for each in verdict.factorials
            ],
        },
    )


def _outcome(trial: Trial) -> str:
    if trial.error or trial.goodput_bps is None:
        return trial.error or "not verified"
    warm_up = " (warm-up)" if trial.block < 0 else ""
    marks = f" [{', '.join(trial.marks)}]" if trial.marks else ""
    waited = f", waited {format_seconds(round(trial.waited_s))}" if trial.waited_s >= 1 else ""
    return format_rate(trial.goodput_bps) + warm_up + marks + waited
