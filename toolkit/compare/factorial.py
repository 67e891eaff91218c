"""What the transport contributes to a difference in goodput, and what the congestion control does: a 2 x 2 design.

BBR over UDP against CUBIC over TCP changes two things at once. With all four combinations the logarithm of goodput
splits into two main effects and their interaction (Box, Hunter and Hunter, Statistics for Experimenters, chapter 5):

    transport    the mean over both controls of    log(UDP / TCP)        at the same control
    control      the mean over both transports of  log(other / baseline) over the same transport
    interaction  log(other / baseline) over UDP, minus the same over TCP

Each is computed within a block, where whatever disturbs one trial often disturbs its neighbours too, and written as a
ratio: the geometric mean of two ratios, or their quotient. Value and interval are those of the median over blocks, as
for the ratio of two transports (`toolkit.compare.stats`). Where one combination is missing, an effect rests on the
combinations that there are, and the interaction is unknown. A failed transfer has a goodput of 0. A block in which that
leaves an effect undecided (failures on both sides) counts as 0 for the lower end of its interval, and as infinite for
the upper one.

The effects get verdicts by the same rules as transports (`toolkit.compare.verdict`): the A/A control is their gate, and
Holm's procedure allows for the number of effects in the campaign. The gate is strict: the mean of two ratios scatters
less than the one ratio of the control.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from toolkit.compare.pairs import PairedTrials, goodput_bps, marked_text
from toolkit.compare.records import CONTROL_SUFFIX, Campaign, Setting
from toolkit.compare.stats import ERROR, Estimate, Interval, median_interval
from toolkit.compare.verdict import NO_CLAIM, Evidence, Verdict, judge
from toolkit.units import format_ratio

TRANSPORTS = ("tcp", "udp")
_NAMES = {"tcp": "TCP", "udp": "UDP", "bbr": "BBR", "cubic": "CUBIC", "reno": "Reno", "newreno": "NewReno"}

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
    interaction:  effect of the control over UDP, relative to that over TCP; its interval is corrected for the number of
                  interactions in the campaign
    doubt:        why the trials are not fit to be judged; empty if they are
    evidence:     what the verdicts on transport and control are decided by
    verdicts:     on transport and control; None before they are judged (`judged_effects`)
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
    evidence: tuple[Evidence, ...] = ()
    verdicts: tuple[Verdict | None, Verdict | None] = (None, None)

    @property
    def interacts(self) -> bool:
        """Whether the interval of the interaction excludes 1."""
        found = self.interaction
        return found is not None and found.interval is not None and found.interval.excludes_one


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


def factorials(cell: PairedTrials) -> list[Factorial]:
    """The effects on one path at one size, for each design of the campaign."""
    found = designs(cell.campaign)
    count = len(found) * len(cell.campaign.paths) * len(cell.campaign.sizes)
    result = []
    for design in found:
        goodputs = {arm: {t.block: goodput_bps(t) for t in cell.trials(label)} for arm, label in design.items()}
        marked = [label for label in design.values() if marked_text(cell.trials(label))]  # the remarks count the marks
        doubts = [f"too many marked trials: {', '.join(marked)}"] if marked else []
        losses = {label: cell.unequal_loss(label) for label in design.values() if label not in marked}
        doubts += [f"{label}: {text}" for label, text in losses.items() if text]
        base = cell.campaign.transports[cell.campaign.baseline].congestion_control or ""
        other = next(control for _, control in design if control != base)
        found_here = decompose(goodputs, (base, other), count, "; ".join(doubts), cell.campaign.first_look)
        load_effect = max(cell.load_effect(label) for label in design.values())
        gated = [
            replace(each, control=cell.control, load_effect=load_effect, doubt=found_here.doubt)
            for each in found_here.evidence
        ]
        result.append(replace(found_here, evidence=tuple(gated)))
    return result


def judged_effects(found: Sequence[Factorial], margin: float) -> list[Factorial]:
    """All effects of a campaign with their verdicts; `margin` is the largest negligible difference."""
    verdicts = iter(judge([evidence for each in found for evidence in each.evidence], margin))
    return [replace(each, verdicts=(next(verdicts), next(verdicts))) for each in found]


def decompose(
    goodputs: Goodputs,
    controls: tuple[str, str],
    interactions: int = 1,
    doubt: str = "",
    first_look: int | None = None,
) -> Factorial:
    """The effects in paired blocks of three or four arms.

    interactions: how many a campaign looks at; among all of them, one is found by chance in at most 5% of campaigns
    first_look:   see `toolkit.compare.stats.interval_rank`
    """
    base, other = controls
    shared = set.intersection(*(set(blocks) for blocks in goodputs.values()))
    blocks = [{arm: of_arm[block] for arm, of_arm in goodputs.items()} for block in sorted(shared)]

    def samples(above: Sequence[Arm], below: Sequence[Arm], root: int) -> list[float | None]:
        return [_ratio([block[a] for a in above], [block[b] for b in below], root) for block in blocks]

    def estimate(measured: Sequence[float | None]) -> Estimate | None:
        return _estimate(measured, ERROR, first_look)

    both = [c for c in controls if all((t, c) in goodputs for t in TRANSPORTS)]
    within = [t for t in TRANSPORTS if all((t, c) in goodputs for c in controls)]
    tcp, udp = TRANSPORTS
    transport = samples([(udp, c) for c in both], [(tcp, c) for c in both], len(both)) if both else []
    control = samples([(t, other) for t in within], [(t, base) for t in within], len(within)) if within else []
    by_transport = {t: estimate(samples([(t, other)], [(t, base)], 1)) for t in within}
    interaction = None
    if len(goodputs) == len(TRANSPORTS) * len(controls):
        quotients = samples([(udp, other), (tcp, base)], [(udp, base), (tcp, other)], 1)
        interaction = _estimate(quotients, ERROR / max(1, interactions), first_look)
    return Factorial(
        controls=controls,
        paired=tuple(both),
        over=tuple(within),
        blocks=len(blocks),
        transport=estimate(transport),
        control=estimate(control),
        by_transport={t: found for t, found in by_transport.items() if found is not None},
        interaction=interaction,
        doubt=doubt,
        evidence=tuple(
            Evidence(estimate(each), partial(_interval, each, first_look), len(each)) for each in (transport, control)
        ),
    )


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


def _estimate(samples: Sequence[float | None], error: float, first_look: int | None) -> Estimate | None:
    """The median of what is decided, with an interval that holds whatever the undecided samples would be."""
    decided = [sample for sample in samples if sample is not None]
    if not decided or all(math.isinf(sample) for sample in decided) or not any(decided):
        return None
    return Estimate(median(decided), _interval(samples, first_look, error))


def _interval(
    samples: Sequence[float | None], first_look: int | None, error: float, count: int | None = None
) -> Interval | None:
    """See `_estimate`; `count` as in `median_interval`."""
    lowest, highest = (
        median_interval([end if sample is None else sample for sample in samples], error, count, first_look)
        for end in (0.0, math.inf)
    )
    return Interval(lowest.low, highest.high) if lowest is not None and highest is not None else None


def _effect(estimate: Estimate | None) -> str:
    if estimate is None:
        return "unknown"
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
