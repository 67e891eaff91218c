"""How one flow of nettool's UDP and several kernel TCP flows share an emulated link, live.

    python bench/shares.py [--cc bbr] [--among 4] [--tcp cubic] [--rate 100Mbit] [--rtt 40ms] [--queue 500kB]
                           [--time 30s] [--repeat 5]

The TCP flows start a second apart, then the UDP flow. Their goodput counts for `--time` once all run at full speed. A
share of 1 is the goodput of all divided by their number. Exits with 1 if the median share of the UDP flow is not
between a half and two. It takes about a minute a repetition, and nothing leaves the link's namespaces, for which it
needs root or user namespaces. On a busy machine, the figures are those of its scheduler.
"""

import argparse
import sys
import time
from contextlib import ExitStack
from statistics import median

from tabulate import tabulate

from toolkit.comparison.background_flow import BackgroundFlow
from toolkit.comparison.emulated_testbed import EmulatedTestbed
from toolkit.comparison.paths import LINK, BenchPath
from toolkit.comparison.records import Setting
from toolkit.netmodel.notation import LinkText, link_spec
from toolkit.simulator.result import jain_index
from toolkit.units import parse_duration_ns

LEAST_SHARE, MOST_SHARE = 0.5, 2.0


def goodputs_bps(path: BenchPath, settings: list[Setting], seconds: float, seed: int) -> list[float]:
    """Run all flows at the same time; the goodput of each."""
    with EmulatedTestbed(path) as testbed, ExitStack() as stack:
        testbed.begin(seed)
        flows = [BackgroundFlow(setting) for setting in settings]
        for flow in flows:
            stack.enter_context(flow.running(testbed))
        begin_s = time.monotonic()
        time.sleep(seconds)
        end_s = time.monotonic()
        return [flow.finish(begin_s, end_s, 0.0).goodput_bps_beside for flow in flows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cc", default="bbr")
    parser.add_argument("--among", type=int, default=4, metavar="N")
    parser.add_argument("--tcp", default="cubic", metavar="NAME")
    parser.add_argument("--rate", default="100Mbit")
    parser.add_argument("--rtt", default="40ms")
    parser.add_argument("--queue", default="500kB", help="the default is a bandwidth-delay product")
    parser.add_argument("--time", default="30s")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    texts = {"rate": options.rate, "rtt": options.rtt, "queue": options.queue}
    path = BenchPath(f"{options.rate} {options.rtt}", LINK, dict(texts), link_spec(LinkText(**texts)))
    tcp = Setting(f"tcp-{options.tcp}", "tcp", options.tcp)
    settings = [*[tcp] * options.among, Setting(f"udp-{options.cc}", "udp", options.cc)]
    rows, shares = [], []
    for seed in range(1, options.repeat + 1):
        bps = goodputs_bps(path, settings, parse_duration_ns(options.time) / 1e9, seed)
        shares.append(bps[-1] * len(bps) / sum(bps))
        rows.append([seed, *(f"{each / 1e6:.1f}" for each in bps), f"{shares[-1]:.2f}", f"{jain_index(bps):.3f}"])
    print(tabulate(rows, ["run", *(each.label for each in settings), "share", "Jain"], disable_numparse=True))
    print(f"\nMbit/s; the median share of udp-{options.cc} is {median(shares):.2f}")
    sys.exit(0 if LEAST_SHARE <= median(shares) <= MOST_SHARE else 1)


if __name__ == "__main__":
    main()
