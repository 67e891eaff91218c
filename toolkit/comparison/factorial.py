"""What the transport contributes to a difference in goodput, and what the congestion control does: a 2 x 2 design.

BBR over UDP against CUBIC over TCP changes two things at once. With all four combinations the logarithm of goodput
splits into two main effects and their interaction (Box, Hunter and Hunter, Statistics for Experimenters, chapter 5):

    transport    the mean over both controls of    log(UDP / TCP)        at the same control
    control      the mean over both transports of  log(other / baseline) over the same transport
    interaction  log(other / baseline) over UDP, minus the same over TCP

Each is computed within a block, where whatever disturbs one trial often disturbs its neighbours too, and written as a
ratio: the geometric mean of two ratios, or their quotient. Value and interval are those of the median over blocks, as
for the ratio of two transports (`toolkit.comparison.stats`). Where one combination is missing, an effect rests on the
combinations that there are, and the interaction is unknown. A failed transfer has a goodput of 0. A block in which that
leaves an effect undecided (failures on both sides) counts as 0 for the lower end of its interval, and as infinite for
the upper one.

The effects get verdicts by the same rules as transports (`toolkit.comparison.verdict`): the A/A control is their gate,
and Holm's procedure allows for the number of effects in the campaign. The gate is strict: the mean of two ratios
scatters less than the one ratio of the control. The interactions are judged as a family of their own. An interaction is
the quotient of two ratios, each of which may be off by what its gates allow for one, so they are squared for it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from toolkit.comparison.pairs import PairedTrials, goodput_bps, marked_text
from toolkit.comparison.records import CONTROL_SUFFIX, Campaign, Setting
from toolkit.comparison.stats import ERROR, Estimate, Interval, median_interval
from toolkit.comparison.verdict import FASTER, NO_CLAIM, SLOWER, Evidence, Verdict, judge
from toolkit.units import format_ratio

TRANSPORTS = ("tcp", "udp")
_NAMES = {"tcp": "TCP", "udp": "UDP", "bbr": "BBR", "cubic": "CUBIC", "reno": "Reno", "newreno": "NewReno"}
_UNKNOWN = "unknown, because in no block did all"

Arm = tuple[str, str]
"""Transport and congestion control, for example ("udp", "bbr")."""
Goodputs = Mapping[Arm, Mapping[int, float]]
"""For each arm, the goodput in each block; 0 if the transfer failed."""


@dataclass(frozen=True, slots=True)
class Factorial:
    """The two effects on one path at one size, as ratios of goodput; None where no block shows one.

    controls:     the baseline's congestion control, and the other one
    paired:       those of them that ran over both transports: the effect of the transport is known for these only
    over:         the transports that ran both controls: the effect of the control is known for these only
    blocks:       that ran every combination there is
    transport:    UDP instead of TCP, at the same congestion control
    control:      the other congestion control instead of the baseline's, over the same transport
    by_transport: the effect of the control over each transport alone
    interaction:  effect of the control over UDP, relative to that over TCP
    doubt:        why the trials are not fit to be judged; empty if they are
    verdicts:     on transport and control; None before they are judged (`judged_effects`)
    interacts:    whether the interaction is found to differ from 1, by the same rules
    """

    controls: tuple[str, str]
    paired: tuple[str, ...]
    over: tuple[str, ...]
    blocks: int
    transport: Estimate | None
    control: Estimate | None
    by_transport: Mapping[str, Estimate]
    interaction: Estimate | None
    doubt: str = ""
    verdicts: tuple[Verdict | None, Verdict | None] = (None, None)
    interacts: bool = False


@dataclass(frozen=True, slots=True)
class Effects:
    """The effects of one design, and what the verdicts on them are decided by."""

    found: Factorial
    transport: Evidence
    control: Evidence
    interaction: Evidence


def designs(campaign: Campaign) -> list[Mapping[Arm, str]]:
    """The 2 x 2 designs in a campaign, each as arm -> label: the baseline's congestion control with each other one.

    A design has four arms; if there is none, those of three arms count. Only nettool's own transports without a rate of
    their own, which encrypt as the baseline does, can be arms.
    """
    base = campaign.transports[campaign.baseline]
    arms = {
        (each.transport, each.congestion_control): label
        for label, each in campaign.transports.items()
        if not label.endswith(CONTROL_SUFFIX) and _is_comparable(each, base) and each.congestion_control is not None
    }
    controls = dict.fromkeys(control for _, control in arms)
    found = []
    for other in controls:
        if other == base.congestion_control or base.congestion_control is None:
            continue
        design = {
            (transport, control): arms[transport, control]
            for transport in TRANSPORTS
            for control in (base.congestion_control, other)
            if (transport, control) in arms
        }
        found.append(design)
    size = max((len(design) for design in found), default=0)
    return [design for design in found if len(design) == size] if size > len(TRANSPORTS) else []


def mixes_factors(campaign: Campaign) -> list[str]:
    """Labels of transports that differ from the baseline in both factors, while no design tells the two apart."""
    base = campaign.transports[campaign.baseline]
    separated = {label for design in designs(campaign) for label in design.values()}
    return [
        label
        for label, each in campaign.transports.items()
        if _is_comparable(each, base)
        and label not in separated
        and each.transport != base.transport
        and each.congestion_control != base.congestion_control
    ]


def factorials(cell: PairedTrials) -> list[Effects]:
    """The effects on one path at one size, for each design of the campaign."""
    result = []
    for design in designs(cell.campaign):
        goodputs = {arm: {t.block: goodput_bps(t) for t in cell.trials(label)} for arm, label in design.items()}
        base = cell.campaign.transports[cell.campaign.baseline].congestion_control or ""
        other = next(control for _, control in design if control != base)
        effects = decompose(goodputs, (base, other), cell.campaign.first_look)
        labels = list(design.values())
        doubt = _doubt(cell, labels)
        load_effect = _load_effect(cell, labels)
        gated = partial(replace, control=cell.control, load_effect=load_effect, doubt=doubt)
        result.append(
            Effects(
                replace(effects.found, doubt=doubt),
                gated(effects.transport),
                gated(effects.control),
                _squared(gated(effects.interaction)),
            )
        )
    return result


def judged_effects(effects: Sequence[Effects], margin: float) -> list[Factorial]:
    """All effects of a campaign with their verdicts; `margin` is the largest negligible difference."""
    main = iter(judge([evidence for each in effects for evidence in (each.transport, each.control)], margin))
    interactions = judge([each.interaction for each in effects], margin)
    return [
        replace(each.found, verdicts=(next(main), next(main)), interacts=interaction.word in (FASTER, SLOWER))
        for each, interaction in zip(effects, interactions, strict=True)
    ]


def decompose(goodputs: Goodputs, controls: tuple[str, str], first_look: int | None = None) -> Effects:
    """The effects in paired blocks of three or four arms, without gates.

    first_look: see `toolkit.comparison.stats.interval_rank`
    """
    base, other = controls
    shared = set.intersection(*(set(blocks) for blocks in goodputs.values()))
    blocks = [{arm: of_arm[block] for arm, of_arm in goodputs.items()} for block in sorted(shared)]

    def evidence(above: Sequence[Arm], below: Sequence[Arm], root: int) -> Evidence:
        ratios = [_ratio([block[a] for a in above], [block[b] for b in below], root) for block in blocks if above]
        return Evidence(_estimate(ratios, first_look), partial(_interval, ratios, first_look), len(ratios))

    both = [c for c in controls if all((t, c) in goodputs for t in TRANSPORTS)]
    within = [t for t in TRANSPORTS if all((t, c) in goodputs for c in controls)]
    tcp, udp = TRANSPORTS
    is_whole = len(both) == len(controls)
    transport = evidence([(udp, c) for c in both], [(tcp, c) for c in both], len(both))
    control = evidence([(t, other) for t in within], [(t, base) for t in within], len(within))
    crossed = [(udp, other), (tcp, base)], [(udp, base), (tcp, other)]
    interaction = evidence(*(crossed if is_whole else ([], [])), 1)
    by_transport = {t: evidence([(t, other)], [(t, base)], 1).ratio for t in within}
    found = Factorial(
        controls=controls,
        paired=tuple(both),
        over=tuple(within),
        blocks=len(blocks),
        transport=transport.ratio,
        control=control.ratio,
        by_transport={t: ratio for t, ratio in by_transport.items() if ratio is not None},
        interaction=interaction.ratio,
    )
    return Effects(found, transport, control, interaction)


def effect_names(found: Factorial) -> tuple[str, str]:
    """What the effects of transport and congestion control compare, in words; with three combinations, where."""
    base, other = (_name(control) for control in found.controls)
    control = _only(found.paired, len(found.controls))
    transport = _only(found.over, len(TRANSPORTS))
    return (
        f"same congestion control{control}, UDP instead of TCP",
        f"same transport{transport}, {other} instead of {base}",
    )


def factorial_text(found: Factorial) -> str:
    """The effects as one sentence without its full stop."""
    other = _name(found.controls[1])
    if found.doubt:
        return f"no claim on what transport and congestion control contribute ({found.doubt})"
    if found.transport is None and found.control is None:
        return f"what transport and congestion control contribute is {_UNKNOWN} transfers arrive"
    transport, control = effect_names(found)
    of_transport, of_control = map(_judgement, found.verdicts)
    parts = [
        f"{transport}: {_effect(found.transport)}{of_transport}",
        f"{control}: {_effect(found.control)}{of_control}",
    ]
    if found.interacts and found.interaction is not None:
        gains = " and ".join(f"{_effect(gain)} over {_name(t)}" for t, gain in found.by_transport.items())
        parts.append(f"the two interact by {_effect(found.interaction)}, because {other} gains {gains}")
    return "; ".join(parts)


def _load_effect(cell: PairedTrials, labels: Sequence[str]) -> float:
    """The largest factor between any two of these transports that other work explains, at least 1.

    One may have been disturbed more than the baseline, and another one less.
    """
    effects = [(cell.unequal_load(label) or 0.0, cell.load_effect(label)) for label in labels]
    more = max((effect for load, effect in effects if load > 0), default=1.0)
    return more * max((effect for load, effect in effects if load < 0), default=1.0)


def _doubt(cell: PairedTrials, labels: Sequence[str]) -> str:
    """Why the trials of these transports are not fit to be judged; empty if they are. The remarks count the marks."""
    marked = [label for label in labels if marked_text(cell.trials(label))]
    doubts = [f"too many marked trials: {', '.join(marked)}"] if marked else []
    losses = {label: cell.unequal_loss(label) for label in labels if label not in marked}
    return "; ".join([*doubts, *(f"{label}: {text}" for label, text in losses.items() if text)])


def _squared(evidence: Evidence) -> Evidence:
    """The evidence on a quotient of two ratios, each of which may be off by what its gates allow for one."""
    control = evidence.control

    def squared(error: float, blocks: int | None) -> Interval | None:
        interval = control(error, blocks) if control is not None else None
        return Interval(interval.low**2, interval.high**2) if interval is not None else None

    return replace(evidence, control=squared if control is not None else None, load_effect=evidence.load_effect**2)


def _only(names: Sequence[str], count: int) -> str:
    """The one combination that an effect rests on, where the other did not run."""
    return f" (only {_name(names[0])})" if len(names) == 1 < count else ""


def _is_comparable(setting: Setting, base: Setting) -> bool:
    is_own = setting.program is None and setting.transport in TRANSPORTS
    return is_own and setting.rate_bps is None and setting.is_encrypted == base.is_encrypted


def _ratio(above: Sequence[float], below: Sequence[float], root: int) -> float | None:
    """The root of a ratio of products; None where both are 0."""
    if not all(below):
        return math.inf if all(above) else None
    return math.exp((math.fsum(map(math.log, above)) - math.fsum(map(math.log, below))) / root) if all(above) else 0.0


def _estimate(samples: Sequence[float | None], first_look: int | None) -> Estimate | None:
    """The median of what is decided, with an interval that holds whatever the undecided samples would be."""
    decided = [sample for sample in samples if sample is not None]
    if not decided or all(math.isinf(sample) for sample in decided) or not any(decided):
        return None
    return Estimate(median(decided), _interval(samples, first_look))


def _interval(
    samples: Sequence[float | None], first_look: int | None, error: float = ERROR, count: int | None = None
) -> Interval | None:
    """See `_estimate`; `count` as in `median_interval`."""
    lowest, highest = (
        median_interval([end if sample is None else sample for sample in samples], error, count, first_look)
        for end in (0.0, math.inf)
    )
    return Interval(lowest.low, highest.high) if lowest is not None and highest is not None else None


def _effect(estimate: Estimate | None) -> str:
    if estimate is None:
        return f"{_UNKNOWN} of its transfers arrive"
    if estimate.interval is None:
        return f"{format_ratio(estimate.value)} x (too few blocks for an interval)"
    low, high = estimate.interval
    return f"{format_ratio(estimate.value)} x ({format_ratio(low)} to {format_ratio(high)})"


def _judgement(verdict: Verdict | None) -> str:
    """What may be claimed of an effect, to stand behind its figures."""
    if verdict is None or verdict.word == NO_CLAIM:
        return ""
    negligible = ", which is negligible" if verdict.is_negligible else ""
    because = f" because {verdict.because}" if verdict.because else ""
    return f", {verdict.word}{negligible}{because}"


def _name(word: str) -> str:
    return _NAMES.get(word, word)
