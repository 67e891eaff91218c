"""Trials in pairs, and what they show of one transport against the baseline.

No pair of which anything arrived is left out, because what would leave it out (a failure, a mark) depends on how it
ran: slow trials would disappear, and the survivors would look fast. A failed transfer has a goodput of 0. A pair in
which both failed is *censored*: it says nothing about which is better, and it is not evidence for equality. A marked
trial (`toolkit.comparison.records.MARKS`) counts as measured. A median tolerates some of them; if more than
MARKED_SHARE of either side's trials are marked, there is no claim, with one exception: if all that is wrong is that one
side lacked processors, that side may be called faster, because it would have been faster still. There is no claim
either if no transfer of one side arrived.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

from toolkit.comparison import stats
from toolkit.comparison.machine_load import BUSY_SHARE
from toolkit.comparison.paths import LINK
from toolkit.comparison.records import BUSY_MACHINE, CONTROL_SUFFIX, CPU_BOUND, PathRecord, Results, Trial
from toolkit.comparison.stats import ERROR, Estimate, estimated_median, median_interval, proportion
from toolkit.comparison.verdict import FASTER, SLOWER, Evidence, Intervals, reach
from toolkit.units import format_fraction

MARKED_SHARE = 0.2
"""Largest share of one side's trials that may be marked if there is to be a claim."""
_UNEQUAL_SHARE = 0.01
"""The smallest difference in the load of two sides that is named; ticks of 10 ms show no finer one."""


class PairedTrials:
    """The trials of one path at one size, without the warm-up, in pairs of a transport and the baseline."""

    def __init__(self, results: Results, path: str, size: int) -> None:
        self.path, self.size, self.campaign = path, size, results.campaign
        here = [t for t in results.trials if (t.path, t.payload_bytes) == (path, size) and t.block >= 0]
        self._trials = {label: [t for t in here if t.transport == label] for label in results.campaign.transports}
        control = self.campaign.baseline + CONTROL_SUFFIX
        self._control = self._interval(self.pairs(control)[0]) if control in self._trials else None
        self.reach = reach(self._control(ERROR, None)) if self._control is not None else None

    def trials(self, label: str) -> Sequence[Trial]:
        """All trials of a transport."""
        return self._trials[label]

    def pairs(self, label: str) -> tuple[list[float], int]:
        """The ratio to the baseline in each block that ran both, and the number of blocks in which both failed."""
        own, base = ({t.block: goodput_bps(t) for t in self._trials[name]} for name in (label, self.campaign.baseline))
        pairs = [(own[block], base[block]) for block in sorted(own.keys() & base.keys())]
        ratios = [stats.ratio(*pair) for pair in pairs if any(pair)]
        return ratios, len(pairs) - len(ratios)

    def evidence(self, label: str) -> Evidence:
        """What the verdict on a transport is decided by; the control has no control of its own."""
        ratios, _ = self.pairs(label)
        is_control = label == self.campaign.baseline + CONTROL_SUFFIX
        trials, base = self._trials[label], self._trials[self.campaign.baseline]
        unequal_loss = self.unequal_loss(label)
        return Evidence(
            ratio=self.ratio(label),
            interval=self._interval(ratios),
            samples=len(ratios),
            control=None if is_control else self._control,
            load_effect=self.load_effect(label),
            doubt=_doubt(trials, base) or unequal_loss,
            despite_doubt="" if unequal_loss else _despite_marks(trials, base),
        )

    def ratio(self, label: str) -> Estimate | None:
        """The median ratio; None if no block ran both, or one of the two never arrived."""
        ratios, _ = self.pairs(label)
        if not any(ratios) or all(map(math.isinf, ratios)):
            return None
        return estimated_median(ratios, self.campaign.first_look)

    def unequal_load(self, label: str) -> float | None:
        """How much more of all processors other work took from a transport than from the baseline in the same block.

        Negative if it took less; None if the pairs show no difference. Other work that comes at random disturbs both
        sides alike; what comes with one of them is no property of a transport. A pair of two trials on a busy machine,
        which are marked, shows none: there other work takes what the transfer leaves, so that its share says which of
        the two needs less.
        """
        own, base = (loads(self._trials[name]) for name in (label, self.campaign.baseline))
        pairs = [(own[block], base[block]) for block in sorted(own.keys() & base.keys())]
        differences = [0.0 if min(pair) > BUSY_SHARE else pair[0] - pair[1] for pair in pairs]
        interval = median_interval(differences, first_look=self.campaign.first_look) if differences else None
        if interval is None or interval.low <= 0 <= interval.high:
            return None
        difference = median(differences)
        return difference if abs(difference) >= _UNEQUAL_SHARE else None

    def unequal_loss(self, label: str) -> str:
        """That the link lost another share of a transport's packets than of the baseline's; empty if it may not have.

        The two then had different paths, and their goodputs say nothing of the transports. The test is corrected for
        the number of rows.
        """
        if not loses_independently(self.campaign.paths[self.path]):
            return ""
        own, base = (link_packets(self._trials[name]) for name in (label, self.campaign.baseline))
        if min(own.passed, base.passed) <= 0 or not stats.shares_differ(*own, *base, ERROR / self.row_count):
            return ""
        shares = [format_fraction(lost / passed) for lost, passed in (own, base)]
        return f"the link lost {shares[0]} of its packets, and {shares[1]} of the baseline's: they had different paths"

    @property
    def row_count(self) -> int:
        """How many rows of figures the campaign has."""
        return len(self.campaign.paths) * len(self.campaign.sizes) * len(self.campaign.transports)

    def load_effect(self, label: str) -> float:
        """The largest factor in goodput, at least 1, that an unequal load explains: all of it on one processor."""
        processors = abs(self.unequal_load(label) or 0.0) * (self.campaign.host.cores or 1)
        return 1 / (1 - processors) if processors < 1 else math.inf

    @property
    def control(self) -> Intervals | None:
        """The interval of the A/A control; None without one."""
        return self._control

    def _interval(self, ratios: Sequence[float]) -> Intervals:
        return partial(median_interval, ratios, first_look=self.campaign.first_look)


def whole_blocks(results: Results) -> tuple[int, int]:
    """How many blocks ran all their transports: on the path and at the size with the fewest, and with the most."""
    campaign, ran = results.campaign, Counter[tuple[str, int, int]]()
    ran.update((trial.path, trial.payload_bytes, trial.block) for trial in results.trials if trial.block >= 0)
    whole = Counter((path, size) for (path, size, _), count in ran.items() if count >= len(campaign.transports))
    counts = [whole[path, size] for path in campaign.paths for size in campaign.sizes]
    return min(counts, default=0), max(counts, default=0)


def is_mostly_sound(trials: Sequence[Trial]) -> bool:
    """Whether few enough trials are marked for their median to be trusted."""
    return sum(trial.is_doubtful for trial in trials) <= MARKED_SHARE * len(trials)


def marked_text(trials: Sequence[Trial], whose: str = "of ") -> str | None:
    """How many trials are marked, and with what; None if few enough are."""
    if is_mostly_sound(trials):
        return None
    marked = [trial for trial in trials if trial.is_doubtful]
    return f"{len(marked)} {whose}{len(trials)} trials marked {counted_marks(mark_counts(marked), len(marked))}"


def mark_counts(trials: Sequence[Trial]) -> dict[str, int]:
    """Mark -> how many of the trials have it, in the order of the alphabet."""
    return dict(sorted(Counter(mark for trial in trials for mark in trial.marks).items()))


def counted_marks(counts: Mapping[str, int], count: int) -> str:
    """The marks of `count` trials, each that only some of them have with the number of those."""
    return ", ".join(mark if number == count else f"{mark} ({number})" for mark, number in counts.items() if number)


def goodput_bps(trial: Trial) -> float:
    """The goodput of a trial; 0 if the transfer failed."""
    return max(trial.goodput_bps or 0.0, 0.0) if trial.is_counted else 0.0


def loads(trials: Sequence[Trial]) -> dict[int, float]:
    """Block -> the share of all processors that other work took meanwhile, as far as it is known."""
    known = [(trial.block, trial.conditions.load) for trial in trials if trial.conditions is not None]
    return {block: load.taken_share for block, load in known if load is not None}


def _doubt(trials: Sequence[Trial], base: Sequence[Trial]) -> str:
    """Why the trials of a transport and of the baseline are not fit to be judged; empty if they are."""
    if not trials:
        return "not run"
    if not any(trial.is_counted for trial in trials):
        return "no transfer was verified"
    if not base:
        return "the baseline was not run"
    if not any(trial.is_counted for trial in base):
        return "no transfer of the baseline was verified"
    return marked_text(trials) or marked_text(base, "of the baseline's ") or ""


def _despite_marks(trials: Sequence[Trial], base: Sequence[Trial]) -> str:
    """The one verdict that holds although one side lacked processors; empty if none does.

    Without a processor a transfer is slower, not faster: if it is the faster one nevertheless, that holds.
    """
    if _only_lacked_processors(trials) and is_mostly_sound(base):
        return FASTER
    return SLOWER if is_mostly_sound(trials) and _only_lacked_processors(base) else ""


def _only_lacked_processors(trials: Sequence[Trial]) -> bool:
    """Whether too many trials are marked, but few enough with anything besides CPU_BOUND."""
    otherwise = sum(not {CPU_BOUND, BUSY_MACHINE}.issuperset(trial.marks) for trial in trials)
    return not is_mostly_sound(trials) and otherwise <= MARKED_SHARE * len(trials)


def loses_independently(path: PathRecord) -> bool:
    """Whether a path is a link that loses each packet with the same probability."""
    return path.kind == LINK and path.burst is None and "changes" not in path.link


class LinkPackets(NamedTuple):
    """How many packets the link itself lost, of those that passed its queue."""

    lost: int
    passed: int


def link_packets(trials: Sequence[Trial]) -> LinkPackets:
    """The packets from sender to receiver in all trials whose link counted them."""
    audits = [trial.ledger.forward for trial in trials if trial.ledger is not None]
    passed = sum((audit.offered or 0) - (audit.dropped_by_queue or 0) for audit in audits)
    return LinkPackets(sum(audit.lost_by_link or 0 for audit in audits), passed)


def link_loss(trials: Sequence[Trial], error: float = ERROR) -> Estimate | None:
    """What the link itself lost, as a share of the packets that passed its queue; None if no trial knows."""
    lost, passed = link_packets(trials)
    return proportion(lost, passed, error) if passed > 0 else None
