"""The sentence that explains a transfer, or all trials of a transport: only what the samples support."""

from dataclasses import replace

import pytest

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.explanation import Facts, Limit, explanation, explanation_of_all, facts_of, limit, mean_split
from toolkit.comparison.packet_counts import DirectionAudit, PacketAudit
from toolkit.comparison.paths import KINDS, LAN_KIND, LINK
from toolkit.comparison.records import PathRecord, TimeSplit
from toolkit.comparison.summary import summarise

FACTS = Facts("cubic", 10.0, 0.08, 3.5e6, TimeSplit(), 33, 95e6, 0.01, 0.04, 0.1, 0.1)
LOSSY = replace(FACTS, time_split=TimeSplit(ramp_up_s=0.5, recovery_s=2.5, congestion_limited_s=7.0))
STEADY = TimeSplit(steady_s=10.0)
PROCESSOR = replace(FACTS, time_split=TimeSplit(cpu_bound_s=8.0, steady_s=2.0), busy_receiver=0.97)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (LOSSY, "It repaired losses for 25% of the time and was held back by cubic for 70% of it (33 packets resent)"),
        (LOSSY, "at 1% loss and 40 ms, cubic reaches about 3.51 Mbit/s (RFC 9438), and this was 3.5 Mbit/s"),
        (replace(LOSSY, loss=0.0, queue_drops=33), "the link loses nothing, but its queue dropped 33 packets"),
        (PROCESSOR, "A processor was the limit for 80% of the time: the receiver used one for 97%"),
        (
            replace(FACTS, time_split=TimeSplit(waiting_s=8.0, steady_s=2.0)),
            "waited for 80% of the time for a processor that another process used",
        ),
        (
            replace(FACTS, time_split=TimeSplit(handshake_s=3.0, ramp_up_s=6.0, steady_s=1.0)),
            "Start and end took most of its time: 3 s of handshake and 6 s of ramp-up out of 10 s",
        ),
        (
            replace(FACTS, time_split=TimeSplit(handshake_s=2.0, tail_s=4.0, steady_s=4.0)),
            "2 s of handshake and 4 s of waiting for the digest to be verified",  # four seconds at full speed
        ),
        (replace(FACTS, time_split=TimeSplit(window_limited_s=7.0, steady_s=3.0)), "filling the path takes 463.9 KiB"),
        (replace(FACTS, time_split=STEADY, goodput_bps=94e6), "It filled the path: 99%"),
        (replace(FACTS, time_split=STEADY, ideal_bps=None), "The path has no limit of its own"),
        (replace(FACTS, time_split=STEADY, goodput_bps=50e6), "53% of what the path carries"),
        (
            replace(FACTS, time_split=None, seconds=0.02, handshake_s=0.009),
            "It took 20 ms, 9 ms of it for the handshake",
        ),
    ],
)
def test_the_explanation_names_the_largest_part(facts: Facts, says: str) -> None:
    text = explanation(facts)
    assert says in text
    assert text.endswith(".")


@pytest.mark.parametrize("recovery_s", [1.2, 6.0])
def test_of_a_real_path_only_what_was_sampled_is_said(recovery_s: float) -> None:
    """TCP at 14.6 Mbit/s on a path of 20 was once explained by the two endpoints."""
    split = TimeSplit(steady_s=9.8 - recovery_s, recovery_s=recovery_s, window_limited_s=0.2)
    facts = replace(FACTS, time_split=split, ideal_bps=None, loss=0.0, is_real=True)
    assert limit(facts) == Limit.UNSEEN
    assert explanation(facts) == (
        "No limit shows at the sender, and what the path carries is not known: it repaired losses for "
        f"{recovery_s / 10:.0%} of the time (33 packets resent), met the receive window or the send buffer for 2%, and "
        "was short of processor time for 0%."
    )
    assert limit(replace(facts, time_split=TimeSplit(window_limited_s=7.0, steady_s=3.0))) == Limit.WINDOW


def test_a_path_that_changes_is_not_measured_by_its_first_rate() -> None:
    """It was once filled to 300%."""
    results = make_results(Truth({("tcp-cubic", "a"): 90e6}, repeats=6, with_control=False), 1)
    path = PathRecord(LINK, ideal_bps=30e6, rtt_ms=40.0, link={"changes": ["1s rate 100Mbit"]})
    facts = facts_of(replace(results.trials[1], time_split=STEADY), path, "cubic")
    assert facts is not None
    assert explanation(facts).startswith("No limit shows at the sender, and what the path carries changes: ")


def test_a_path_to_another_machine_is_a_real_one() -> None:
    results = make_results(Truth({("tcp-cubic", "a"): 90e6}, repeats=6, with_control=False), 1)
    found = [facts_of(results.trials[1], PathRecord(kind), "cubic") for kind in KINDS]
    assert [each is not None and each.is_real for each in found] == [False, False, False, True]


@pytest.mark.parametrize(
    ("path", "loss"),
    [
        (PathRecord(LINK, loss=0.01), 0.01),
        (PathRecord(LINK, loss=0.01, link={"changes": ["1s loss 9%"]}), 0.05),
        (PathRecord(LINK, loss=0.01, burst="2%,50%"), 0.05),
        (PathRecord(LAN_KIND), 0.05),
    ],
)
def test_where_losses_are_uneven_those_count_that_the_link_counted(path: PathRecord, loss: float) -> None:
    """The loss of such a path is its first one, or a mean over hours: what a trial met is something else."""
    results = make_results(Truth({("tcp-cubic", "a"): 90e6}, repeats=6, with_control=False), 1)
    audit = PacketAudit(DirectionAudit(offered=1100, dropped_by_queue=100, lost_by_link=50), DirectionAudit())
    facts = facts_of(replace(results.trials[1], ledger=audit), path, "cubic")
    assert facts is not None
    assert facts.loss == loss
    assert facts.is_loss_even == (loss == 0.01)
    uncounted = facts_of(replace(results.trials[1], ledger=None), path, "cubic")
    assert uncounted is not None
    assert uncounted.loss == (path.loss or 0.0)


def test_a_transfer_that_sends_much_again_did_not_fill_the_path() -> None:
    """`It filled the path` was once said of a transfer that threw away 45% of what it sent."""
    packets = 94e6 * 10 / 8 / 1448
    wasteful = replace(
        FACTS, time_split=STEADY, goodput_bps=94e6, loss=0.0, retransmitted_packets=0.45 / 0.55 * packets
    )
    text = explanation(replace(wasteful, queue_drops=60_000))
    assert "filled" not in text
    assert "sent 45% of its packets again where the link loses 0%, and the queue dropped 60000" in text
    lossy = replace(wasteful, loss=0.3, retransmitted_packets=0.3 * packets)
    assert "It filled the path" in explanation(lossy)  # what the link loses has to be sent again


@pytest.mark.parametrize(
    "facts",
    [
        replace(LOSSY, congestion_control="bbr"),
        replace(LOSSY, goodput_bps=6.08e6),  # it was once said to be good for 3.51 Mbit/s, and to have reached 6.08
        replace(LOSSY, goodput_bps=1e6),
        replace(LOSSY, retransmitted_packets=4),
        replace(LOSSY, is_loss_even=False),
        replace(LOSSY, time_split=TimeSplit(handshake_s=3.0, ramp_up_s=6.0, recovery_s=1.0)),
        replace(LOSSY, ideal_bps=3e6),
    ],
)
def test_a_model_is_quoted_only_where_it_applies_and_is_not_contradicted(facts: Facts) -> None:
    assert "RFC 9438" not in explanation(facts)


def test_a_sentence_about_all_trials_says_how_many_agree() -> None:
    filled = replace(FACTS, time_split=STEADY, goodput_bps=94e6)
    assert explanation_of_all([PROCESSOR] * 4 + [filled] * 2).endswith("for 97% of it (4 of 6 trials).")
    divided = explanation_of_all([PROCESSOR] * 3 + [filled] * 3)
    assert divided == "Its trials disagree on what limited them: 3 of 6 by a processor, 3 of 6 by the path."
    assert explanation_of_all([]) == ""


def test_the_figures_of_all_trials_are_means() -> None:
    slow = replace(PROCESSOR, seconds=20.0, time_split=TimeSplit(cpu_bound_s=18.0, steady_s=2.0), busy_receiver=0.91)
    assert mean_split([PROCESSOR, slow]) == TimeSplit(cpu_bound_s=13.0, steady_s=2.0)
    assert "for 87% of the time: the receiver used one for 94%" in explanation_of_all([PROCESSOR, slow])


def test_a_limit_needs_twenty_samples() -> None:
    results = make_results(Truth({("tcp-cubic", "a"): 90e6}, repeats=6, with_control=False), 1)
    path = results.campaign.paths["a"]
    trial = results.trials[1]
    assert trial.series is not None

    def cut(count: int) -> Limit:
        assert trial.series is not None
        facts = facts_of(replace(trial, series=replace(trial.series, t_s=trial.series.t_s[:count])), path, "cubic")
        assert facts is not None
        return limit(facts)

    assert cut(19) == Limit.UNKNOWN
    assert cut(20) != Limit.UNKNOWN
    short = [replace(t, series=replace(t.series, t_s=t.series.t_s[:19])) if t.series else t for t in results.trials]
    (row,) = summarise(replace(results, trials=short)).rows
    assert row.time_split is None
    assert row.regime == "short"
    assert row.why.endswith("too short for samples to tell what limited it (6 of 6 trials).")


def test_a_failed_trial_explains_nothing() -> None:
    results = make_results(Truth({("tcp-cubic", "a"): 90e6}, repeats=1, with_control=False), 1)
    failed = replace(results.trials[0], verified=False, seconds=None)
    assert facts_of(failed, results.campaign.paths["a"], "cubic") is None


def test_a_warm_up_has_an_explanation_although_no_figure_counts_it() -> None:
    results = make_results(Truth({("tcp-cubic", "a"): 90e6}, repeats=1, with_control=False), 1)
    warm_up = replace(results.trials[-1], block=-1)
    assert not warm_up.is_counted
    assert facts_of(warm_up, results.campaign.paths["a"], "cubic") is not None
