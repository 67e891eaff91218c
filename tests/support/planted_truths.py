"""Simulated campaigns of one comparison with a known truth, judged as `nettool bench` judges its own.

They sample as it does by default: a pilot, and then further blocks until the intervals are narrow, or as many as fit
into the default budget.
"""

from collections import Counter
from functools import partial

import numpy as np

from tests.support.noise import BASELINE, CONTROL, RIVAL, Logs, log_goodputs
from toolkit.comparison.looks import look_after
from toolkit.comparison.plan import pilot_blocks
from toolkit.comparison.sampling import width
from toolkit.comparison.stats import ERROR, Interval, estimated_median, median_interval
from toolkit.comparison.verdict import DEFAULT_MARGIN, Evidence, Verdict, judge

SEED = 12
CAMPAIGNS = 1000
PILOT = pilot_blocks(1)
MOST = 64
"""Blocks that fit into the default budget, if a trial takes two seconds."""
NEGLIGIBLE = "negligible"


def evidence(logs: Logs, first_look: int | None = None) -> Evidence:
    """What `nettool bench` judges; `logs` is blocks x transports."""
    ratios, control = (np.exp(logs[:, one] - logs[:, BASELINE]).tolist() for one in (RIVAL, CONTROL))
    intervals = [partial(median_interval, each, first_look=first_look) for each in (ratios, control)]
    return Evidence(estimated_median(ratios, first_look), intervals[0], len(ratios), intervals[1])


def sampled(logs: Logs) -> Evidence:
    """What a campaign with a budget judges: its blocks up to the look at which all intervals are narrow."""
    blocks = PILOT
    while True:
        one = evidence(logs[:blocks], PILOT)
        assert one.control is not None
        is_narrow = all(width(each(ERROR, None), DEFAULT_MARGIN) <= 1 for each in (one.interval, one.control))
        if is_narrow or look_after(blocks, PILOT) > MOST:
            return one
        blocks = look_after(blocks, PILOT)


def verdicts(
    noise: str, factor: float, blocks: int | None = None, count: int = CAMPAIGNS
) -> list[tuple[Verdict, Interval]]:
    """The verdict on each of `count` campaigns of one comparison, with its interval.

    blocks: their number; None for a campaign with a budget
    """
    made = []
    for logs in log_goodputs(noise, SEED, count, blocks or MOST, factor):
        one = sampled(logs) if blocks is None else evidence(logs)
        assert one.ratio is not None
        assert one.ratio.interval is not None
        made.append((judge([one], DEFAULT_MARGIN)[0], one.ratio.interval))
    return made


def words(noise: str, factor: float, blocks: int | None = None, count: int = CAMPAIGNS) -> Counter[str]:
    return Counter(NEGLIGIBLE if one.is_negligible else one.word for one, _ in verdicts(noise, factor, blocks, count))
