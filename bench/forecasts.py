"""How right the estimated times of `nettool bench` are, on simulated transfers and on recorded campaigns.

    python bench/forecasts.py                     simulated transfers on a grid of paths, in virtual time
    python bench/forecasts.py RECORDS.jsonl...    pilots of recorded campaigns, and the time left as seen on the way

The columns are the estimate, the time that it took, and their quotient. A recorded campaign does not know how long the
start of a process took then: its estimate supposes an idle machine like the one of `toolkit.comparison.forecast`.
"""

import argparse
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import median

from tabulate import tabulate

from toolkit.comparison.forecast import Forecast, transfer_seconds
from toolkit.comparison.paths import LINK, combined
from toolkit.comparison.record_file import read
from toolkit.comparison.sampling import elapsed_s
from toolkit.comparison.scenario import plan_of_record
from toolkit.simulator.simulator import Experiment, FlowSpec, run
from toolkit.units import format_size, parse_size

LISTS = {"rate": ["10Mbit", "100Mbit"], "rtt": ["10ms", "80ms"], "loss": ["0%", "0.5%", "2%"]}
SIZES = ("256KiB", "4MiB", "16MiB")
CONTROLS = ("cubic", "bbr")
UNLIMITED_BPS = 1e12
SHARES = (0.05, 0.1, 0.25, 0.5)


def simulated() -> Iterator[list[object]]:
    for path, control, size in product(combined(LINK, LISTS, {}, 1), CONTROLS, map(parse_size, SIZES)):
        assert path.spec is not None
        flow = run(Experiment(path.spec, [FlowSpec(control, size_bytes=size)])).flows[0]
        took_s = (flow.end_ns - flow.start_ns) / 1e9
        expected_s = transfer_seconds(control, path, size, UNLIMITED_BPS)
        yield [path.label, control, format_size(size), expected_s, took_s, expected_s / took_s]


def recorded(file: Path) -> list[object]:
    """The whole pilot, then the time left after these shares of it."""
    results = read(file)
    forecast = Forecast(plan_of_record(results.campaign))
    pilot = sorted(results.trials, key=lambda trial: trial.position)[: forecast.plan.trial_count]
    took_s = elapsed_s(pilot)
    known = [pilot[: math.ceil(share * len(pilot))] for share in SHARES]
    left = [forecast.left_s(trials) / (took_s - elapsed_s(trials)) for trials in known]
    return [file, forecast.left_s(), took_s, forecast.left_s() / took_s, *left]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="*", type=Path)
    files = parser.parse_args().records
    figures = ["estimate", "time", "quotient"]
    if files:
        rows = [recorded(file) for file in files]
        print(tabulate(rows, ["records", *figures, *(f"at {share:.0%}" for share in SHARES)], floatfmt=".2f"))
        return
    found = list(simulated())
    print(tabulate(found, ["path", "control", "size", *figures], floatfmt=".2f"))
    quotients = [float(str(row[-1])) for row in found]
    within = sum(1 / 1.3 <= each <= 1.3 for each in quotients)
    print(f"{within} of {len(quotients)} within 30%; median {median(quotients):.2f}")


if __name__ == "__main__":
    main()
