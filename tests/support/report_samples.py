"""Synthetic campaigns for the tests of reports; together they have everything that a campaign can contain."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.support.synthetic_campaign import Truth, make_results
from toolkit.comparison.record_file import Writer
from toolkit.comparison.records import BackgroundFlowResult, PathRecord, Results

HOSTILE = "<script>alert(1)</script>$x_1$ & \"quotes' \x1b[31m\u202e網"
LOSSES = ("no loss", "loss 0.1%", "loss 1%", "loss 5%")
_SPEEDS_BPS = {"tcp-cubic": (94e6, 45e6, 9e6, 2e6), "udp-bbr": (92e6, 91e6, 89e6, 80e6)}


def lossy(paths: Sequence[str] = LOSSES) -> Results:
    """Two transports and the A/A control at each loss rate."""
    speeds = {(name, path): row[LOSSES.index(path)] for name, row in _SPEEDS_BPS.items() for path in paths}
    return make_results(Truth(speeds, sizes=(20_000_000,), repeats=9), 7)


def one_path(repeats: int = 9) -> Results:
    """A campaign of a single path, which has no pictures across paths."""
    truth = Truth({("tcp-cubic", "loopback"): 9e9, ("udp-bbr", "loopback"): 4e9}, repeats=repeats)
    results = make_results(truth, 3)
    return replace(results, campaign=replace(results.campaign, name="loopback"))


def grid(rtts_ms: Sequence[int] = (10, 40, 160), losses: Sequence[float] = (0.0, 0.001, 0.01)) -> Results:
    """A grid of RTT and loss, in which UDP is slower if both are low and faster if both are high."""
    speeds: dict[tuple[str, str], float] = {}
    changes: dict[str, tuple[float, float]] = {}
    for rtt_ms in rtts_ms:
        for loss in losses:
            path = f"{rtt_ms} ms, {loss:.1%}"
            speeds["tcp-cubic", path] = 90e6 / (1 + rtt_ms * loss * 20)
            speeds["udp-bbr", path] = 70e6
            changes[path] = (float(rtt_ms), loss)
    results = make_results(Truth(speeds, sizes=(5_000_000,), with_control=False), 5)
    paths = {path: _changed(results.campaign.paths[path], *change) for path, change in changes.items()}
    return replace(results, campaign=replace(results.campaign, paths=paths))


def _changed(path: PathRecord, rtt_ms: float, loss: float) -> PathRecord:
    return replace(path, rtt_ms=rtt_ms, loss=loss, queue=f"{rtt_ms} packets")


def troubled() -> Results:
    """Failures, marks, unbalanced packet accounting, a competing flow, and hostile text."""
    hostile = f"udp-bbr {HOSTILE}"
    results = lossy(LOSSES[:3])
    trials = []
    for trial in results.trials:
        if trial.transport == "udp-bbr":
            assert trial.ledger is not None
            forward = replace(trial.ledger.forward, balance=12 if trial.block == 2 else 0)
            ledger = replace(trial.ledger, forward=forward)
            competitor = BackgroundFlowResult(9e7, 4.5e7, 0.9)
            changed = replace(trial, transport=hostile, ledger=ledger, competitor=competitor, why=f"Because {HOSTILE}.")
            if trial.path == LOSSES[1]:
                changed = replace(changed, marks=("cpu-bound", "emulator-late"))
            if trial.path == LOSSES[2]:
                changed = replace(changed, verified=False, seconds=None, goodput_bps=None, error=f"exit 4: {HOSTILE}")
            trials.append(changed)
        else:
            trials.append(trial)
    transports = {hostile if name == "udp-bbr" else name: it for name, it in results.campaign.transports.items()}
    return replace(results, campaign=replace(results.campaign, transports=transports, storage=HOSTILE), trials=trials)


def save(results: Results, path: Path) -> Path:
    """Write the records as `nettool bench` does."""
    writer = Writer(path)
    for record in (results.campaign, *results.probes, *results.trials):
        writer.write(record)
    writer.close()
    return path
